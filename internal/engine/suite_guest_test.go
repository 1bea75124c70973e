package engine

import (
	"crypto/rand"
	"net"
	"net/netip"
	"testing"
	"time"

	"wireguard4netns/internal/engine/enginetest"
	"wireguard4netns/internal/uapi"
)

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

func anything([]byte) bool { return true }

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

// allow gives the party prefixes, instead of those it has.
func (g *guest) allow(t testing.TB, prefixes ...string) {
	t.Helper()
	u := uapi.PeerUpdate{PublicKey: g.PublicKey(), UpdateOnly: true, ReplaceAllowedIPs: true}
	for _, p := range prefixes {
		u.AllowedIPs = append(u.AllowedIPs, netip.MustParsePrefix(p))
	}
	g.site.set(t, uapi.Update{Peers: []uapi.PeerUpdate{u}})
}
