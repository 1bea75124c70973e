package e2e_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"wireguard4netns/internal/nstest"
)

// wg returns what wg(8) prints about the tunnels of the machine's user, whose
// directory it finds at /run/wireguard in a mount namespace of its own.
func (w *world) wg(t testing.TB, dir string, args ...string) string {
	t.Helper()
	out, err := w.machine.Command("unshare", append([]string{"--mount", "sh", "-ec", `mount --bind "$0" /run/wireguard; exec wg "$@"`, dir}, args...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// show and showconf print what wg(8) prints of the same tunnel.
func TestShow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	account := w.peer.NewAccount(t, internet4, nstest.AccountOptions{PSK: true})
	w.mustRun(t, "up", "--name", "wg0", account.WriteConf(t))
	w.mustRun(t, "exec", "wg0", "--", "ping", "-c", "1", "-W", "5", w.peer.Addr4.String())
	dir := w.status(t, "wg0").Directory
	for _, args := range [][]string{
		{"show"}, {"show", "wg0"}, {"show", "all", "dump"}, {"show", "wg0", "dump"}, {"show", "interfaces"},
		{"show", "wg0", "transfer"}, {"showconf", "wg0"},
	} {
		// Between the two a second, or a keepalive, may pass.
		nstest.Eventually(t, 10*time.Second, func() error {
			want := w.wg(t, dir, args...)
			if got := w.mustRun(t, args...); got != want || want == "" {
				return fmt.Errorf("%s: wg:\n%s\nwe:\n%s", args, want, got)
			}
			return nil
		})
	}
	w.mustRun(t, "up", "--name", "other", w.account(t))
	if out := w.mustRun(t, "show", "interfaces"); out != "other wg0\n" {
		t.Errorf("interfaces: %q", out)
	}
	if out := w.mustRun(t, "show"); !strings.HasPrefix(out, "interface: other\n") || !strings.Contains(out, "\n\ninterface: wg0\n") {
		t.Errorf("show:\n%s", out)
	}
	lacks(t, w.mustRun(t, "show"), account.PrivateKey, account.PresharedKey, "\x1b")
	for _, args := range [][]string{{"show", "nothing"}, {"show", "wg0", "colour"}, {"showconf"}, {"showconf", "nothing"}} {
		if out, errs, code := w.run(t, args...); code != 125 || out != "" || !strings.Contains(errs, "hint: ") {
			t.Errorf("%s: exit code %d: %s%s", args, code, out, errs)
		}
	}
	w.mustRun(t, "down", "--all")
}

// A running tunnel changes as wg(8) would change it.
func TestSet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	account := w.peer.NewAccount(t, internet4, nstest.AccountOptions{PSK: true})
	w.mustRun(t, "up", "--name", "home", account.WriteConf(t))
	ping := func() {
		t.Helper()
		w.mustRun(t, "exec", "home", "--", "ping", "-c", "1", "-W", "5", w.peer.Addr4.String())
	}
	ping()
	field := func(name string) string { return w.mustRun(t, "show", "home", name) }
	handshake := field("latest-handshakes")
	other := encode(newKey(t).PublicKey().Bytes())
	w.mustRun(t, "set", "home", "listen-port", "40404", "peer", account.PeerKey, "persistent-keepalive", "21")
	shown := w.mustRun(t, "showconf", "home")
	w.mustRun(t, "set", "home", "peer", other, "endpoint", "192.0.2.77:9", "allowed-ips", "10.99.0.0/16")
	contains(t, field("dump"), "\t40404\t", "\t21\n", other+"\t(none)\t192.0.2.77:9\t10.99.0.0/16\t")
	ping()
	if now := field("latest-handshakes"); !strings.Contains(now, handshake) {
		t.Errorf("the session was lost by set: %s became %s", handshake, now)
	}

	w.mustRun(t, "syncconf", "home", writeConf(t, strings.Replace(shown, "PersistentKeepalive = 21", "PersistentKeepalive = 22", 1)))
	contains(t, field("persistent-keepalive"), "\t22\n")
	lacks(t, field("peers"), other)
	ping()
	if now := field("latest-handshakes"); now != handshake {
		t.Errorf("the session was lost by syncconf: %s became %s", handshake, now)
	}
	if port := field("listen-port"); port != "40404\n" {
		t.Errorf("listen-port: %s", port)
	}

	w.mustRun(t, "addconf", "home", writeConf(t, "[Peer]\nPublicKey = "+other+"\n"))
	contains(t, field("peers"), other, account.PeerKey)
	w.mustRun(t, "setconf", "home", writeConf(t, shown))
	if peers := field("peers"); peers != account.PeerKey+"\n" {
		t.Errorf("after setconf: %s", peers)
	}
	ping()
	w.mustRun(t, "set", "home", "peer", account.PeerKey, "remove")
	if peers := field("peers"); peers != "" {
		t.Errorf("after remove: %s", peers)
	}
	for _, args := range [][]string{
		{"set", "home", "listen-port", "many"}, {"set", "nothing", "listen-port", "1"}, {"set", "home"},
		{"setconf", "home", "/nonexistent"}, {"syncconf", "home", writeConf(t, "[Interface]\nColour = red\n")},
	} {
		if _, errs, code := w.run(t, args...); code != 125 || !strings.HasPrefix(errs, "wireguard4netns: ") {
			t.Errorf("%s: exit code %d: %s", args, code, errs)
		}
	}
	w.mustRun(t, "down", "home")
}

// logs prints what a tunnel has said, and with -f what it says, up to its end.
func TestLogs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	// With --verbose the supervisor keeps standard error: it may not be a pipe here.
	if err := w.tool("up", "--verbose", "--name", "home", w.account(t)).Run(); err != nil {
		t.Fatal(err)
	}
	follow := w.tool("logs", "-f", "home")
	var out lockedBuffer
	follow.Stdout = &out
	nstest.Start(t, follow)
	ping := func() {
		t.Helper()
		w.mustRun(t, "exec", "home", "--", "ping", "-c", "1", "-W", "5", w.peer.Addr4.String())
	}
	ping()
	nstest.Eventually(t, 10*time.Second, func() error {
		if text := w.mustRun(t, "logs", "home"); !strings.Contains(out.String(), "andshake") || !strings.HasSuffix(out.String(), text) {
			return fmt.Errorf("logs -f:\n%s\nlogs:\n%s", out.String(), text)
		}
		return nil
	})
	// The log is cut off before it grows too large.
	log := w.machine.Path(w.status(t, "home").Directory + "/log")
	if err := os.Truncate(log, 0); err != nil {
		t.Fatal(err)
	}
	before := len(out.String())
	w.mustRun(t, "set", "home", "listen-port", "40405")
	nstest.Eventually(t, 10*time.Second, func() error {
		if text := w.mustRun(t, "logs", "home"); text == "" || !strings.HasSuffix(out.String()[before:], text) {
			return fmt.Errorf("after the cut: logs -f:\n%s\nlogs:\n%s", out.String()[before:], text)
		}
		return nil
	})
	w.mustRun(t, "down", "home")
	if code := exitCode(t, follow, 10*time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if _, errs, code := w.run(t, "logs", "home"); code != 125 || !strings.Contains(errs, "no tunnel of this name") {
		t.Errorf("exit code %d: %s", code, errs)
	}
}
