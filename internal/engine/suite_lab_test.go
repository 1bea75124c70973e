package engine

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"crypto/ecdh"
	"crypto/rand"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/engine/enginetest"
	"wireguard4netns/internal/nstest"
	"wireguard4netns/internal/sandbox"
	"wireguard4netns/internal/uapi"
)

// The suite that every engine passes (suite_*_test.go), against three kinds of
// other end:
//
//	site ── engine ──────────────── party       by hand: one message at a time
//	site ── engine ── relay ─────── engine ── site
//	site ── engine ── veth ──────── engine ── site     each in its own machine
//
// A site is a machine with wg0; its engine is on the loopback of the test.

var loopback = netip.MustParseAddr("127.0.0.1")

// waiting is how long what must happen may take.
const waiting = 20 * time.Second

// eachEngine runs a test on every engine.
func eachEngine(t *testing.T, test func(t *testing.T, engine string)) {
	t.Parallel()
	tests := make(map[string]func(*testing.T))
	for _, name := range Names {
		tests[name] = func(t *testing.T) { test(t, name) }
	}
	atOnce(t, tests)
}

// eachPair runs a test on two engines that speak to each other: each with its
// like, and the two with each other.
func eachPair(t *testing.T, test func(t *testing.T, one, other string)) {
	t.Parallel()
	tests := make(map[string]func(*testing.T))
	for _, one := range Names {
		for _, other := range Names {
			if one == Native || other == WireGuardGo { // else the same two, the other way round
				tests[one+","+other] = func(t *testing.T) { test(t, one, other) }
			}
		}
	}
	atOnce(t, tests)
}

// atOnce runs tests that mostly wait side by side, also where there are no
// processors for so many (-test.parallel).
func atOnce(t *testing.T, tests map[string]func(*testing.T)) {
	var all sync.WaitGroup
	for name, test := range tests {
		all.Go(func() { t.Run(name, test) })
	}
	all.Wait()
}

// openSite opens an engine without configuration for a new machine, whose link has
// the MTU, or the most that there is. From that of IPv6 on it has an address of that,
// too. What is behind the engine's name and a
// plus says which of limitsFor it has, or which of lacks.
func openSite(t testing.TB, engine, addr string, mtu int) *site {
	t.Helper()
	s := &site{host: nstest.NewHost(t), addr: netip.MustParseAddr(addr)}
	var err error
	if s.key, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	name, special, _ := strings.Cut(engine, "+")
	var without []int
	if special == noVnet {
		without = append(without, unix.IFF_VNET_HDR)
	}
	tun := openTUN(t, s.host, "wg0", without...)
	configureLink(t, s, min(mtu, MaxMTU))
	if s.engine, err = Open(t.Context(), Config{
		IfName: "wg0+" + special, MTU: mtu, TUN: tun, Engine: name, Sandbox: sandbox.Auto, Log: s.keepLine, Verbose: true,
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if n := s.engine.Restarts(); n != s.kills {
			t.Errorf("%s died %d times, of which the test knows %d", engine, n, s.kills)
		}
		s.engine.Close()
		if strings.Contains(s.log(), "DATA RACE") { // of an engine built with -race
			t.Errorf("%s has a race:\n%s", engine, s.log())
		}
		if t.Failed() {
			log := s.log()
			t.Logf("the end of the log of %v:\n%s", s.addr, log[max(0, len(log)-4000):])
		}
	})
	return s
}

func configureLink(t testing.TB, s *site, mtu int) {
	t.Helper()
	script := fmt.Sprintf("ip addr add %v/16 dev wg0; ip link set wg0 addrgenmode none; ip link set wg0 mtu %d up", s.addr, mtu)
	if mtu >= 1280 {
		script += fmt.Sprintf("; ip addr add %v/64 dev wg0 nodad", addr6(s.addr))
	}
	s.host.Run(t, "sh", "-ec", script)
}

// addr6 is the IPv6 address beside an IPv4 one.
func addr6(a netip.Addr) netip.Addr {
	b, four := netip.MustParseAddr("fd09::").As16(), a.As4()
	copy(b[12:], four[:])
	return netip.AddrFrom16(b)
}

func prefixesOf(a netip.Addr) []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(a, 32), netip.PrefixFrom(addr6(a), 128)}
}

// peer is how others see s.
func (s *site) peer(endpoint netip.AddrPort) uapi.PeerUpdate {
	p := s.asPeer(endpoint)
	p.AllowedIPs = prefixesOf(s.addr)
	return p
}

// up gives the site's engine its key and a port, and returns where it is.
func (s *site) up(t testing.TB) netip.AddrPort {
	t.Helper()
	s.set(t, uapi.Update{PrivateKey: new(s.privateKey()), ListenPort: new(uint16(0))})
	return netip.AddrPortFrom(loopback, s.device(t).ListenPort)
}

// only is the site's one peer.
func (s *site) only(t testing.TB) uapi.Peer {
	t.Helper()
	d := s.device(t)
	if len(d.Peers) != 1 {
		t.Fatalf("%d peers, want 1", len(d.Peers))
	}
	return d.Peers[0]
}

// A pairing is two sites with a wire between them.
type pairing struct {
	a, b  *site
	relay *enginetest.Relay
}

// newPairing opens two sites whose engines speak over a relay; a finds b.
func newPairing(t testing.TB, one, other string, mtu int) *pairing {
	t.Helper()
	p := &pairing{a: openSite(t, one, "10.9.0.1", mtu), b: openSite(t, other, "10.9.0.2", mtu)}
	_, _ = rand.Read(p.a.psk[:])
	p.b.psk = p.a.psk
	p.a.up(t)
	var err error
	if p.relay, err = enginetest.NewRelay(p.b.up(t), enginetest.Wire{}, enginetest.Wire{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.relay.Close)
	p.b.set(t, uapi.Update{Peers: []uapi.PeerUpdate{p.a.peer(netip.AddrPort{})}})
	p.a.set(t, uapi.Update{Peers: []uapi.PeerUpdate{p.b.peer(p.relay.Near())}})
	return p
}

// A machine is where roles run: a site's, or an outpost's.
type machine interface {
	role(t testing.TB, args ...string) *exec.Cmd
}

// A running is a role at work.
type running struct {
	cmd   *exec.Cmd
	input io.WriteCloser
	lines *bufio.Reader
}

func begin(t testing.TB, m machine, args ...string) *running {
	t.Helper()
	return startCommand(t, m.role(t, args...))
}

func startCommand(t testing.TB, cmd *exec.Cmd) *running {
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
	return &running{cmd, input, bufio.NewReader(output)}
}

// line is the next line of output.
func (r *running) line(t testing.TB) string {
	t.Helper()
	line, err := r.lines.ReadString('\n')
	if err != nil {
		t.Fatalf("%v: %q, %v", r.cmd.Args, line, err)
	}
	return strings.TrimSuffix(line, "\n")
}

// A flow is a TCP connection under way, whose bytes are checked.
type flow struct {
	source *running
	total  atomic.Int64
	ended  chan error // of the sink
}

// startFlow begins to send from one machine to an address of another, at most rate
// bytes a second if that is not zero.
func startFlow(t testing.TB, from, to machine, addr netip.Addr, rate int) *flow {
	t.Helper()
	sink := begin(t, to, "engine-suite-sink", ":0")
	port := sink.line(t)
	f := &flow{ended: make(chan error, 1)}
	go func() {
		for {
			line, err := sink.lines.ReadString('\n')
			if line == "end\n" || err != nil {
				f.ended <- err
				return
			}
			n, _ := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
			f.total.Store(n)
		}
	}()
	f.source = begin(t, from, "engine-suite-source", net.JoinHostPort(addr.String(), port), strconv.Itoa(rate))
	return f
}

// pass waits until n more bytes have come.
func (f *flow) pass(t testing.TB, n int64) {
	t.Helper()
	until := f.total.Load() + n
	nstest.Eventually(t, 2*waiting, func() error {
		if now := f.total.Load(); now < until {
			return fmt.Errorf("%d bytes came, want %d", now, until)
		}
		return nil
	})
}

// finish ends the flow and checks that all of it came.
func (f *flow) finish(t testing.TB) {
	t.Helper()
	_ = f.source.input.Close()
	sent := f.source.line(t)
	select {
	case err := <-f.ended:
		if got := strconv.FormatInt(f.total.Load(), 10); err != nil || got != sent {
			t.Errorf("TCP: %s bytes of %s came: %v", got, sent, err)
		}
	case <-time.After(2 * waiting):
		t.Errorf("TCP: %d bytes of %s came, and the end did not", f.total.Load(), sent)
	}
}

// carry sends size bytes or more by TCP, and checks them.
func carry(t testing.TB, from, to machine, addr netip.Addr, size int64) {
	t.Helper()
	f := startFlow(t, from, to, addr, 0)
	f.pass(t, size)
	f.finish(t)
}

// A gatherer counts the numbered UDP datagrams that come to a machine.
type gatherer struct {
	*running
	port uint16
}

func gather(t testing.TB, m machine) *gatherer {
	t.Helper()
	r := begin(t, m, "engine-suite-gather", ":0")
	port, err := strconv.ParseUint(r.line(t), 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return &gatherer{r, uint16(port)}
}

func (g *gatherer) tally(t testing.TB) (now tally) {
	t.Helper()
	if _, err := io.WriteString(g.input, "\n"); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(g.line(t)), &now); err != nil {
		t.Fatal(err)
	}
	return now
}

// await waits for a datagram: those sent before it have come or never will.
func (g *gatherer) await(t testing.TB, n uint32) (now tally) {
	t.Helper()
	nstest.Eventually(t, waiting, func() error {
		if now = g.tally(t); now.Highest < n {
			return fmt.Errorf("datagram %d did not come: %+v", n, now)
		}
		return nil
	})
	return now
}

// scatter sends UDP and returns when it is sent.
func scatter(t testing.TB, m machine, to netip.AddrPort, b burst) {
	t.Helper()
	text, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := m.role(t, "engine-suite-scatter", to.String(), string(text)).CombinedOutput(); err != nil {
		t.Fatalf("scatter %+v: %v\n%s", b, err, out)
	}
}

// A guest is a party that is a peer of a site, with a socket.
type guest struct {
	*enginetest.Party
	site   *site
	at     netip.AddrPort // of the site's engine
	addr   netip.Addr     // inside
	conn   *net.UDPConn
	psk    [32]byte
	index  uint32
	called time.Time
	gather *gatherer // at the site
	said   uint32
}

// invite makes a party a peer of the site, which is up. Reachable: the site knows
// where it is.
func (s *site) invite(t testing.TB, addr string, reachable bool, change ...func(*uapi.PeerUpdate)) *guest {
	t.Helper()
	g := &guest{site: s, addr: netip.MustParseAddr(addr), index: 1}
	_, _ = rand.Read(g.psk[:])
	g.Party = enginetest.NewParty(s.publicKey(), g.psk)
	g.conn = listenUDP(t, loopback)
	g.at = netip.AddrPortFrom(loopback, s.device(t).ListenPort)
	s.set(t, uapi.Update{Peers: []uapi.PeerUpdate{g.peer(reachable, change...)}})
	return g
}

func (g *guest) peer(reachable bool, change ...func(*uapi.PeerUpdate)) uapi.PeerUpdate {
	p := uapi.PeerUpdate{PublicKey: g.PublicKey(), PresharedKey: new(uapi.Secret(g.psk)), AllowedIPs: prefixesOf(g.addr)}
	if reachable {
		p.Endpoint = addrOf(g.conn)
	}
	for _, f := range change {
		f(&p)
	}
	return p
}

func listenUDP(t testing.TB, at netip.Addr) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetReadBuffer(4 << 20)
	return c
}

func addrOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// send sends one message from the party's socket.
func (g *guest) send(t testing.TB, message []byte) {
	t.Helper()
	g.sendFrom(t, g.conn, message)
}

func (g *guest) sendFrom(t testing.TB, c *net.UDPConn, message []byte) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort(message, g.at); err != nil {
		t.Fatal(err)
	}
}

// next is the next message of a kind that is wanted; others are dropped. Nil: none
// came in time.
func (g *guest) next(t testing.TB, limit time.Duration, want func(message []byte) bool) []byte {
	t.Helper()
	return nextFrom(t, g.conn, limit, want)
}

func nextFrom(t testing.TB, c *net.UDPConn, limit time.Duration, want func(message []byte) bool) []byte {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 1<<16)
	for {
		n, _, err := c.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return nil
		}
		if want(buffer[:n]) {
			return buffer[:n:n]
		}
	}
}

func kind(k int) func([]byte) bool {
	return func(message []byte) bool { return enginetest.Kind(message) == k }
}

// call begins a session, as often as it takes.
func (g *guest) call(t testing.TB) *enginetest.Session {
	t.Helper()
	for deadline := time.Now().Add(waiting); ; {
		h := g.initiate(t)
		var s *enginetest.Session
		g.next(t, time.Second, func(message []byte) (done bool) {
			var err error
			s, err = h.Finish(message)
			// Under load it wants a cookie first.
			return err == nil || g.TakeCookie(message) == nil
		})
		if s != nil {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatal("an initiation is not answered")
		}
	}
}

// initiate sends an initiation, when the last is as old as an engine wants it to
// be: it answers a peer's once in 20 ms.
func (g *guest) initiate(t testing.TB) *enginetest.Handshake {
	t.Helper()
	time.Sleep(time.Until(g.called.Add(25 * time.Millisecond)))
	g.index++
	h, err := g.Initiate(g.index)
	if err != nil {
		t.Fatal(err)
	}
	g.send(t, h.Message)
	g.called = time.Now()
	return h
}

// answer waits for the site to call, and begins the session.
func (g *guest) answer(t testing.TB) *enginetest.Session {
	t.Helper()
	initiation := g.next(t, waiting, kind(enginetest.Initiation))
	if initiation == nil {
		t.Fatal("no initiation came")
	}
	g.index++
	response, s, err := g.Respond(initiation, g.index)
	if err != nil {
		t.Fatal(err)
	}
	g.send(t, response)
	return s
}

// accept answers the site's initiations until it uses a session, and returns the
// first message of that. Of several initiations only the last counts.
func (g *guest) accept(t testing.TB) (s *enginetest.Session, first []byte) {
	t.Helper()
	first = g.next(t, waiting, func(message []byte) bool {
		if enginetest.Kind(message) != enginetest.Initiation {
			if s == nil {
				return false
			}
			_, _, err := s.Open(message)
			return err == nil
		}
		g.index++
		response, session, err := g.Respond(message, g.index)
		if err == nil {
			s = session
			g.send(t, response)
		}
		return false
	})
	if first == nil {
		t.Fatal("the site begins no session")
	}
	return s, first
}

// listens has the site count what the party says.
func (g *guest) listens(t testing.TB) {
	t.Helper()
	g.gather = gather(t, g.site)
}

// packet is the n-th packet to the site's machine.
func (g *guest) packet(n uint32, size int) []byte { return g.packetFrom(g.addr, n, size) }

func (g *guest) packetFrom(source netip.Addr, n uint32, size int) []byte {
	to := g.site.addr
	if source.Is6() {
		to = addr6(to)
	}
	return enginetest.UDPPacket(netip.AddrPortFrom(source, 7001), netip.AddrPortFrom(to, g.gather.port), numbered(n, size))
}

// say sends the next packet, and waits for it to be there.
func (g *guest) say(t testing.TB, s *enginetest.Session) tally {
	t.Helper()
	g.said++
	g.send(t, s.Seal(g.packet(g.said, 100)))
	return g.gather.await(t, g.said)
}

// hears has the site's machine send a packet to the party, and waits until it
// comes, under one of the sessions.
func (g *guest) hears(t testing.TB, sessions ...*enginetest.Session) (under *enginetest.Session) {
	t.Helper()
	return g.hearsAt(t, g.conn, sessions...)
}

func (g *guest) hearsAt(t testing.TB, c *net.UDPConn, sessions ...*enginetest.Session) (under *enginetest.Session) {
	t.Helper()
	g.speak(t, 1)
	nextFrom(t, c, waiting, func(message []byte) bool {
		for _, s := range sessions {
			if _, packet, err := s.Open(message); err == nil && enginetest.UDPPayload(packet) != nil {
				under = s
			}
		}
		return under != nil
	})
	if under == nil {
		t.Error("the party hears nothing")
	}
	return under
}

// speak has the site's machine send a packet to the party.
func (g *guest) speak(t testing.TB, n uint32) {
	t.Helper()
	scatter(t, g.site, netip.AddrPortFrom(g.addr, 9), burst{First: n, Last: n, Size: 100})
}

// An outpost is a site whose engine is in a machine of its own, beside which the
// network of that machine is.
type outpost struct {
	*site
	outside *nstest.Host
	control *uapi.Conn
	said    *running // "trouble"
}

func newOutpost(t testing.TB, engine, addr string, outside *nstest.Host, mtu int) *outpost {
	t.Helper()
	o := &outpost{site: &site{host: nstest.NewHost(t), addr: netip.MustParseAddr(addr)}, outside: outside}
	var err error
	if o.key, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	tun := openTUN(t, o.host, "wg0")
	configureLink(t, o.site, mtu)
	role := (&site{host: outside}).role(t, "engine-suite-outpost", engine, strconv.Itoa(mtu), wgSocket)
	role.ExtraFiles = append(role.ExtraFiles, tun)
	o.said = startCommand(t, role)
	if line := o.said.line(t); line != "ready" {
		t.Fatal(line)
	}
	if o.control, err = uapi.Dial(outside.Path(wgSocket)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.control.Close() })
	return o
}

func (o *outpost) tell(t testing.TB, u uapi.Update) {
	t.Helper()
	if err := o.control.Set(t.Context(), u.Body()); err != nil {
		t.Fatal(err)
	}
}

func openKey(t testing.TB) *ecdh.PrivateKey {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// allow gives the party prefixes, instead of those it has or beside them.
func (g *guest) allow(t testing.TB, replace bool, prefixes ...string) {
	t.Helper()
	u := uapi.PeerUpdate{PublicKey: g.PublicKey(), UpdateOnly: true, ReplaceAllowedIPs: replace}
	for _, p := range prefixes {
		u.AllowedIPs = append(u.AllowedIPs, netip.MustParsePrefix(p))
	}
	g.site.set(t, uapi.Update{Peers: []uapi.PeerUpdate{u}})
}

func waitFor(t testing.TB, cond func() error) {
	t.Helper()
	nstest.Eventually(t, waiting, cond)
}
