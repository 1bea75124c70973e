package e2e_test

import (
	"fmt"
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
