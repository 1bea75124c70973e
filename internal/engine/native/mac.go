package native

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"hash"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"

	"wireguard4netns/internal/uapi"
)

// Each handshake message ends with two codes (whitepaper, 5.4.4 and 5.4.7).
// mac1 shows that its sender knows the receiver's public key: all else is
// dropped unanswered. A receiver under load asks for mac2 also: it answers with
// a cookie, a code over the sender's address that it need not remember, and
// mac2 is keyed with that: so the address is the sender's.
//
//	sender                                    receiver
//	add: mac1           ── initiation ──▶     validMAC1, under load
//	consume             ◀── cookie reply ──   cookieReply
//	add: mac1, mac2     ── initiation ──▶     validMAC2
const cookieTime = 120 * time.Second

// macKey derives one of the keys that follow from a public key.
func macKey(label string, key uapi.PublicKey) [blake2s.Size]byte {
	return blake2s.Sum256(append([]byte(label), key[:]...))
}

func mac1Key(key uapi.PublicKey) [blake2s.Size]byte   { return macKey("mac1----", key) }
func cookieKey(key uapi.PublicKey) [blake2s.Size]byte { return macKey("cookie--", key) }

// keyedHash is BLAKE2s-128 with a key of at most 32 bytes.
func keyedHash(key []byte) hash.Hash {
	h, err := blake2s.New128(key)
	if err != nil {
		panic(err) // only for a longer key, or none
	}
	return h
}

func mac(key, text []byte) (code [macSize]byte) {
	h := keyedHash(key)
	h.Write(text)
	h.Sum(code[:0])
	return code
}

// splitMACs cuts a message before each of its codes.
func splitMACs(message []byte) (body, withMAC1, mac1, mac2 []byte) {
	n := len(message)
	return message[:n-2*macSize], message[:n-macSize], message[n-2*macSize : n-macSize], message[n-macSize:]
}

// senderMACs codes the messages to one peer. Its peer's mutex guards it.
type senderMACs struct {
	mac1Key, cookieKey [blake2s.Size]byte
	last               [macSize]byte // mac1 of the last message: a reply is bound to it
	sent               bool
	cookie             [macSize]byte
	cookieUntil        time.Duration
}

func newSenderMACs(peer uapi.PublicKey) senderMACs {
	return senderMACs{mac1Key: mac1Key(peer), cookieKey: cookieKey(peer)}
}

// add writes both codes into a message.
func (s *senderMACs) add(message []byte, now time.Duration) {
	body, withMAC1, mac1, mac2 := splitMACs(message)
	s.last, s.sent = mac(s.mac1Key[:], body), true
	copy(mac1, s.last[:])
	clear(mac2)
	if now < s.cookieUntil {
		code := mac(s.cookie[:], withMAC1)
		copy(mac2, code[:])
	}
}

// consume takes the cookie from a reply, and tells whether it was one to the
// last message.
func (s *senderMACs) consume(reply []byte, now time.Duration) bool {
	if !s.sent {
		return false
	}
	aead, err := chacha20poly1305.NewX(s.cookieKey[:])
	if err != nil {
		panic(err) // the key's size is right
	}
	nonce, sealed := reply[8:32], reply[32:cookieReplySize]
	cookie, err := aead.Open(nil, nonce, sealed, s.last[:])
	if err != nil {
		return false
	}
	s.cookie, s.cookieUntil = [macSize]byte(cookie), now+cookieTime
	return true
}

// receiverMACs checks the codes of messages that come.
type receiverMACs struct {
	// Of the threads that receive, in turn.
	mac1 hash.Hash
	code [macSize]byte

	cookieKey [blake2s.Size]byte

	// The rest is of the goroutine that answers handshakes.
	secret      [blake2s.Size]byte
	secretUntil time.Duration
}

func newReceiverMACs(own uapi.PublicKey) receiverMACs {
	key := mac1Key(own)
	return receiverMACs{mac1: keyedHash(key[:]), cookieKey: cookieKey(own)}
}

// validMAC1 allocates nothing: every message of a flood comes here.
func (r *receiverMACs) validMAC1(message []byte) bool {
	body, _, mac1, _ := splitMACs(message)
	r.mac1.Reset()
	r.mac1.Write(body)
	return subtle.ConstantTimeCompare(r.mac1.Sum(r.code[:0]), mac1) == 1
}

// validMAC2 tells whether the sender has the cookie for its address.
func (r *receiverMACs) validMAC2(message, address []byte, now time.Duration) bool {
	if now >= r.secretUntil {
		return false
	}
	_, withMAC1, _, mac2 := splitMACs(message)
	cookie := mac(r.secret[:], address)
	code := mac(cookie[:], withMAC1)
	return subtle.ConstantTimeCompare(code[:], mac2) == 1
}

// cookieReply answers a message with the cookie for its sender's address.
func (r *receiverMACs) cookieReply(message, address []byte, now time.Duration) []byte {
	if now >= r.secretUntil {
		_, _ = rand.Read(r.secret[:])
		r.secretUntil = now + cookieTime
	}
	aead, err := chacha20poly1305.NewX(r.cookieKey[:])
	if err != nil {
		panic(err) // the key's size is right
	}
	reply := make([]byte, 32, cookieReplySize)
	reply[0] = typeCookie
	binary.LittleEndian.PutUint32(reply[4:], senderOf(message))
	_, _ = rand.Read(reply[8:32])
	_, _, mac1, _ := splitMACs(message)
	cookie := mac(r.secret[:], address)
	return aead.Seal(reply, reply[8:32], cookie[:], mac1)
}
