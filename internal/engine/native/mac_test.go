package native

import (
	"bytes"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/blake2s"
)

func TestMACs(t *testing.T) {
	id := identityOf(2)
	s := newSenderMACs(id.public)
	message := make([]byte, initiationSize)
	message[0] = typeInitiation
	s.add(message, 0)
	if !id.macs.validMAC1(message) {
		t.Fatal("mac1 refused")
	}
	h, err := blake2s.New128(s.mac1Key[:])
	if err != nil {
		t.Fatal(err)
	}
	h.Write(message[:initiationSize-32])
	if !bytes.Equal(h.Sum(nil), message[initiationSize-32:initiationSize-16]) || [16]byte(message[initiationSize-16:]) != [16]byte{} {
		t.Error("mac1 is not the keyed BLAKE2s, or mac2 not zero without a cookie")
	}
	for i := range (initiationSize - 16) * 8 {
		message[i/8] ^= 1 << (i % 8)
		if id.macs.validMAC1(message) {
			t.Errorf("bit %d changed: mac1 accepted", i)
		}
		message[i/8] ^= 1 << (i % 8)
	}
	if n := testing.AllocsPerRun(100, func() { id.macs.validMAC1(message) }); n > 0 {
		t.Errorf("%v allocations for a message of a flood", n)
	}
}

func TestCookies(t *testing.T) {
	const now = time.Second
	id := identityOf(2)
	s := newSenderMACs(id.public)
	here, there := []byte("address one"), []byte("address two")
	message := make([]byte, initiationSize)
	message[0] = typeInitiation
	s.add(message, now)
	if id.macs.validMAC2(message, here, now) {
		t.Error("mac2 accepted before there was a cookie")
	}
	reply := id.macs.cookieReply(message, here, now)
	if len(reply) != cookieReplySize || kindOf(reply) != typeCookie {
		t.Errorf("reply %x", reply)
	}
	for i := 8 * 8; i < len(reply)*8; i++ {
		reply[i/8] ^= 1 << (i % 8)
		if s.consume(reply, now) {
			t.Errorf("bit %d changed: cookie accepted", i)
		}
		reply[i/8] ^= 1 << (i % 8)
	}
	other := newSenderMACs(id.public)
	if other.consume(reply, now) {
		t.Error("a cookie was taken by who has sent nothing")
	}
	if !s.consume(reply, now) {
		t.Fatal("cookie refused")
	}
	s.add(message, now)
	if !id.macs.validMAC2(message, here, now) {
		t.Error("mac2 refused")
	}
	if id.macs.validMAC2(message, there, now) {
		t.Error("mac2 accepted from another address")
	}
	if id.macs.validMAC2(message, here, now+cookieTime) {
		t.Error("mac2 accepted with an old secret")
	}
	s.add(message, now+cookieTime)
	if [16]byte(message[initiationSize-16:]) != [16]byte{} {
		t.Error("an old cookie was used")
	}
}

// Under load a handshake needs a cookie, and gets through with it, while others
// do nothing.
func TestAHandshakeUnderLoad(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		flood(b)
		a.say(b, "hello")
		synctest.Wait()
		if sent := b.counts(); sent[typeCookie] == 0 || sent[typeResponse] != 0 {
			t.Errorf("under load, sent %v, want cookies and no response", sent)
		}
		// a tries again each five seconds; one try may be lost with the flood.
		for range 12 {
			pass(time.Second)
			flood(b)
			synctest.Wait()
		}
		wantHeard(t, b, "hello")
	})
}

// flood fills the letter box of n with initiations of nobody it knows, from
// addresses that lead nowhere.
func flood(n *node) {
	stranger := identityOf(99)
	macs := newSenderMACs(n.public())
	message := make([]byte, initiationSize)
	message[0] = typeInitiation
	copy(message[8:], stranger.public[:])
	macs.add(message, 0)
	for i := range maxLetters {
		from, err := endpointOf(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 1))
		if err != nil {
			panic(err)
		}
		n.inbox <- datagram{from.origin, message}
	}
}
