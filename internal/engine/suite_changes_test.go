package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"wireguard4netns/internal/engine/enginetest"
	"wireguard4netns/internal/nstest"
	"wireguard4netns/internal/uapi"
)

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
			g.allow(t, "10.9.1.0/24", "fd09::/96")
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
			g.allow(t, "10.9.1.1/32")
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
			s.key = openKey(t)
			s.set(t, uapi.Update{PrivateKey: new(s.privateKey())})
			g.initiate(t) // to the old key
			g.SetOther(s.publicKey(), g.psk)
			next := g.call(t)
			g.say(t, next)
			if under := g.hears(t, session, next); under == session {
				t.Error("it sends under the old key's session")
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
		refused(uapi.Update{ListenPort: new(nstest.FreePort(t))})
		hears()
		s.set(t, uapi.Update{ListenPort: new(nstest.FreePort(t))})
		hears()
		refused(uapi.Update{})
		s.kills++
		kill(t, s.engine)
		session, _ = g.accept(t)
		hears()
	})
}
