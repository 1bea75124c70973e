package engine

import (
	"slices"
	"testing"

	"wireguard4netns/internal/engine/enginetest"
)

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

// Who answers with another preshared key is not believed.
func checkWrongPresharedKey(t *testing.T, s *site) {
	caller := s.invite(t, "10.9.1.4", true)
	caller.SetOther(s.publicKey(), [32]byte{1})
	caller.speak(t, 1)
	session := caller.answer(t)
	caller.send(t, session.Seal(nil))
	// It goes on to ask, instead of sending.
	if m := caller.next(t, waiting, anything); enginetest.Kind(m) != enginetest.Initiation {
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
