package e2e_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"wireguard4netns/internal/nstest"
)

func dialUnix(t testing.TB, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// runApp starts `run` with an app that prints its PID and sleeps, and returns
// that and the tunnel's directory on the machine.
func (w *world) runApp(t testing.TB, args ...string) (cmd *exec.Cmd, pid int, dir string) {
	t.Helper()
	root := "/run/user/" + strconv.Itoa(nstest.User) + "/wireguard4netns"
	before, _ := filepath.Glob(w.machine.Path(root + "/*"))
	cmd = w.tool(slices.Concat([]string{"run"}, args, []string{"--", "sh", "-c", "echo $$; exec sleep 1000"})...)
	pid = hold(t, cmd)
	now, _ := filepath.Glob(w.machine.Path(root + "/*"))
	now = slices.DeleteFunc(now, func(path string) bool { return slices.Contains(before, path) })
	if len(now) != 1 {
		t.Fatalf("new below %s: %v", root, now)
	}
	return cmd, pid, filepath.Join(root, filepath.Base(now[0]))
}

// TestWG has wireguard-tools, as they are, read and change a tunnel. They find
// its socket in a mount namespace of the test, where the tunnel's directory is
// at /run/wireguard.
func TestWG(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	account := w.peer.NewAccount(t, internet4, nstest.AccountOptions{PSK: true})
	_, app, dir := w.runApp(t, account.WriteConf(t))
	wg := func(args ...string) string {
		t.Helper()
		return succeed(t, w.machine.Command("unshare", append([]string{"--mount", "sh", "-ec", `mount --bind "$0" /run/wireguard; exec wg "$@"`, dir}, args...)...))
	}
	inApp := w.inApp(app)
	alive := func() {
		t.Helper()
		succeed(t, inApp("ping", "-c1", "-w15", w.peer.Addr4.String()))
	}
	alive()

	contains(t, wg("show"), "interface: wg0", "public key: "+account.PublicKey, "peer: "+account.PeerKey,
		"preshared key: (hidden)", "endpoint: 192.0.2.1:51820", "latest handshake:", "transfer:")

	wg("set", "wg0", "peer", account.PeerKey, "persistent-keepalive", "21", "allowed-ips", "10.77.0.0/24")
	contains(t, wg("show", "wg0", "allowed-ips"), "10.77.0.0/24")
	contains(t, wg("show", "wg0", "persistent-keepalive"), "21")
	alive()
	if out, err := inApp("ping", "-c1", "-W1", w.peer.Addr6.String()).CombinedOutput(); err == nil {
		t.Errorf("a packet passed that allowed-ips leaves out:\n%s", out)
	}
	wg("set", "wg0", "peer", account.PeerKey, "allowed-ips", "0.0.0.0/0,::/0")
	succeed(t, inApp("ping", "-c1", "-w15", w.peer.Addr6.String()))

	port := 40000 + os.Getpid()%10000
	wg("set", "wg0", "listen-port", strconv.Itoa(port))
	contains(t, w.machine.Run(t, "ss", "-Huln"), fmt.Sprintf(":%d ", port))
	alive()

	shown := wg("showconf", "wg0")
	contains(t, shown, "PrivateKey = ", "PresharedKey = "+account.PresharedKey,
		fmt.Sprintf("ListenPort = %d", port), "Endpoint = 192.0.2.1:51820")

	other := encode(newKey(t).PublicKey().Bytes())
	file := filepath.Join(t.TempDir(), "wg.conf")
	write := func(text string) string {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	wg("syncconf", "wg0", write(shown+"\n[Peer]\nPublicKey = "+other+"\nAllowedIPs = 10.99.0.0/16\n"))
	contains(t, wg("show", "wg0", "peers"), account.PeerKey, other)
	wg("syncconf", "wg0", write(shown))
	lacks(t, wg("show", "wg0", "peers"), other)
	alive()
	wg("setconf", "wg0", write(strings.Replace(shown, "PersistentKeepalive = 21", "PersistentKeepalive = 22", 1)))
	contains(t, wg("show", "wg0", "persistent-keepalive"), "22")
	alive()
	wg("addconf", "wg0", write("[Peer]\nPublicKey = "+other+"\n"))
	contains(t, wg("show", "wg0", "peers"), account.PeerKey, other)
	wg("set", "wg0", "peer", other, "remove")
	if peers := wg("show", "wg0", "peers"); peers != account.PeerKey {
		t.Errorf("peers:\n%s", peers)
	}
	alive()
}

// TestUAPIForUserOnly: wg(8) run by another uid of the same machine is refused,
// where the directory would let it in.
func TestUAPIForUserOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	target := exec.Command("unshare", "-Urn", "--", "sh", "-c", "echo $$; exec sleep 1000")
	pid := hold(t, target)
	key := newKey(t)
	conf := writeConf(t, fmt.Sprintf("[Interface]\nPrivateKey = %s\n\n[Peer]\nPublicKey = %s\n",
		encode(key.Bytes()), encode(newKey(t).PublicKey().Bytes())))
	cmd := exec.Command(nstest.Build(t), "--tmpdir", dir, strconv.Itoa(pid), "wg0", conf)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+t.TempDir())
	succeed(t, cmd)
	socket := filepath.Join(dir, "wg0.sock")

	// Subordinate uids: root of this userns is the user, uid 1 is not.
	wg := func(prefix ...string) *exec.Cmd {
		return exec.Command("unshare", append([]string{"--user", "--mount", "--map-root-user", "--map-users=auto", "--map-groups=auto", "--",
			"sh", "-ec", `mount -t tmpfs run /run; mkdir /run/wireguard; ln -s "$0" /run/wireguard/wg0.sock; exec "$@" wg show wg0 public-key`, socket}, prefix...)...)
	}
	contains(t, succeed(t, wg("env")), encode(key.PublicKey().Bytes()))
	out, err := wg("setpriv", "--reuid=1", "--regid=1", "--clear-groups").CombinedOutput()
	if err == nil {
		t.Errorf("another user was answered:\n%s", out)
	}
	contains(t, string(out), "Permission denied")

	target.Process.Kill()
	nstest.Eventually(t, goneWithin, func() error {
		if _, err := os.Lstat(socket); err == nil {
			return fmt.Errorf("%s is there", socket)
		}
		return nil
	})
}
