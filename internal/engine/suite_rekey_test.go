package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"wireguard4netns/internal/engine/enginetest"
	"wireguard4netns/internal/uapi"
)

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
			m := g.next(t, waiting, anything)
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

// What follows is about sessions that the engine renews by itself, with short limits
// (tunings).

const fewMessages = 50

// Both ends send all the time, and sessions come and go: of what is sent all comes,
// once and whole. Either end renews them by number, the one that began them by time.
func TestSuiteRenewal(t *testing.T) {
	t.Parallel()
	const generations = 4
	tests := make(map[string]func(*testing.T))
	for _, c := range []struct {
		a, b       string
		fromA, toA bool // who calls
	}{
		{Native + "+time", Native + "+time", true, false},
		{Native + "+time", WireGuardGo, true, false},
		{Native + "+messages", Native, true, false},
		{Native, Native + "+messages", false, true},
		{WireGuardGo, Native + "+messages", false, true},
	} {
		tests[c.a+","+c.b] = func(t *testing.T) {
			p := newPairing(t, c.a, c.b, testMTU)
			ping(t, p.a, p.b)
			way := enginetest.Wire{Delay: 20 * time.Millisecond} // there is always something on it
			p.relay.Change(way, way)
			var calls [2]atomic.Int64
			p.relay.Watch(count(&calls[0]), count(&calls[1]))
			sent := make([]chan uint32, 2)
			gatherers := make([]*gatherer, 2)
			stop := make(chan struct{})
			for i, ends := range [2][2]*site{{p.a, p.b}, {p.b, p.a}} {
				gatherers[i], sent[i] = gather(t, ends[1]), make(chan uint32, 1)
				to := netip.AddrPortFrom(ends[1].addr, gatherers[i].port)
				go func() { sent[i] <- chatter(t, ends[0], to, stop) }()
			}
			waitFor(t, func() error {
				if a, b := calls[0].Load(), calls[1].Load(); a+b < generations {
					return fmt.Errorf("%d and %d handshakes begun, want %d", a, b, generations)
				}
				return nil
			})
			close(stop)
			for i, g := range gatherers {
				n := <-sent[i]
				if now := g.await(t, n); now.Received != int(n) || now.Duplicates+now.Corrupt > 0 {
					t.Errorf("direction %d: of %d packets came %+v", i, n, now)
				}
			}
			a, b := calls[0].Load(), calls[1].Load()
			t.Logf("handshakes begun: %d by %s, %d by %s", a, c.a, b, c.b)
			if a > 0 != c.fromA || b > 0 != c.toA {
				t.Errorf("handshakes begun: %d by %s, %d by %s", a, c.a, b, c.b)
			}
		}
	}
	atOnce(t, tests)
}

// count counts the initiations that pass.
func count(calls *atomic.Int64) func([]byte) bool {
	return func(message []byte) bool {
		if enginetest.Kind(message) == enginetest.Initiation {
			calls.Add(1)
		}
		return true
	}
}

// chatter sends numbered packets, a few hundred a second, until it is told to stop,
// and returns how many.
func chatter(t *testing.T, from *site, to netip.AddrPort, stop <-chan struct{}) (n uint32) {
	for {
		select {
		case <-stop:
			return n
		default:
		}
		scatter(t, from, to, burst{First: n + 1, Last: n + 200, Size: 200, PauseEvery: 4, Pause: 8 * time.Millisecond})
		n += 200
	}
}

// Who began a session and only receives renews it before its end.
func TestSuiteLastCall(t *testing.T) {
	t.Parallel()
	s := openSite(t, Native+"+last call", "10.9.0.1", testMTU)
	s.up(t)
	g := s.invite(t, "10.9.1.1", true)
	g.listens(t)
	g.speak(t, 1)
	session, _ := g.accept(t)
	begun := time.Now()
	waitFor(t, func() error {
		g.say(t, session)
		if g.next(t, 50*time.Millisecond, kind(enginetest.Initiation)) == nil {
			return errors.New("no other session is begun")
		}
		return nil
	})
	if took := time.Since(begun); took < 1500*time.Millisecond {
		t.Errorf("another session was begun after %v, want 2 s", took)
	}
}

// A session carries so many messages and no more, either way. What is left waits for
// the next one.
func TestSuiteUsedUp(t *testing.T) {
	t.Parallel()
	s := openSite(t, Native+"+few", "10.9.0.1", testMTU)
	s.up(t)
	g := s.invite(t, "10.9.1.1", true)
	g.listens(t)
	g.speak(t, 1)
	session, first := g.accept(t)
	const packets = 2 * fewMessages
	scatter(t, s, netip.AddrPortFrom(g.addr, 9), burst{First: 2, Last: packets, Size: 100, PauseEvery: 1, Pause: time.Millisecond})

	// It wants another after half of them, and goes on with this one.
	heard, called := map[uint32]bool{}, false
	hear(t, session, first, heard)
	g.next(t, waiting, func(m []byte) bool {
		called = called || enginetest.Kind(m) == enginetest.Initiation
		hear(t, session, m, heard)
		return len(heard) == fewMessages && called
	})
	if !called || len(heard) < fewMessages {
		t.Fatalf("%d packets came, and an initiation: %v", len(heard), called)
	}
	if m := g.next(t, 50*time.Millisecond, kind(enginetest.Transport)); m != nil {
		t.Error("the session goes on after its last message")
	}
	// Nor does it take more.
	g.send(t, session.SealAs(fewMessages-1, g.packet(1, 100)))
	g.send(t, session.SealAs(fewMessages, g.packet(1000, 100)))
	g.said = 1
	g.gather.await(t, 1)

	next, first := g.accept(t)
	hear(t, next, first, heard)
	g.next(t, waiting, func(m []byte) bool {
		hear(t, next, m, heard)
		return len(heard) == packets
	})
	if len(heard) != packets {
		t.Errorf("%d of %d packets came", len(heard), packets)
	}
	if now := g.say(t, next); now.Received != 2 {
		t.Errorf("received: %+v", now)
	}
	if got := s.only(t); got.PublicKey != uapi.PublicKey(g.PublicKey()) {
		t.Errorf("peer %v", got.PublicKey)
	}
}

// hear notes the number of the packet in a message of the session.
func hear(t *testing.T, s *enginetest.Session, message []byte, heard map[uint32]bool) {
	counter, packet, err := s.Open(message)
	if err != nil {
		return
	}
	if counter >= fewMessages {
		t.Errorf("a message with counter %d", counter)
	}
	if payload := enginetest.UDPPayload(packet); payload != nil {
		n := binary.BigEndian.Uint32(payload)
		if heard[n] {
			t.Errorf("packet %d came again", n)
		}
		heard[n] = true
	}
}
