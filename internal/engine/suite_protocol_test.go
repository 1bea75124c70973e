package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"wireguard4netns/internal/engine/enginetest"
	"wireguard4netns/internal/nstest"
	"wireguard4netns/internal/uapi"
)

// One engine, and a party at the other end.

// A session comes about in both roles, with the right preshared key alone.
func TestSuitePresharedKey(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		s := openSite(t, engine, "10.9.0.1", testMTU)
		s.up(t)
		right := s.invite(t, "10.9.1.1", false)
		right.listens(t)
		session := right.call(t)
		if got := right.say(t, session).Received; got != 1 {
			t.Errorf("%d packets received, want 1", got)
		}
		right.hears(t, session)

		called := s.invite(t, "10.9.1.2", true)
		called.listens(t)
		called.speak(t, 1)
		session = called.answer(t)
		if called.next(t, waiting, kind(enginetest.Transport)) == nil {
			t.Error("the packet that waited does not come")
		}
		called.say(t, session)

		// Somebody who has all but the preshared key gets an answer that he
		// cannot read.
		wrong := s.invite(t, "10.9.1.3", true)
		wrong.SetOther(s.publicKey(), [32]byte{1})
		h, err := wrong.Initiate(7)
		if err != nil {
			t.Fatal(err)
		}
		wrong.send(t, h.Message)
		response := wrong.next(t, waiting, kind(enginetest.Response))
		if response == nil {
			t.Fatal("no response")
		}
		if _, err := h.Finish(response); err == nil {
			t.Error("a response was made with another preshared key")
		}
		for _, p := range s.device(t).Peers {
			known := p.PublicKey == right.PublicKey() || p.PublicKey == called.PublicKey()
			if known == p.LastHandshake.IsZero() {
				t.Errorf("a handshake with %v: %v", p.AllowedIPs, p.LastHandshake)
			}
		}
	})
}

// Who sends under a session's keys moves the peer's endpoint; who sends anything
// else does not.
func TestSuiteRoaming(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		s := openSite(t, engine, "10.9.0.1", testMTU)
		s.up(t)
		g := s.invite(t, "10.9.1.1", false)
		g.listens(t)
		session := g.call(t)
		g.say(t, session)
		for i, at := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.2"} {
			c := listenUDP(t, netip.MustParseAddr(at))
			thief := listenUDP(t, netip.MustParseAddr("127.0.0.4"))
			g.said++
			message := session.Seal(g.packet(g.said, 100))
			g.sendFrom(t, c, message)
			g.gather.await(t, g.said)
			// The same once more, something else with that counter, and a bit
			// of it changed: from another address.
			g.sendFrom(t, thief, message)
			for _, bit := range []int{3, 20 * 8, len(message)*8 - 1} {
				forged := slices.Clone(message)
				binary.LittleEndian.PutUint64(forged[8:], session.Counter+10)
				forged[bit/8] ^= 1 << (bit % 8)
				g.sendFrom(t, thief, forged)
			}
			g.hearsAt(t, c, session)
			if got := s.only(t).Endpoint; got != addrOf(c) {
				t.Errorf("move %d: endpoint %v, want %v", i, got, addrOf(c))
			}
			g.at = netip.AddrPortFrom(loopback, s.device(t).ListenPort)
		}
		// A keepalive moves it as well; the site's own port may change, too.
		s.set(t, uapi.Update{ListenPort: new(uint16(0))})
		s.set(t, uapi.Update{ListenPort: new(freePort(t))})
		g.at = netip.AddrPortFrom(loopback, s.device(t).ListenPort)
		c := listenUDP(t, netip.MustParseAddr("127.0.0.5"))
		g.sendFrom(t, c, session.Seal(nil))
		nstest.Eventually(t, waiting, func() error {
			if got := s.only(t).Endpoint; got != addrOf(c) {
				return fmt.Errorf("endpoint %v, want %v", got, addrOf(c))
			}
			return nil
		})
		g.hearsAt(t, c, session)
		g.say(t, session)
	})
}

func freePort(t testing.TB) uint16 {
	t.Helper()
	c := listenUDP(t, loopback)
	defer c.Close()
	return addrOf(c).Port()
}

// A message is delivered once, in whatever order they come, unless it is too old.
func TestSuiteReplay(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		s := openSite(t, engine, "10.9.0.1", testMTU)
		s.up(t)
		g := s.invite(t, "10.9.1.1", false)
		g.listens(t)

		// An old initiation is not answered, and harms no session.
		h := g.initiate(t)
		session, err := h.Finish(g.next(t, waiting, kind(enginetest.Response)))
		if err != nil {
			t.Fatal(err)
		}
		g.say(t, session)
		thief := listenUDP(t, netip.MustParseAddr("127.0.0.2"))
		for range 3 {
			g.sendFrom(t, thief, h.Message)
		}
		g.say(t, session)
		nextSession := g.call(t) // whoever answers this has read those
		if m := nextFrom(t, thief, 50*time.Millisecond, func([]byte) bool { return true }); m != nil {
			t.Errorf("an old initiation was answered by a message of type %d", enginetest.Kind(m))
		}
		g.say(t, nextSession)
		g.sendFrom(t, thief, h.Message)
		session = g.call(t)

		// Numbers of packets are counters here, from 1000 on.
		g.gather = gather(t, s)
		message := func(counter uint64) []byte { return session.SealAs(counter, g.packet(uint32(counter), 64)) }
		want := 0
		for _, c := range []uint64{0, 5, 3, 1000, 999, 998, 500, 2000, 1999} {
			want++
			m := message(c)
			for range 3 {
				g.send(t, m)
			}
		}
		g.gather.await(t, 2000)
		const far = 100000 // behind it, all that came before is too old
		g.send(t, message(far))
		want++
		for _, c := range []uint64{0, 5, 1000, 2000, 2001, far - 20000, far - 9000} {
			g.send(t, message(c))
		}
		for _, c := range []uint64{far - 1000, far - 1, far + 1} {
			m := message(c)
			g.send(t, m)
			g.send(t, m)
			want++
		}
		now := g.gather.await(t, far+1)
		if now.Received != want || now.Duplicates != 0 {
			t.Errorf("%d packets and %d duplicates, want %d and none", now.Received, now.Duplicates, want)
		}
		// Counters that must never be used.
		for _, c := range []uint64{1<<64 - 1, 1<<64 - 1<<13 - 1 + 1} {
			g.send(t, session.SealAs(c, g.packet(7777, 64)))
		}
		session.Counter = far + 2
		g.send(t, session.Seal(g.packet(far+2, 64)))
		if now := g.gather.await(t, far+2); now.Received != want+1 {
			t.Errorf("%d packets, want %d", now.Received, want+1)
		}
	})
}

// With any bit of it changed no message is accepted, changes anything, or stands
// in the way of the right one.
func TestSuiteEveryBit(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		s := openSite(t, engine, "10.9.0.1", testMTU)
		s.up(t)
		g := s.invite(t, "10.9.1.1", true)
		g.listens(t)
		thief := listenUDP(t, netip.MustParseAddr("127.0.0.2"))

		t.Run("transport", func(t *testing.T) {
			session := g.call(t)
			g.say(t, session)
			before := s.only(t)
			message := session.Seal(g.packet(2, 40))
			changed := 0
			for bit := range len(message) * 8 {
				b := slices.Clone(message)
				b[bit/8] ^= 1 << (bit % 8)
				g.sendFrom(t, thief, b)
				if changed++; changed%100 == 0 {
					g.said = max(g.said, 10) + 1
					g.say(t, session) // they were read
				}
			}
			for _, size := range []int{0, 1, 15, 16, 31, 32, len(message) - 1} {
				g.sendFrom(t, thief, message[:size])
			}
			g.send(t, message)
			g.said++
			now := g.say(t, session)
			after := s.only(t)
			if now.Corrupt != 0 || now.Duplicates != 0 || now.Received != 3+changed/100 {
				t.Errorf("delivered: %+v", now)
			}
			if after.Endpoint != before.Endpoint || after.LastHandshake != before.LastHandshake {
				t.Errorf("the peer before %+v, after %+v", before, after)
			}
		})

		// Of an initiation all counts but mac2, which says something under load
		// alone. Who knows the public key can make mac1 right again; then the
		// rest counts, but for the index, which is only given back.
		t.Run("initiation", func(t *testing.T) {
			h, err := g.Initiate(77)
			if err != nil {
				t.Fatal(err)
			}
			g.flip(t, thief, h.Message, func(bit int) bool { return bit >= 8*8 })
			g.send(t, h.Message)
			response := g.next(t, waiting, kind(enginetest.Response))
			session, err := h.Finish(response)
			if err != nil {
				t.Fatal(err)
			}
			g.said += 1000
			g.say(t, session)
			if m := nextFrom(t, thief, 10*time.Millisecond, kind(enginetest.Response)); m != nil {
				t.Error("a changed initiation was answered")
			}
		})

		t.Run("response", func(t *testing.T) {
			caller := s.invite(t, "10.9.1.2", true)
			caller.listens(t)
			caller.speak(t, 1)
			initiation := caller.next(t, waiting, kind(enginetest.Initiation))
			response, session, err := caller.Respond(initiation, 99)
			if err != nil {
				t.Fatal(err)
			}
			caller.flip(t, thief, response, func(bit int) bool { return bit >= 8*8 })
			if m := caller.next(t, 10*time.Millisecond, kind(enginetest.Transport)); m != nil {
				t.Error("a changed response was believed")
			}
			caller.send(t, response)
			if m := caller.next(t, waiting, kind(enginetest.Transport)); m == nil {
				t.Error("the right response was not believed after the changed ones")
			}
			caller.say(t, session)
		})
	})
}

// flip sends a handshake message with each of its bits changed, and again with
// mac1 made right if resign says so. In between the party begins sessions, so that
// the engine is never under load, when it would look at nothing but mac2.
func (g *guest) flip(t *testing.T, from *net.UDPConn, message []byte, resign func(bit int) bool) {
	t.Helper()
	pacer := g.site.invite(t, "10.9.200.200", false)
	weight := 0
	send := func(b []byte, more int) {
		if _, err := from.WriteToUDPAddrPort(b, g.at); err != nil {
			t.Fatal(err)
		}
		if weight += more; weight >= 60 {
			pacer.call(t)
			weight = 0
		}
	}
	n := len(message) - 32
	for bit := range (len(message) - 16) * 8 {
		b := slices.Clone(message)
		b[bit/8] ^= 1 << (bit % 8)
		send(b, 1)
		// One bit of each byte is enough for these: each costs a handshake.
		if bit < n*8 && bit%8 == bit/8%8 && resign(bit) {
			g.Sign(b)
			send(b, 10)
		}
	}
	g.site.set(t, uapi.Update{Peers: []uapi.PeerUpdate{{PublicKey: pacer.PublicKey(), Remove: true}}})
}

// A new session every moment, begun by the other end: what either side sends goes
// through, also what was on its way under the old keys.
func TestSuiteRekey(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		s := openSite(t, engine, "10.9.0.1", testMTU)
		s.up(t)
		g := s.invite(t, "10.9.1.1", false)
		g.listens(t)
		sessions := []*enginetest.Session{g.call(t)}
		g.say(t, sessions[0])

		const packets, rekeys = 4000, 8
		ended := make(chan error, 1)
		command := s.role(t, "engine-suite-scatter", "10.9.1.1:9",
			fmt.Sprintf(`{"First":1,"Last":%d,"Size":200,"PauseEvery":20,"Pause":4000000}`, packets))
		go func() { ended <- command.Run() }()

		heard := map[uint32]bool{}
		under := map[*enginetest.Session]int{}
		var waits *enginetest.Handshake
		for begun := 1; len(heard) < packets; {
			if waits == nil && begun <= rekeys && len(heard) > begun*packets/(rekeys+2) {
				waits = g.initiate(t)
				begun++
			}
			m := g.next(t, waiting, func([]byte) bool { return true })
			if m == nil && engine == WireGuardGo && len(heard) > packets/2 {
				break // slow as with the race detector, its queues overflow
			}
			if m == nil {
				t.Fatalf("%d of %d packets came, in %d sessions", len(heard), packets, len(sessions))
			}
			if waits != nil {
				if next, err := waits.Finish(m); err == nil {
					waits = nil
					last := sessions[len(sessions)-1]
					// The first message under the new keys overtakes one under
					// the old.
					g.said += 2
					g.send(t, next.Seal(g.packet(g.said, 100)))
					g.send(t, last.Seal(g.packet(g.said-1, 100)))
					waitFor(t, func() error { // an initiation would end the old
						if now := g.gather.tally(t); now.Received < int(g.said) {
							return fmt.Errorf("of %d packets came %+v", g.said, now)
						}
						return nil
					})
					sessions = append(sessions, next)
					continue
				} else if g.TakeCookie(m) == nil {
					waits = nil
					begun--
					continue
				}
			}
			for _, session := range sessions {
				if _, packet, err := session.Open(m); err == nil {
					if payload := enginetest.UDPPayload(packet); payload != nil {
						heard[binary.BigEndian.Uint32(payload)] = true
						under[session]++
					}
				}
			}
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if len(under) < 4 { // all of them, unless the machine is slow
			t.Errorf("%d sessions, of which %d carried something", len(sessions), len(under))
		}
		now := g.gather.await(t, g.said)
		if now.Received != int(g.said) {
			t.Errorf("of %d packets came %+v", g.said, now)
		}
	})
}

// What takes its time, all at once: each waits, and does nothing.
func TestSuiteTimes(t *testing.T) {
	t.Parallel()
	tests := make(map[string]func(*testing.T))
	for _, engine := range Names {
		for name, test := range map[string]func(t *testing.T, s *site){
			"cookie":               checkCookie,
			"wrong preshared key":  checkWrongPresharedKey,
			"passive keepalive":    checkPassiveKeepalive,
			"persistent keepalive": checkPersistentKeepalive,
		} {
			tests[engine+","+name] = func(t *testing.T) {
				s := openSite(t, engine, "10.9.0.1", testMTU)
				s.up(t)
				test(t, s)
			}
		}
	}
	atOnce(t, tests)
}

// Who answers with another preshared key is not believed.
func checkWrongPresharedKey(t *testing.T, s *site) {
	caller := s.invite(t, "10.9.1.4", true)
	caller.SetOther(s.publicKey(), [32]byte{1})
	caller.speak(t, 1)
	session := caller.answer(t)
	caller.send(t, session.Seal(nil))
	// It goes on to ask, instead of sending.
	if m := caller.next(t, waiting, func([]byte) bool { return true }); enginetest.Kind(m) != enginetest.Initiation {
		t.Errorf("message of type %d after a wrong response, want another initiation", enginetest.Kind(m))
	}
	for _, p := range s.device(t).Peers {
		if p.PublicKey == caller.PublicKey() && !p.LastHandshake.IsZero() {
			t.Error("there was a handshake")
		}
	}
}

// A changed cookie does not become the key of mac2; the right one does.
func checkCookie(t *testing.T, s *site) {
	caller := s.invite(t, "10.9.1.3", true)
	caller.speak(t, 1)
	initiation := caller.next(t, waiting, kind(enginetest.Initiation))
	reply := caller.MakeCookie(initiation, [16]byte{1, 2, 3})
	for bit := range len(reply) * 8 {
		b := slices.Clone(reply)
		b[bit/8] ^= 1 << (bit % 8)
		if bit >= 8*8 || bit < 4*8 { // the index only finds who asked
			caller.send(t, b)
		}
	}
	again := caller.next(t, waiting, kind(enginetest.Initiation))
	if again == nil || !slices.Equal(again[132:], make([]byte, 16)) {
		t.Errorf("mac2 after changed cookies: %x", again)
	}
	caller.send(t, caller.MakeCookie(again, [16]byte{1, 2, 3}))
	if third := caller.next(t, waiting, kind(enginetest.Initiation)); third == nil || slices.Equal(third[132:], make([]byte, 16)) {
		t.Errorf("mac2 after a cookie: %x", third)
	}
}

// A passive keepalive is empty, and comes ten seconds after what was not answered.
func checkPassiveKeepalive(t *testing.T, s *site) {
	g := s.invite(t, "10.9.1.1", false)
	g.listens(t)
	session := g.call(t)
	g.say(t, session)
	begun := time.Now()
	if g.next(t, 2*waiting, keepalive(session)) == nil {
		t.Fatal("no keepalive")
	}
	if took := time.Since(begun); took < 9*time.Second || took > 15*time.Second {
		t.Errorf("a keepalive after %v, want ten seconds", took)
	}
}

// The persistent one comes at its interval, and no more when it is turned off.
func checkPersistentKeepalive(t *testing.T, s *site) {
	g := s.invite(t, "10.9.1.2", true, func(p *uapi.PeerUpdate) { p.PersistentKeepalive = new(time.Second) })
	session := g.answer(t)
	var at []time.Time
	for len(at) < 5 {
		if g.next(t, waiting, keepalive(session)) == nil {
			t.Fatal("no keepalive")
		}
		at = append(at, time.Now())
	}
	// The first comes with the session.
	for i := 2; i < len(at); i++ {
		if took := at[i].Sub(at[i-1]); took < 500*time.Millisecond || took > 4*time.Second {
			t.Errorf("keepalive %d after %v, want a second", i, took)
		}
	}
	s.set(t, uapi.Update{Peers: []uapi.PeerUpdate{{PublicKey: g.PublicKey(), PersistentKeepalive: new(time.Duration(0))}}})
	if g.next(t, 2500*time.Millisecond, keepalive(session)) != nil {
		if g.next(t, 2500*time.Millisecond, keepalive(session)) != nil { // one was on its way
			t.Error("keepalives go on that were turned off")
		}
	}
}

// keepalive tells whether a message is an empty packet of the session.
func keepalive(s *enginetest.Session) func([]byte) bool {
	return func(message []byte) bool {
		_, packet, err := s.Open(message)
		return err == nil && len(packet) == 0
	}
}

// What the engine is told while packets pass.
func TestSuiteChanges(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		s := openSite(t, engine, "10.9.0.1", testMTU)
		s.up(t)
		g := s.invite(t, "10.9.1.1", true)
		g.listens(t)
		session := g.call(t)
		g.say(t, session)

		t.Run("allowed IPs", func(t *testing.T) {
			before := g.gather.tally(t).Received
			refused := func(source netip.Addr) {
				t.Helper()
				g.send(t, session.Seal(g.packetFrom(source, 1<<20, 100)))
				if now := g.say(t, session); now.Highest > 1<<19 {
					t.Errorf("a packet from %v was taken", source)
				}
			}
			refused(netip.MustParseAddr("10.9.1.7"))
			refused(netip.MustParseAddr("fd09::7"))
			// No IP packets, and ones that claim to be longer than they are.
			for _, packet := range [][]byte{{0x45}, {0}, make([]byte, 40), append([]byte{0x4f, 0, 0xff, 0xff}, make([]byte, 60)...), append([]byte{0x60, 0, 0, 0, 0xff, 0xff}, make([]byte, 60)...)} {
				g.send(t, session.Seal(packet))
			}
			g.allow(t, true, "10.9.1.0/24", "fd09::/96")
			g.send(t, session.Seal(g.packetFrom(netip.MustParseAddr("10.9.1.7"), g.said+1, 100)))
			g.send(t, session.Seal(g.packetFrom(netip.MustParseAddr("fd09::7"), g.said+2, 100)))
			g.said += 2
			g.gather.await(t, g.said)
			// What another peer is given is taken away.
			other := s.invite(t, "10.9.1.7", true)
			refused(netip.MustParseAddr("10.9.1.7"))
			other.gather = g.gather
			theirs := other.call(t)
			other.send(t, theirs.Seal(other.packet(g.said+1, 100)))
			g.said++
			g.gather.await(t, g.said)
			other.hears(t, theirs)
			// A prefix less: "-" before it.
			body := fmt.Sprintf("public_key=%x\nupdate_only=true\nallowed_ip=-10.9.1.0/24\nallowed_ip=10.9.1.1/32\n", g.PublicKey())
			if err := s.engine.Set(t.Context(), []byte(body)); err != nil {
				t.Errorf("remove one prefix: %v", err)
			}
			refused(netip.MustParseAddr("10.9.1.8"))
			g.allow(t, true, "10.9.1.1/32")
			refused(netip.MustParseAddr("fd09::7"))
			if got := g.gather.tally(t); got.Received < before+8 || got.Corrupt != 0 {
				t.Errorf("received: %+v", got)
			}
			s.set(t, uapi.Update{Peers: []uapi.PeerUpdate{{PublicKey: other.PublicKey(), Remove: true}}})
		})

		t.Run("update only", func(t *testing.T) {
			s.set(t, uapi.Update{Peers: []uapi.PeerUpdate{{PublicKey: [32]byte{1}, UpdateOnly: true, AllowedIPs: prefixesOf(g.addr), PersistentKeepalive: new(time.Second)}}})
			s.set(t, uapi.Update{Peers: []uapi.PeerUpdate{{PublicKey: [32]byte{2}, Remove: true}}})
			if got := s.only(t).PublicKey; got != g.PublicKey() {
				t.Errorf("peer %v, want %v", got, uapi.PublicKey(g.PublicKey()))
			}
			g.say(t, session)
			g.hears(t, session)
		})

		t.Run("the device itself is no peer", func(t *testing.T) {
			s.set(t, uapi.Update{Peers: []uapi.PeerUpdate{{PublicKey: s.publicKey(), AllowedIPs: prefixesOf(g.addr)}}})
			s.only(t)
			g.hears(t, session)
		})

		t.Run("endpoint", func(t *testing.T) {
			c := listenUDP(t, netip.MustParseAddr("127.0.0.9"))
			s.set(t, uapi.Update{Peers: []uapi.PeerUpdate{{PublicKey: g.PublicKey(), Endpoint: addrOf(c)}}})
			g.hearsAt(t, c, session)
			g.say(t, session)
		})

		t.Run("private key", func(t *testing.T) {
			old := s.publicKey()
			s.key = openKey(t)
			s.set(t, uapi.Update{PrivateKey: new(s.privateKey())})
			g.initiate(t) // to the old key
			g.SetOther(s.publicKey(), g.psk)
			next := g.call(t)
			g.say(t, next)
			if under := g.hears(t, session, next); under == session {
				t.Error("it sends under the old key's session")
			}
			if old == s.publicKey() {
				t.Error("no other key")
			}
			session = next
		})

		t.Run("preshared key", func(t *testing.T) {
			g.psk = [32]byte{5}
			s.set(t, uapi.Update{Peers: []uapi.PeerUpdate{{PublicKey: g.PublicKey(), UpdateOnly: true, PresharedKey: new(uapi.Secret(g.psk))}}})
			g.say(t, session) // the session goes on
			g.SetOther(s.publicKey(), g.psk)
			session = g.call(t)
			g.say(t, session)
		})

		t.Run("remove", func(t *testing.T) {
			watch := s.invite(t, "10.9.2.1", true)
			watch.gather = g.gather
			theirs := watch.call(t)
			s.set(t, uapi.Update{Peers: []uapi.PeerUpdate{{PublicKey: g.PublicKey(), Remove: true}}})
			g.send(t, session.Seal(g.packet(1<<20, 100)))
			g.initiate(t)
			watch.said = g.said
			if now := watch.say(t, theirs); now.Highest > 1<<19 {
				t.Error("a packet of a peer that was removed was taken")
			}
			watch.call(t)
			if m := g.next(t, 10*time.Millisecond, kind(enginetest.Response)); m != nil {
				t.Error("a peer that was removed is answered")
			}
			// And it comes back as a new one.
			s.set(t, uapi.Update{ReplacePeers: true, Peers: []uapi.PeerUpdate{g.peer(true)}})
			g.said = watch.said
			g.say(t, g.call(t))
		})
	})
}

// A mark that the kernel refuses leaves no trace: not in what the engine says of
// itself, nor in the next request, nor in the next process.
func TestSuiteFwmark(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		s := openSite(t, engine, "10.9.0.1", testMTU)
		s.key = openKey(t)
		refused := func(u uapi.Update) {
			t.Helper()
			u.Fwmark = new(uint32(7))
			err := s.engine.Set(t.Context(), u.Body())
			// SO_MARK wants CAP_NET_ADMIN over the socket's netns, socket(7).
			if !errors.Is(err, syscall.EPERM) {
				t.Errorf("set: %v, want %v", err, syscall.EPERM)
			}
			if got := s.device(t).Fwmark; got != 0 {
				t.Errorf("fwmark %d", got)
			}
		}
		refused(uapi.Update{})
		s.up(t)
		g := s.invite(t, "10.9.1.1", true)
		g.listens(t)
		session := g.call(t)
		refused(uapi.Update{})
		s.set(t, uapi.Update{Fwmark: new(uint32(0))})
		g.say(t, session)
		hears := func() {
			t.Helper()
			g.at = netip.AddrPortFrom(loopback, s.device(t).ListenPort)
			g.say(t, session)
		}
		refused(uapi.Update{ListenPort: new(freePort(t))})
		hears()
		s.set(t, uapi.Update{ListenPort: new(freePort(t))})
		hears()
		refused(uapi.Update{})
		s.kills++
		kill(t, s.engine)
		session, _ = g.accept(t)
		hears()
	})
}
