package e2e_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"wireguard4netns/internal/nstest"
)

// comesBack is how soon after the host's route traffic must flow.
const comesBack = 3 * time.Second

// flows sends one packet through the tunnel and fails the test unless its answer
// is there in time. The engine keeps the packet until it has a session.
func (w *world) flows(t *testing.T, name string, limit time.Duration) {
	t.Helper()
	start := time.Now()
	w.mustRun(t, "exec", name, "--", "ping", "-c", "1", "-W", "20", w.peer.Addr4.String())
	took := time.Since(start)
	t.Logf("an answer after %v", took)
	if took > limit {
		t.Errorf("an answer after %v, want one within %v", took, limit)
	}
}

// heard is what the peer has received of all tunnels.
func (w *world) heard(t *testing.T) string {
	t.Helper()
	return w.peer.Run(t, "wg show wg0 transfer | cut -f 1,2")
}

// TestHostNetworkChanges: the host's network moves under a tunnel. The peer hears
// of it, and packets flow at once.
func TestHostNetworkChanges(t *testing.T) {
	t.Parallel()
	prefix := netip.MustParsePrefix
	for name, change := range map[string]func(t *testing.T, w *world){
		"another address": func(t *testing.T, w *world) {
			w.machine.Run(t, "ip", "addr", "del", "192.0.2.2/24", "dev", "eth0")
			w.machine.Run(t, "ip", "addr", "add", "192.0.2.3/24", "dev", "eth0")
		},
		"another link, the same address": func(t *testing.T, w *world) {
			w.machine.Run(t, "ip", "link", "del", "eth0")
			nstest.Connect(t,
				nstest.End{Host: w.machine, Name: "eth0", Addrs: []netip.Prefix{prefix("192.0.2.2/24")}},
				nstest.End{Host: w.internet, Name: "eth0", Addrs: []netip.Prefix{prefix("192.0.2.1/24")}})
		},
		"another link beside the old one": func(t *testing.T, w *world) {
			nstest.Connect(t,
				nstest.End{Host: w.machine, Name: "eth1", Addrs: []netip.Prefix{prefix("198.51.100.2/24")}},
				nstest.End{Host: w.internet, Name: "eth1", Addrs: []netip.Prefix{prefix("198.51.100.1/24")}})
			w.machine.Run(t, "ip", "route", "add", "192.0.2.1/32", "via", "198.51.100.1")
			w.internet.Run(t, "ip", "link", "set", "eth0", "down")
			w.internet.Run(t, "ip", "addr", "add", "192.0.2.1/32", "dev", "eth1")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.mustRun(t, "up", "--name", "home", w.account(t))
			w.flows(t, "home", 10*time.Second)
			before := w.heard(t)
			change(t, w)
			// No program says a word: the tunnel itself does.
			nstest.Eventually(t, comesBack, func() error {
				if heard := w.heard(t); heard == before {
					return fmt.Errorf("the peer has heard nothing since the change: %s", heard)
				}
				return nil
			})
			w.flows(t, "home", comesBack)
			w.mustRun(t, "down", "home")
		})
	}
}

// TestUpBeforeTheNetwork: a tunnel to an address needs no network to start, and
// connects when there is one.
func TestUpBeforeTheNetwork(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.machine.Run(t, "ip", "link", "set", "eth0", "down")
	w.mustRun(t, "up", "--name", "home", w.account(t))
	log := w.machine.Path(w.status(t, "home").Directory + "/log")
	ping := w.tool("exec", "home", "--", "ping", "-c", "1", "-W", "20", w.peer.Addr4.String())
	nstest.Start(t, ping)
	nstest.Eventually(t, 5*time.Second, func() error {
		if text, err := os.ReadFile(log); err != nil || !strings.Contains(string(text), "handshake initiation") {
			return fmt.Errorf("no handshake was tried: %s, %v", text, err)
		}
		return nil
	})
	w.machine.Run(t, "ip", "link", "set", "eth0", "up")
	back := time.Now()
	if code := exitCode(t, ping, 30*time.Second); code != 0 {
		t.Errorf("ping: exit code %d", code)
	}
	if took := time.Since(back); took > comesBack {
		t.Errorf("an answer %v after the route, want one within %v", took, comesBack)
	} else {
		t.Logf("an answer %v after the route", took)
	}
	w.mustRun(t, "down", "home")
}

// TestUpBeforeTheNames: a tunnel to a name starts while nothing can be resolved, says
// so, and connects when there is a network.
func TestUpBeforeTheNames(t *testing.T) {
	t.Parallel()
	w := newLinkedHosts(t)
	w.peer = nstest.StartUpstream(t, w.internet)
	w.internet.Serve(t, nstest.Services{Answers: []netip.Addr{internet4}}) // DNS
	conf := w.named(t)
	w.machine.WriteFile(t, "/etc/resolv.conf", "nameserver 192.0.2.1\n")
	w.machine.WriteFile(t, "/etc/nsswitch.conf", "hosts: files dns\n")
	w.machine.Run(t, "ip", "link", "set", "eth0", "down")

	if out, err := w.tool("run", conf, "true").CombinedOutput(); err == nil {
		t.Errorf("run starts without an endpoint: %s", out)
	}
	out, err := w.tool("up", "--name", "home", conf).CombinedOutput()
	if err != nil {
		t.Fatalf("up: %v\n%s", err, out)
	}
	contains(t, string(out), "vpn.example:51820", "does not resolve", "tries again")
	if s := w.status(t, "home"); s.State != "endpoint-unresolved" || !strings.Contains(s.Cause, "vpn.example:51820") {
		t.Errorf("status: %s: %s", s.State, s.Cause)
	}
	w.mustRun(t, "reload", "home")
	ping := w.tool("exec", "home", "--", "ping", "-c", "1", "-W", "20", w.peer.Addr4.String())
	nstest.Start(t, ping)
	w.machine.Run(t, "ip", "link", "set", "eth0", "up")
	back := time.Now()
	if code := exitCode(t, ping, 30*time.Second); code != 0 {
		t.Errorf("ping: exit code %d", code)
	}
	if took := time.Since(back); took > comesBack {
		t.Errorf("an answer %v after the route, want one within %v", took, comesBack)
	} else {
		t.Logf("an answer %v after the route", took)
	}
	if p := w.status(t, "home").Peers[0]; p.Endpoint != "192.0.2.1:51820" {
		t.Errorf("the endpoint is %s", p.Endpoint)
	}
	w.mustRun(t, "down", "home")
}

// TestMTUFollows: the link has what the host's route leaves, also while it runs,
// and full packets come through whole.
func TestMTUFollows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustRun(t, "up", "--name", "home", w.account(t))
	w.mustRun(t, "up", "--name", "fixed", w.account(t, "MTU = 1400"))
	shows := func(name, want string) error {
		out := w.mustRun(t, "exec", name, "--", "ip", "link", "show", "wg0")
		if !strings.Contains(out, "mtu "+want+" ") || fmt.Sprint(w.status(t, name).MTU) != want {
			return fmt.Errorf("want MTU %s, status says %d:\n%s", want, w.status(t, name).MTU, out)
		}
		return nil
	}
	for _, step := range []struct{ host, link string }{{"1500", "1440"}, {"1400", "1328"}, {"1280", "1280"}, {"1500", "1440"}} {
		w.machine.Run(t, "ip", "link", "set", "eth0", "mtu", step.host)
		nstest.Eventually(t, comesBack, func() error { return shows("home", step.link) })
		if step.host != "1400" {
			continue
		}
		capture := nstest.StartCapture(t, w.machine, "eth0")
		w.mustRun(t, "exec", "home", "--", "ping", "-c", "1", "-W", "5", "-M", "do", "-s", "1300", w.peer.Addr4.String())
		longest := 0
		for _, p := range capture.Stop(t) {
			if p.Out && !p.IsNeighbour() {
				if longest = max(longest, p.Length); !p.IsWireGuard() {
					t.Errorf("a packet was cut in two: %v", p)
				}
			}
		}
		if longest != 1328+60 {
			t.Errorf("the longest packet outside has %d bytes", longest)
		}
	}
	if err := shows("fixed", "1400"); err != nil {
		t.Error(err)
	}
	w.mustRun(t, "down", "--all")
}

// named writes an account's file with a name for its endpoint, which the machine
// is told to know under addrs.
func (w *world) named(t *testing.T, addrs ...string) (conf string) {
	t.Helper()
	w.machine.PrivateEtc(t)
	w.rename(t, addrs...)
	text := w.peer.NewAccount(t, internet4, nstest.AccountOptions{}).Conf()
	return writeConf(t, strings.Replace(text, "192.0.2.1:", "vpn.example:", 1))
}

func (w *world) rename(t *testing.T, addrs ...string) {
	t.Helper()
	var hosts strings.Builder
	for _, a := range addrs {
		fmt.Fprintln(&hosts, a, "vpn.example")
	}
	w.machine.WriteFile(t, "/etc/hosts", hosts.String())
}

// TestEndpointMovesInDNS: a peer that does not answer is looked for where its name
// says now.
func TestEndpointMovesInDNS(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustRun(t, "up", "--name", "home", w.named(t, "192.0.2.9")) // nobody
	ping := w.tool("exec", "home", "--", "ping", "-c", "1", "-W", "80", w.peer.Addr4.String())
	nstest.Start(t, ping)
	w.rename(t, "192.0.2.1")
	if code := exitCode(t, ping, 90*time.Second); code != 0 {
		t.Errorf("ping: exit code %d", code)
	}
	if p := w.status(t, "home").Peers[0]; p.Endpoint != "192.0.2.1:51820" {
		t.Errorf("the endpoint is %s", p.Endpoint)
	}
	w.mustRun(t, "down", "home")
}

// TestBothEndsMove: a peer that has roamed goes back to the address in the file while
// the machine moves as well, so that neither knows the other's place. An engine that
// has not heard of the peer has the least patience: it is a new one.
func TestBothEndsMove(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	account := w.peer.NewAccount(t, internet4, nstest.AccountOptions{})
	conf := account.WriteConf(t)
	w.mustRun(t, "up", "--name", "home", conf)
	w.flows(t, "home", 10*time.Second)
	w.internet.Run(t, "ip", "addr", "del", "192.0.2.1/24", "dev", "eth0")
	w.internet.Run(t, "ip", "addr", "add", "192.0.2.7/24", "dev", "eth0")
	w.internet.Run(t, "ping", "-c", "1", "-w", "15", "-I", "wg0", account.Addr4.String())
	if p := w.status(t, "home").Peers[0]; p.Endpoint != "192.0.2.7:51820" {
		t.Errorf("the endpoint is %s", p.Endpoint)
	}

	w.machine.Run(t, "ip", "link", "set", "eth0", "down")
	w.internet.Run(t, "ip", "addr", "del", "192.0.2.7/24", "dev", "eth0")
	w.internet.Run(t, "ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	w.machine.Run(t, "ip", "addr", "del", "192.0.2.2/24", "dev", "eth0")
	w.machine.Run(t, "ip", "addr", "add", "192.0.2.3/24", "dev", "eth0")
	w.machine.Run(t, "ip", "link", "set", "eth0", "up")
	w.mustRun(t, "up", "--replace", "--name", "home", conf)
	w.flows(t, "home", 20*time.Second)
	if p := w.status(t, "home").Peers[0]; p.Endpoint != "192.0.2.1:51820" {
		t.Errorf("the endpoint is %s", p.Endpoint)
	}
	w.mustRun(t, "down", "home")
}
