package engine

import (
	"net/netip"
	"testing"
	"time"

	"wireguard4netns/internal/engine/enginetest"
)

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
		if m := nextFrom(t, thief, 50*time.Millisecond, anything); m != nil {
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
