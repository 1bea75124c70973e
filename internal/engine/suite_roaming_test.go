package engine

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"wireguard4netns/internal/nstest"
	"wireguard4netns/internal/uapi"
)

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
		s.set(t, uapi.Update{ListenPort: new(nstest.FreePort(t))})
		g.at = netip.AddrPortFrom(loopback, s.device(t).ListenPort)
		c := listenUDP(t, netip.MustParseAddr("127.0.0.5"))
		g.sendFrom(t, c, session.Seal(nil))
		waitFor(t, func() error {
			if got := s.only(t).Endpoint; got != addrOf(c) {
				return fmt.Errorf("endpoint %v, want %v", got, addrOf(c))
			}
			return nil
		})
		g.hearsAt(t, c, session)
		g.say(t, session)
	})
}
