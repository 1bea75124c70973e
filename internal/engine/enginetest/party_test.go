package enginetest

import (
	"bytes"
	"testing"
)

// Two parties understand each other, and nobody else does.
func TestParties(t *testing.T) {
	t.Parallel()
	psk := [32]byte{1}
	b := NewParty([32]byte{}, psk)
	a := NewParty(b.PublicKey(), psk)
	b.SetOther(a.PublicKey(), psk)
	h, err := a.Initiate(5)
	if err != nil {
		t.Fatal(err)
	}
	response, there, err := b.Respond(h.Message, 6)
	if err != nil {
		t.Fatal(err)
	}
	here, err := h.Finish(response)
	if err != nil {
		t.Fatal(err)
	}
	for want := range uint64(3) {
		counter, packet, err := there.Open(here.Seal([]byte("0123456789abcdef")))
		if err != nil || counter != want || string(packet) != "0123456789abcdef" {
			t.Errorf("message %d: %d, %q, %v", want, counter, packet, err)
		}
	}
	if _, packet, err := here.Open(there.Seal([]byte("x"))); err != nil || !bytes.Equal(packet, append([]byte("x"), make([]byte, 15)...)) {
		t.Errorf("back: %q, %v", packet, err)
	}

	a.Sign(h.Message)
	reply := b.MakeCookie(h.Message, [16]byte{9})
	if err := a.TakeCookie(reply); err != nil || a.cookie != [16]byte{9} {
		t.Errorf("cookie %x, %v", a.cookie, err)
	}
	c := NewParty(b.PublicKey(), [32]byte{2})
	if h, err = c.Initiate(7); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Respond(h.Message, 8); err == nil {
		t.Error("a stranger was answered")
	}
}
