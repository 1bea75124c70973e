package engine

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"

	"wireguard4netns/internal/uapi"
)

// Kernels that lack something. The engine's process is this test binary: what stands
// in the name of its link the kernel refuses it from the start (seccomp(2)), as an
// older one would.

// A lack is a system call that is refused with these arguments.
type lack struct {
	call  string
	errno unix.Errno
	when  []seccomp.Condition
}

const noVnet = "no vnet header" // which is for who opens the TUN device

var lacks = map[string]lack{
	"no UDP_SEGMENT": {"setsockopt", unix.ENOPROTOOPT, []seccomp.Condition{
		{Argument: 1, Operation: seccomp.Equal, Value: unix.SOL_UDP}, {Argument: 2, Operation: seccomp.Equal, Value: unix.UDP_SEGMENT}}},
	"no UDP_GRO": {"setsockopt", unix.ENOPROTOOPT, []seccomp.Condition{
		{Argument: 1, Operation: seccomp.Equal, Value: unix.SOL_UDP}, {Argument: 2, Operation: seccomp.Equal, Value: unix.UDP_GRO}}},
	"no USO": {"ioctl", unix.EINVAL, []seccomp.Condition{
		{Argument: 1, Operation: seccomp.Equal, Value: unix.TUNSETOFFLOAD},
		{Argument: 2, Operation: seccomp.BitsSet, Value: unix.TUN_F_USO4 | unix.TUN_F_USO6}}},
	// A header and two parts.
	"no large writes": {"writev", unix.EINVAL, []seccomp.Condition{{Argument: 2, Operation: seccomp.GreaterThan, Value: 2}}},
}

// takeAway takes away what an engine process with these arguments is to lack.
func takeAway(args []string) error {
	o, err := parseOptions(args)
	if err != nil {
		return nil // as it will tell
	}
	_, name, _ := strings.Cut(o.ifName, "+")
	l, ok := lacks[name]
	if !ok {
		return nil
	}
	return seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls: []seccomp.SyscallGroup{{
			Action:             seccomp.ActionErrno | seccomp.Action(l.errno),
			NamesWithCondtions: []seccomp.NameWithConditions{{Name: l.call, Conditions: l.when}},
		}},
	}})
}

// Whatever the kernel lacks, all of what is sent comes, whole and in order. That the
// engine does without is seen from outside: by whether its datagrams, and the
// packets that it writes, are several at once.
func TestSuiteFallback(t *testing.T) {
	t.Parallel()
	tests := make(map[string]func(*testing.T))
	for _, c := range []struct {
		lack          string
		sends, writes bool // several at once
		log           string
	}{
		{"nothing", true, true, ""},
		{"no UDP_SEGMENT", false, true, "kernel takes no UDP_SEGMENT"},
		{"no UDP_GRO", true, true, ""},
		{"no USO", true, false, ""},
		{"no large writes", true, false, "the kernel refuses a large packet"},
		{noVnet, true, false, ""},
	} {
		for _, other := range Names {
			tests[c.lack+","+other] = func(t *testing.T) {
				p := newPairing(t, Native+"+"+c.lack, other, testMTU)
				p.direct(t)
				ping(t, p.a, p.b)
				for i, from := range []*site{p.a, p.b} {
					to := []*site{p.b, p.a}[i]
					for _, addr := range []netip.Addr{to.addr, addr6(to.addr)} {
						carryDatagrams(t, from, to, addr)
						carry(t, from, to, addr, 1<<20)
					}
				}
				if got := p.a.writesSeveral(t, p.b); got != c.writes && (got || other == Native) {
					t.Errorf("UDP packets are written several at once: %v, want %v", got, c.writes)
				}
				if got := p.a.sendsSeveral(t); got != c.sends {
					t.Errorf("datagrams are sent several at once: %v, want %v", got, c.sends)
				}
				for _, line := range []string{"takes no UDP_SEGMENT", "refuses a large packet"} {
					want := 0
					if c.log != "" && strings.Contains(c.log, line) {
						want = 1
					}
					if n := strings.Count(p.a.log(), line); n != want {
						t.Errorf("%d lines with %q, want %d", n, line, want)
					}
				}
			}
		}
	}
	atOnce(t, tests)
}

// direct has the engines speak without the relay, through which each datagram goes
// alone.
func (p *pairing) direct(t testing.TB) {
	t.Helper()
	p.b.set(t, uapi.Update{Peers: []uapi.PeerUpdate{p.a.peer(netip.AddrPortFrom(loopback, p.a.device(t).ListenPort))}})
	p.a.set(t, uapi.Update{Peers: []uapi.PeerUpdate{p.b.peer(netip.AddrPortFrom(loopback, p.b.device(t).ListenPort))}})
}

// several is UDP that the kernel hands over in large packets, if the device takes
// those. All of it finds room in any buffer on the way: none may be lost.
var several = burst{First: 1, Last: 90, Size: 1200, Together: 30, PauseEvery: 30, Pause: 2 * time.Millisecond}

func carryDatagrams(t testing.TB, from, to *site, addr netip.Addr) {
	t.Helper()
	g := gather(t, to)
	scatter(t, from, netip.AddrPortFrom(addr, g.port), several)
	now := g.await(t, several.Last)
	if now.Received != int(several.Last) || now.Late+now.Corrupt+now.Duplicates > 0 {
		t.Errorf("to %v: %+v", addr, now)
	}
}

// sendsSeveral tells whether the site's engine sends several datagrams at once.
func (s *site) sendsSeveral(t testing.TB) (so bool) {
	t.Helper()
	g := s.invite(t, "10.9.1.1", true)
	session := g.call(t)
	g.send(t, session.Seal(nil)) // now the site may use it
	g.hears(t, session)
	receiveSeveral(t, g.conn)
	scatter(t, s, netip.AddrPortFrom(g.addr, 9), several)
	buffer := make([]byte, 1<<16)
	_ = g.conn.SetReadDeadline(time.Now().Add(waiting))
	for got := 0; got < int(several.Last); {
		n, _, err := g.conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			t.Fatalf("%d datagrams of %d came: %v", got, several.Last, err)
		}
		const least = 1200
		so = so || n >= 2*least
		got += n / least
	}
	return so
}

// writesSeveral tells whether the site's engine writes several packets of UDP at
// once, if its socket gets several from the other's.
func (s *site) writesSeveral(t testing.TB, other *site) bool {
	t.Helper()
	r := begin(t, s, "engine-suite-several", ":0", strconv.Itoa(several.Size*int(several.Last)))
	port, err := strconv.ParseUint(r.line(t), 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	scatter(t, other, netip.AddrPortFrom(s.addr, uint16(port)), several)
	most, err := strconv.Atoi(r.line(t))
	if err != nil {
		t.Fatal(err)
	}
	return most >= 2*several.Size
}

// severalRole is for suiteRoles.
func severalRole(args []string) error {
	c, err := net.ListenPacket("udp", args[0])
	if err != nil {
		return err
	}
	want, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	_ = c.(*net.UDPConn).SetReadBuffer(4 << 20)
	if err := setReceiveSeveral(c.(*net.UDPConn)); err != nil {
		return err
	}
	fmt.Println(c.LocalAddr().(*net.UDPAddr).Port)
	_ = c.SetReadDeadline(time.Now().Add(waiting))
	buffer := make([]byte, 1<<16)
	most := 0
	for want > 0 {
		n, _, err := c.ReadFrom(buffer)
		if err != nil {
			return err
		}
		most = max(most, n)
		want -= n
	}
	fmt.Println(most)
	return nil
}

func receiveSeveral(t testing.TB, c *net.UDPConn) {
	t.Helper()
	if err := setReceiveSeveral(c); err != nil {
		t.Fatal(err)
	}
}

// setReceiveSeveral has the kernel hand over what came at once at once (UDP_GRO):
// over a loopback, or from a TUN device, that is what was sent at once.
func setReceiveSeveral(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var option error
	err = raw.Control(func(fd uintptr) { option = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 1) })
	return errors.Join(err, option)
}

// The way to the peer gets narrower than what the engine sends, and nobody may tell
// (a locked MTU): all comes in fragments, and the engine asks for a look at the way.
// Then there is no way: it waits, and does not work for it. Then there is one again.
func TestSuiteANarrowWayAndNone(t *testing.T) {
	t.Parallel()
	a, b := newOutposts(t, Native, WireGuardGo, 1500)
	b.tell(t, uapi.Update{PrivateKey: new(b.privateKey()), ListenPort: new(uint16(51820)), Peers: []uapi.PeerUpdate{a.peer(netip.AddrPort{})}})
	a.tell(t, uapi.Update{PrivateKey: new(a.privateKey()), Peers: []uapi.PeerUpdate{
		b.peer(netip.AddrPortFrom(netip.MustParseAddr("192.0.2.2"), 51820))}})
	ping(t, a.site, b.site)
	carryDatagrams(t, a.site, b.site, b.addr)
	if n := a.fragments(t); n > 0 {
		t.Errorf("%d fragments on a wide way", n)
	}

	a.outside.Run(t, "ip", "route", "add", "192.0.2.2/32", "dev", "eth0", "mtu", "lock", "1200")
	carryDatagrams(t, a.site, b.site, b.addr)
	carryDatagrams(t, a.site, b.site, addr6(b.addr))
	carry(t, a, b, b.addr, 1<<20)
	if n := a.fragments(t); n < 300 {
		t.Errorf("%d fragments on a narrow way", n)
	}
	told := make(chan error, 1)
	go func() {
		_, err := a.said.lines.ReadString('\n')
		told <- err
	}()
	select {
	case err := <-told:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Second): // sooner than for want of an answer
		t.Error("the engine does not tell that the way is too narrow")
	}

	for _, kind := range []string{"unreachable", "prohibit", "blackhole"} { // EHOSTUNREACH, EACCES, EINVAL
		a.outside.Run(t, "ip", "route", "replace", kind, "192.0.2.2/32")
		scatter(t, a, netip.AddrPortFrom(b.addr, 9), several)
		idle := a.engineTime(t)
		time.Sleep(200 * time.Millisecond) // a busy loop shows in them
		if spent := a.engineTime(t) - idle; spent > 100*time.Millisecond {
			t.Errorf("%s: the engine works %v in 200 ms for nothing", kind, spent)
		}
	}
	a.outside.Run(t, "ip", "route", "del", "blackhole", "192.0.2.2/32")
	ping(t, a.site, b.site)
	carry(t, a, b, b.addr, 1<<20)
}

// engineTime is how long the outpost's engine has worked.
func (o *outpost) engineTime(t testing.TB) (spent time.Duration) {
	t.Helper()
	for _, p := range o.outside.Processes() {
		if !strings.Contains(p.Command, Argv0) {
			continue
		}
		f, err := os.Open(fmt.Sprintf("/proc/%d/stat", p.PID))
		if err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(f).ReadString('\n')
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		// proc_pid_stat(5): utime and stime, in hundredths of a second.
		fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
		for _, field := range fields[11:13] {
			ticks, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			spent += time.Duration(ticks) * 10 * time.Millisecond
		}
		return spent
	}
	t.Fatal("no engine runs at the outpost")
	return 0
}
