package engine

import (
	"testing"
	"time"

	"wireguard4netns/internal/engine/enginetest"
	"wireguard4netns/internal/uapi"
)

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
