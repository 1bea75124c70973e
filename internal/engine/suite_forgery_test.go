package engine

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"wireguard4netns/internal/engine/enginetest"
	"wireguard4netns/internal/uapi"
)

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
