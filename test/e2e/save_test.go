package e2e_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"wireguard4netns/conf"
	"wireguard4netns/internal/nstest"
)

// saving is a file with SaveConfig as people write them: its one peer answers, the
// other two do not, and the last has a name.
type saving struct {
	path, text    string
	account       nstest.Account
	silent, named string // keys
}

const vpnName = "vpn.example"

func (w *world) saving(t *testing.T) saving {
	t.Helper()
	s := saving{account: w.peer.NewAccount(t, internet4, nstest.AccountOptions{})}
	s.silent, s.named = encode(newKey(t).PublicKey().Bytes()), encode(newKey(t).PublicKey().Bytes())
	a := s.account
	s.text = fmt.Sprintf(`# How home is reached.
[Interface]
privatekey=%s # mine
Address = %s/32
SaveConfig = true

# friendly_name = Home
[Peer]
PublicKey = %s
Endpoint = %s # the router
AllowedIPs = %s/32

# Lost.
[Peer]
PublicKey = %s
AllowedIPs = 10.8.0.0/16

[Peer] # friendly_name = Office
PublicKey = %s
  Endpoint = %s:9 # has two addresses
AllowedIPs = 10.9.0.0/16
`, a.PrivateKey, a.Addr4, a.PeerKey, a.Endpoint, w.peer.Addr4, s.silent, s.named, vpnName)
	s.path = filepath.Join(t.TempDir(), "home.conf")
	s.write(t, s.text, 0o644)
	return s
}

func (s saving) write(t *testing.T, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(s.path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.path, mode); err != nil {
		t.Fatal(err)
	}
}

// check demands the file, alone in its directory but for others.
func (s saving) check(t *testing.T, text string, mode os.FileMode, others ...string) {
	t.Helper()
	got, err := os.ReadFile(s.path)
	if err != nil || string(got) != text {
		t.Errorf("%v\n%s\nwant\n%s", err, got, text)
	}
	if info, err := os.Stat(s.path); err != nil || info.Mode().Perm() != mode {
		t.Errorf("mode %v, %v; want %v", info.Mode(), err, mode)
	}
	var names []string
	list, err := os.ReadDir(filepath.Dir(s.path))
	for _, entry := range list {
		names = append(names, entry.Name())
	}
	if want := append([]string{"home.conf"}, others...); err != nil || !slices.Equal(names, want) {
		t.Errorf("the directory holds %q, want %q: %v", names, want, err)
	}
}

// machineWithNames makes a world that knows vpnName.
func machineWithNames(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.machine.PrivateEtc(t)
	w.machine.WriteFile(t, "/etc/hosts", "192.0.2.8 "+vpnName+"\n192.0.2.9 "+vpnName+"\n")
	return w
}

// What set has changed is in the file after down, and nothing else of the file is
// another.
func TestSaveConfig(t *testing.T) {
	t.Parallel()
	w := machineWithNames(t)
	s := w.saving(t)
	w.mustRun(t, "up", s.path)
	w.mustRun(t, "down", "home")
	s.check(t, s.text, 0o644) // nothing was changed: it is not touched

	w.mustRun(t, "up", s.path)
	added := encode(newKey(t).PublicKey().Bytes())
	w.mustRun(t, "set", "home", "listen-port", "40406",
		"peer", s.account.PeerKey, "persistent-keepalive", "21", "allowed-ips", w.peer.Addr4.String()+"/32,10.78.0.0/16",
		"peer", s.silent, "remove",
		"peer", added, "endpoint", "192.0.2.77:9", "allowed-ips", "10.99.0.0/16")
	shown := w.mustRun(t, "showconf", "home")
	w.mustRun(t, "down", "home")
	want := strings.NewReplacer(
		"SaveConfig = true\n", "SaveConfig = true\nListenPort = 40406\n",
		"/32\n\n# Lost", "/32, 10.78.0.0/16\nPersistentKeepalive = 21\n\n# Lost").Replace(s.text)
	lost := want[strings.Index(want, "# Lost."):strings.Index(want, "[Peer] # friendly_name = Office")]
	want = strings.Replace(want, lost, "", 1) + "\n[Peer]\nPublicKey = " + added + "\nAllowedIPs = 10.99.0.0/16\nEndpoint = 192.0.2.77:9\n"
	s.check(t, want, 0o600)

	// It means what "wg-quick save" would have written, but for the name.
	sameAsShown(t, want, shown)

	w.mustRun(t, "up", s.path)
	w.mustRun(t, "exec", "home", "--", "ping", "-c", "1", "-w", "15", w.peer.Addr4.String())
	w.mustRun(t, "set", "home", "peer", s.named, "endpoint", "192.0.2.5:5")
	w.mustRun(t, "down", "home")
	s.check(t, strings.Replace(want, vpnName+":9", "192.0.2.5:5", 1), 0o600)
}

// sameAsShown compares a saved file with what showconf printed before.
func sameAsShown(t *testing.T, file, shown string) {
	t.Helper()
	parse := func(text string) *conf.Config {
		c, _, err := conf.Parse(strings.NewReader(text), "file")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	saved, now := parse(file), parse(shown)
	if saved.Interface.PrivateKey.PublicKey() != now.Interface.PrivateKey.PublicKey() || saved.Interface.ListenPort != now.Interface.ListenPort || len(saved.Peers) != len(now.Peers) {
		t.Errorf("saved %+v\nshown %+v", saved, now)
	}
	for _, p := range saved.Peers {
		i := slices.IndexFunc(now.Peers, func(q conf.Peer) bool { return q.PublicKey == p.PublicKey })
		if i < 0 {
			t.Errorf("%v was not there", p.PublicKey)
			continue
		}
		q := now.Peers[i]
		if p.Endpoint.Host == vpnName {
			q.Endpoint = p.Endpoint
		}
		slices.SortFunc(p.AllowedIPs, netip.Prefix.Compare)
		slices.SortFunc(q.AllowedIPs, netip.Prefix.Compare)
		if p.Endpoint != q.Endpoint || p.PersistentKeepalive != q.PersistentKeepalive || !slices.Equal(p.AllowedIPs, q.AllowedIPs) || p.PresharedKey != q.PresharedKey {
			t.Errorf("saved %+v\nshown %+v", p, q)
		}
	}
}

// A peer that has roamed is saved where it was last, as wg-quick does; when run
// ends, too.
func TestSaveConfigRoamed(t *testing.T) {
	t.Parallel()
	w := machineWithNames(t)
	s := w.saving(t)
	app := w.tool("run", "--name", "home", s.path, "--", "sh", "-c", "echo $$; read -r _")
	in, err := app.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	hold(t, app)
	w.mustRun(t, "exec", "home", "--", "ping", "-c", "1", "-w", "15", w.peer.Addr4.String())
	w.internet.Run(t, "ip", "address", "del", "192.0.2.1/24", "dev", "eth0")
	w.internet.Run(t, "ip", "address", "add", "192.0.2.7/24", "dev", "eth0")
	w.internet.Run(t, "ping", "-c", "1", "-w", "15", "-I", "wg0", s.account.Addr4.String())
	nstest.Eventually(t, 15*time.Second, func() error {
		if at := w.mustRun(t, "show", "home", "endpoints"); !strings.Contains(at, "192.0.2.7:") {
			return fmt.Errorf("endpoints: %s", at)
		}
		return nil
	})
	in.Close()
	if err := app.Wait(); err != nil && app.ProcessState.ExitCode() != 1 {
		t.Error(err)
	}
	s.check(t, strings.Replace(s.text, internet4.String()+":", "192.0.2.7:", 1), 0o600)
}

// What cannot be saved is said, and the tunnel ends all the same.
func TestSaveConfigRefused(t *testing.T) {
	t.Parallel()
	w := machineWithNames(t)
	for _, test := range []struct {
		name     string
		meantime func(s saving)
		says     string
		after    func(t *testing.T, s saving)
	}{
		{"read-only directory", func(s saving) { os.Chmod(filepath.Dir(s.path), 0o500) }, "permission denied", func(t *testing.T, s saving) {
			os.Chmod(filepath.Dir(s.path), 0o700)
			s.check(t, s.text, 0o644)
		}},
		{"edited", func(s saving) { s.write(t, strings.Replace(s.text, "10.8.", "10.88.", 1), 0o644) }, "was edited", func(t *testing.T, s saving) {
			edited := strings.Replace(s.text, "10.8.", "10.88.", 1)
			s.check(t, edited, 0o644, "home.conf.saved")
			// What differs is what the user did, and what set did.
			beside := s
			beside.path += ".saved"
			got, err := os.ReadFile(beside.path)
			if want := strings.Replace(s.text, "\n\n# Lost", "\nPersistentKeepalive = 21\n\n# Lost", 1); err != nil || string(got) != want {
				t.Errorf("%v\n%s\nwant\n%s", err, got, want)
			}
		}},
		{"comment edited", func(s saving) { s.write(t, "# New.\n"+s.text, 0o600) }, "", func(t *testing.T, s saving) {
			s.check(t, "# New.\n"+strings.Replace(s.text, "\n\n# Lost", "\nPersistentKeepalive = 21\n\n# Lost", 1), 0o600)
		}},
		{"gone", func(s saving) { os.Remove(s.path) }, "no such file", func(t *testing.T, s saving) {
			if list, err := os.ReadDir(filepath.Dir(s.path)); err != nil || len(list) > 0 {
				t.Errorf("%v, %v", list, err)
			}
		}},
	} {
		s := w.saving(t)
		w.mustRun(t, "up", s.path)
		w.mustRun(t, "set", "home", "peer", s.account.PeerKey, "persistent-keepalive", "21")
		test.meantime(s)
		_, errs, code := w.run(t, "down", "home")
		if code != 0 || (errs != "") != (test.says != "") || !strings.Contains(errs, test.says) || strings.Count(errs, "\n") > 1 {
			t.Errorf("%s: exit code %d: %s", test.name, code, errs)
		}
		lacks(t, errs, s.account.PrivateKey)
		test.after(t, s)
	}
	if out := w.mustRun(t, "list", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("list: %s", out)
	}
}
