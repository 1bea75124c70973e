package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"wireguard4netns/internal/nstest"
)

// A file that is edited while its tunnel runs: what differs changes, for programs
// that run as well, and the session with the peer goes on.
func TestReload(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conf := w.account(t, "DNS = 10.77.0.1")
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(t *testing.T, pairs ...string) {
		t.Helper()
		changed := strings.NewReplacer(pairs...).Replace(string(text))
		if changed == string(text) {
			t.Fatalf("%q is not in the file", pairs[0])
		}
		if err := os.WriteFile(conf, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.mustRun(t, "up", "--name", "home", conf)
	w.mustRun(t, "exec", "home", "--", "ping", "-c", "1", "-w", "15", w.peer.Addr4.String())
	// A program that runs all the time, and says what it sees at each line of input.
	app := w.tool("exec", "home", "--", "sh", "-c", `while read -r line; do eval "$line" 2>&1; echo; echo END; done`)
	_, see := ask(t, app)
	handshake := w.mustRun(t, "show", "home", "latest-handshakes")
	address := "10.77.0.2/32"
	if !strings.Contains(string(text), address) {
		t.Fatalf("the account has another address:\n%s", text)
	}

	const extra = "\n[Peer]\nPublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\nAllowedIPs = 172.16.9.0/24\n"
	edit(t, address, "10.77.0.2/24, 10.77.0.9/24", "DNS = 10.77.0.1", "DNS = 10.77.0.1, 10.77.0.53, example.com\nMTU = 1300", "[Peer]", strings.TrimPrefix(extra, "\n")+"\n[Peer]")
	if out, errs, code := w.run(t, "reload", "home"); code != 0 || out != "" || errs != "wireguard4netns: DNS server 10.77.0.53 is in no peer's AllowedIPs: it cannot be reached\n" && errs != "" {
		t.Fatalf("reload: %d, %s%s", code, out, errs)
	}
	contains(t, see("ip addr show wg0"), "10.77.0.2/24", "10.77.0.9/24", "mtu 1300")
	contains(t, see("ip route; ip -6 route"), "172.16.9.0/24 dev wg0")
	contains(t, see("cat /etc/resolv.conf"), "nameserver 10.77.0.53", "search example.com")
	if s := w.status(t, "home"); s.MTU != 1300 || len(s.Addresses) < 2 || len(s.DNS) != 2 || len(s.Peers) != 2 || s.File != conf {
		t.Errorf("status: %+v", s)
	}
	if got := w.mustRun(t, "show", "home", "latest-handshakes"); !strings.Contains(got, strings.TrimSpace(handshake)) {
		t.Errorf("the session with the peer began anew: %s, then %s", handshake, got)
	}

	// The first address of a subnet goes, and the second stays.
	edit(t, address, "10.77.0.9/24", "DNS = 10.77.0.1\n", "DNS = 10.77.0.1\nMTU = 9000\nPostUp = true\n")
	_, errs, code := w.run(t, "reload", "home")
	if code != 0 {
		t.Fatalf("reload: %d, %s", code, errs)
	}
	contains(t, errs, "not changed while the tunnel runs: MTU, which can be at most the 1440 it began with")
	lacks(t, see("ip addr show wg0"), "10.77.0.2/")
	contains(t, see("ip addr show wg0"), "10.77.0.9/24", "mtu 1440")
	lacks(t, see("ip route"), "172.16.9.0/24")
	lacks(t, see("cat /etc/resolv.conf"), "10.77.0.53", "example.com")
	if s := w.status(t, "home"); len(s.Peers) != 1 {
		t.Errorf("%d peers", len(s.Peers))
	}

	// Back to how it was: the peer answers, in the same session.
	edit(t, "[Interface]", "[Interface] # again")
	w.mustRun(t, "reload", "home")
	contains(t, see("ping -c 1 -w 15 "+w.peer.Addr4.String()), " bytes from ")
	if got := w.mustRun(t, "show", "home", "latest-handshakes"); got != handshake {
		t.Errorf("the session with the peer began anew: %s, then %s", handshake, got)
	}

	// A mistake in the file changes nothing.
	edit(t, "DNS = 10.77.0.1", "DMS = 10.77.0.1", address, "10.77.0.77/32")
	if _, errs, code := w.run(t, "reload", "home"); code != 125 || strings.Count(errs, "\n") != 2 {
		t.Errorf("a mistake: %d, %s", code, errs)
	}
	contains(t, see("ip addr show wg0"), "10.77.0.2/32")
	if err := os.Remove(conf); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := w.run(t, "reload", "home"); code != 125 || !strings.Contains(errs, "no such file") || strings.Count(errs, "\n") != 2 {
		t.Errorf("no file: %d, %s", code, errs)
	}
	w.mustRun(t, "down", "home")
}

// A peer that has roamed is not sent back, unless the file has another endpoint.
func TestReloadKeepsRoaming(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conf := w.account(t)
	w.mustRun(t, "up", "--name", "home", conf)
	peer := w.status(t, "home").Peers[0]
	w.mustRun(t, "set", "home", "peer", peer.PublicKey, "endpoint", "192.0.2.1:9", "persistent-keepalive", "25")
	w.mustRun(t, "reload", "home")
	if got := w.status(t, "home").Peers[0].Endpoint; got != "192.0.2.1:9" {
		t.Errorf("endpoint %s", got)
	}
	contains(t, w.mustRun(t, "showconf", "home"), "Endpoint = 192.0.2.1:9")
	lacks(t, w.mustRun(t, "showconf", "home"), "PersistentKeepalive")
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	other := writeConf(t, strings.Replace(string(text), "192.0.2.1:", "192.0.2.77:", 1))
	w.mustRun(t, "reload", "home", other)
	contains(t, w.status(t, "home").Peers[0].Endpoint, "192.0.2.77:")
	w.mustRun(t, "down", "home")
}

// ask starts a command that reads lines, and returns its input and what sends it a
// line and returns its answer, up to a line that says END.
func ask(t *testing.T, cmd *exec.Cmd) (input io.Closer, see func(line string) string) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	nstest.Start(t, cmd)
	lines := bufio.NewScanner(out)
	return in, func(line string) string {
		t.Helper()
		fmt.Fprintln(in, line)
		var answer strings.Builder
		for lines.Scan() {
			if lines.Text() == "END" {
				return answer.String()
			}
			fmt.Fprintln(&answer, lines.Text())
		}
		t.Fatalf("%s: no answer: %s", line, answer.String())
		return ""
	}
}
