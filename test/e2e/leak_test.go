package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/nstest"
)

// probes tries every way out that a program without rights has: names by each
// kind of resolver and at each server it could know of; UDP, TCP and ICMP to
// the Internet, to the machine's own addresses and to its loopback; broadcast
// and multicast. %s is the link to send multicast on.
const probes = `try() { timeout 1 "$@" >/dev/null 2>&1 & }
try getent ahosts leak-getent.example
try busybox nslookup leak-static.example
try busybox nslookup leak-direct.example 192.0.2.1
try busybox nslookup leak-local.example 127.0.0.53
for address in 192.0.2.1 2001:db8::1 198.51.100.1 192.0.2.2 2001:db8::2 127.0.0.1 ::1; do
	try bash -c "echo leak >/dev/udp/$address/7"
	try bash -c "echo leak >/dev/tcp/$address/7"
	try ping -c1 -W1 $address
done
try bash -c 'echo leak >/dev/udp/224.0.0.251/5353'
try ping -b -c1 -W1 255.255.255.255
try ping -b -c1 -W1 192.0.2.255
try ping -c1 -W1 ff02::1%%%s
wait
`

// TestNoLeak looks at all that leaves or moves in a machine while an app tries
// every way out, in each state a tunnel can be in: WireGuard's datagrams to the
// endpoint and nothing else.
func TestNoLeak(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.machine.PrivateEtc(t)
	w.machine.WriteFile(t, "/etc/resolv.conf", "nameserver 127.0.0.53\n")
	w.machine.Serve(t, nstest.Services{Answers: []netip.Addr{internet4}})
	conf := w.account(t, "DNS = 10.77.0.1")

	w.machine.Run(t, "ip", "route", "add", "default", "via", internet4.String())
	w.machine.Run(t, "ip", "route", "add", "default", "via", internet6.String())

	seen := nstest.StartCapture(t, w.machine, "")
	w.machine.Run(t, "bash", "-c", fmt.Sprintf(probes, "eth0"))
	checkControl(t, seen.Stop(t))

	peer := w.process(t, w.internet, "wireguard-go")
	stop := func(pid int) { syscall.Kill(pid, syscall.SIGSTOP) }
	kill := func(pid int) { syscall.Kill(pid, syscall.SIGKILL) }
	stop(peer)
	seen = nstest.StartCapture(t, w.machine, "")
	app := startRepeater(t, w.tool("run", conf, "--", "bash", "-c", fmt.Sprintf("while read -r _; do\n%secho done\ndone", fmt.Sprintf(probes, "wg0"))))
	var before int
	for _, phase := range []struct {
		name    string
		enter   func()
		carries bool // WireGuard packets are sent
	}{
		{"before the handshake", func() {}, true},
		{"while the tunnel works", func() { syscall.Kill(peer, syscall.SIGCONT) }, true},
		{"after the engine was killed", func() {
			if strings.HasSuffix(w.peer.Run(t, "wg show wg0 latest-handshakes"), "\t0\n") {
				t.Error("the tunnel did not work: there was no handshake")
			}
			kill(w.engines()[0])
		}, true},
		{"after the peer is gone", w.peer.Stop, true},
		{"after the engine was killed, without a peer", func() { kill(w.engines()[0]) }, true},
		{"after the supervisor was killed", func() { kill(w.process(t, w.machine, "wireguard4netns-supervisor")) }, false},
	} {
		phase.enter()
		app.round(t)
		packets := seen.Packets()
		checkOnlyWireGuard(t, phase.name, packets[before:])
		if sent := outgoing(packets[before:]); phase.carries && sent == 0 {
			t.Errorf("%s: the capture saw nothing of the tunnel", phase.name)
		}
		before = len(packets)
	}
	app.input.Close()
	exitCode(t, app.cmd, goneWithin)
	packets := seen.Stop(t)
	checkOnlyWireGuard(t, "at the end", packets[before:])
	t.Logf("%d packets, %d of them sent", len(packets), outgoing(packets))
}

// process returns the PID of the one process of a Host whose program's name
// begins with name, as soon as there is one.
func (w *world) process(t testing.TB, h *nstest.Host, name string) (pid int) {
	t.Helper()
	nstest.Eventually(t, 15*time.Second, func() error {
		var found []nstest.Process
		for _, p := range h.Processes() {
			program, _, _ := strings.Cut(p.Command, " ")
			if strings.HasPrefix(filepath.Base(program), name) {
				found = append(found, p)
				pid = p.PID
			}
		}
		if len(found) != 1 {
			return fmt.Errorf("processes called %s: %v", name, found)
		}
		return nil
	})
	return pid
}

// A repeater is an app that does its work once for each line that it reads.
type repeater struct {
	cmd   *exec.Cmd
	input io.WriteCloser
	lines *bufio.Reader
}

func startRepeater(t testing.TB, cmd *exec.Cmd) *repeater {
	t.Helper()
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	nstest.Start(t, cmd)
	return &repeater{cmd, input, bufio.NewReader(output)}
}

func (r *repeater) round(t testing.TB) {
	t.Helper()
	if err := r.try(20 * time.Second); err != nil {
		t.Fatal(err)
	}
}

// try has the app do its work once and say "done", within limit.
func (r *repeater) try(limit time.Duration) error {
	if _, err := io.WriteString(r.input, "go\n"); err != nil {
		return err
	}
	timer := time.AfterFunc(limit, func() { r.cmd.Process.Kill() })
	defer timer.Stop()
	if line, err := r.lines.ReadString('\n'); err != nil || line != "done\n" {
		return fmt.Errorf("the app said %q, %w", line, err)
	}
	return nil
}

func outgoing(packets []nstest.Packet) (n int) {
	for _, p := range packets {
		if p.Out {
			n++
		}
	}
	return n
}

// checkOnlyWireGuard fails the test if there is a packet that is neither
// between the machine and the endpoint nor how two hosts on a link find each
// other.
func checkOnlyWireGuard(t testing.TB, phase string, packets []nstest.Packet) {
	t.Helper()
	const unreachable = 3 // ICMP type
	for _, p := range packets {
		endpoint, own := p.Dst, p.Src
		if !p.Out {
			endpoint, own = p.Src, p.Dst
		}
		switch {
		case p.Link != "eth0":
		case p.IsNeighbour():
			continue
		case endpoint.Addr() != internet4 || own.Addr() != machine4:
		case p.IsWireGuard() && endpoint.Port() == 51820:
			continue
		case p.Proto == unix.IPPROTO_ICMP && len(p.Payload) > 0 && p.Payload[0] == unreachable:
			// A kernel's answer for a port where nobody is: the peer's when that
			// is gone, ours while an engine is replaced.
			continue
		}
		t.Errorf("%s: %v", phase, p)
	}
}

// checkControl fails the test unless each kind of probe is seen when nothing
// keeps it in.
func checkControl(t testing.TB, packets []nstest.Packet) {
	t.Helper()
	to := func(link string, proto uint8, address string, port uint16) func(nstest.Packet) bool {
		dst := netip.AddrPortFrom(netip.MustParseAddr(address), port)
		return func(p nstest.Packet) bool { return p.Link == link && p.Out && p.Proto == proto && p.Dst == dst }
	}
	query := func(link, address, name string) func(nstest.Packet) bool {
		sent := to(link, unix.IPPROTO_UDP, address, 53)
		return func(p nstest.Packet) bool { return sent(p) && strings.Contains(string(p.Payload), name) }
	}
	for what, is := range map[string]func(nstest.Packet) bool{
		"getent":         query("lo", "127.0.0.53", "leak-getent"),
		"static":         query("lo", "127.0.0.53", "leak-static"),
		"direct":         query("eth0", "192.0.2.1", "leak-direct"),
		"local":          query("lo", "127.0.0.53", "leak-local"),
		"UDP":            to("eth0", unix.IPPROTO_UDP, "192.0.2.1", 7),
		"UDP, routed":    to("eth0", unix.IPPROTO_UDP, "198.51.100.1", 7),
		"UDP, IPv6":      to("eth0", unix.IPPROTO_UDP, "2001:db8::1", 7),
		"UDP, loopback":  to("lo", unix.IPPROTO_UDP, "127.0.0.1", 7),
		"UDP, own":       to("lo", unix.IPPROTO_UDP, "192.0.2.2", 7),
		"TCP":            to("eth0", unix.IPPROTO_TCP, "192.0.2.1", 7),
		"TCP, IPv6":      to("eth0", unix.IPPROTO_TCP, "2001:db8::1", 7),
		"TCP, loopback":  to("lo", unix.IPPROTO_TCP, "::1", 7),
		"ICMP":           to("eth0", unix.IPPROTO_ICMP, "192.0.2.1", 0),
		"ICMP, IPv6":     to("eth0", unix.IPPROTO_ICMPV6, "2001:db8::1", 0),
		"multicast":      to("eth0", unix.IPPROTO_UDP, "224.0.0.251", 5353),
		"multicast, v6":  to("eth0", unix.IPPROTO_ICMPV6, "ff02::1", 0),
		"broadcast":      to("eth0", unix.IPPROTO_ICMP, "255.255.255.255", 0),
		"link broadcast": to("eth0", unix.IPPROTO_ICMP, "192.0.2.255", 0),
	} {
		found := false
		for _, p := range packets {
			found = found || is(p)
		}
		if !found {
			t.Errorf("without the tunnel, the probe %q is not to be seen", what)
		}
	}
}
