// Package enginetest is what tests put at the other end of an engine's socket:
//
//	Party   WireGuard by hand: one message at a time, right or wrong
//	Relay   a wire between two ends that loses, delays, changes … datagrams
//
// It is for tests alone, and knows no engine.
package enginetest

import (
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/flynn/noise"
	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.zx2c4.com/wireguard/tai64n"
)

// Types of messages, and the sizes of those that have one (whitepaper, 5.4).
const (
	Initiation = 1
	Response   = 2
	Cookie     = 3
	Transport  = 4

	InitiationSize = 148
	ResponseSize   = 92
	CookieSize     = 64
	HeaderSize     = 16 // of a transport message
	TagSize        = 16
	macSize        = 16
)

// Kind is the type of a message, zero if it is too short to have one.
func Kind(message []byte) int {
	if len(message) < 32 {
		return 0
	}
	return int(binary.LittleEndian.Uint32(message))
}

// A Party is one end of a tunnel, as WireGuard's whitepaper has it. It keeps no
// session and no timer: what is sent, and when, is the test's.
type Party struct {
	static    noise.DHKey
	other     [32]byte // public key of the engine
	psk       [32]byte
	lastMAC1  [macSize]byte
	cookie    [macSize]byte
	hasCookie bool
	Now       func() time.Time // of timestamps
}

// NewParty returns a party with a key of its own, to speak to the engine with a
// public key.
func NewParty(other, psk [32]byte) *Party {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		panic(err) // crypto/rand does not fail on Linux
	}
	return &Party{
		static: noise.DHKey{Private: key.Bytes(), Public: key.PublicKey().Bytes()},
		other:  other, psk: psk, Now: time.Now,
	}
}

// PublicKey is the party's own.
func (p *Party) PublicKey() [32]byte { return [32]byte(p.static.Public) }

// SetOther has the party speak to another public key, with another preshared key.
func (p *Party) SetOther(other, psk [32]byte) { p.other, p.psk = other, psk }

func (p *Party) config(initiator bool) noise.Config {
	c := noise.Config{
		CipherSuite:   noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashBLAKE2s),
		Pattern:       noise.HandshakeIK,
		Prologue:      []byte("WireGuard v1 zx2c4 Jason@zx2c4.com"),
		StaticKeypair: p.static, Initiator: initiator,
		PresharedKey: p.psk[:], PresharedKeyPlacement: 2,
	}
	if initiator {
		c.PeerStatic = p.other[:]
	}
	return c
}

// A Handshake waits for the response to an initiation.
type Handshake struct {
	party   *Party
	state   *noise.HandshakeState
	index   uint32
	Message []byte
}

// Initiate makes an initiation, with both codes.
func (p *Party) Initiate(index uint32) (*Handshake, error) {
	state, err := noise.NewHandshakeState(p.config(true))
	if err != nil {
		return nil, err
	}
	t := timestamp(p.Now())
	message := make([]byte, 8, InitiationSize)
	message[0] = Initiation
	binary.LittleEndian.PutUint32(message[4:], index)
	if message, _, _, err = state.WriteMessage(message, t[:]); err != nil {
		return nil, err
	}
	message = message[:InitiationSize]
	p.Sign(message)
	return &Handshake{p, state, index, message}, nil
}

// timestamp is TAI64N of any time; package tai64n knows now alone. All bits
// count, which WireGuard's own senders whiten.
func timestamp(t time.Time) (stamp tai64n.Timestamp) {
	binary.BigEndian.PutUint64(stamp[:], 0x400000000000000a+uint64(t.Unix()))
	binary.BigEndian.PutUint32(stamp[8:], uint32(t.Nanosecond()))
	return stamp
}

// Finish reads the response.
func (h *Handshake) Finish(response []byte) (*Session, error) {
	if Kind(response) != Response || len(response) != ResponseSize || binary.LittleEndian.Uint32(response[8:]) != h.index {
		return nil, errors.New("not the response")
	}
	_, send, receive, err := h.state.ReadMessage(nil, response[12:ResponseSize-2*macSize])
	if err != nil {
		return nil, err
	}
	return newSession(h.index, binary.LittleEndian.Uint32(response[4:]), send, receive), nil
}

// Respond reads an initiation and makes the response, with both codes.
func (p *Party) Respond(initiation []byte, index uint32) ([]byte, *Session, error) {
	if Kind(initiation) != Initiation || len(initiation) != InitiationSize {
		return nil, nil, errors.New("not an initiation")
	}
	state, err := noise.NewHandshakeState(p.config(false))
	if err != nil {
		return nil, nil, err
	}
	if _, _, _, err := state.ReadMessage(nil, initiation[8:InitiationSize-2*macSize]); err != nil {
		return nil, nil, err
	}
	if [32]byte(state.PeerStatic()) != p.other {
		return nil, nil, errors.New("an initiation of somebody else")
	}
	remote := binary.LittleEndian.Uint32(initiation[4:])
	message := make([]byte, 12, ResponseSize)
	message[0] = Response
	binary.LittleEndian.PutUint32(message[4:], index)
	binary.LittleEndian.PutUint32(message[8:], remote)
	message, receive, send, err := state.WriteMessage(message, nil)
	if err != nil {
		return nil, nil, err
	}
	message = message[:ResponseSize]
	p.Sign(message)
	return message, newSession(index, remote, send, receive), nil
}

// Sign writes the two codes at the end of a handshake message: mac1 as the
// engine expects it, mac2 if there is a cookie.
func (p *Party) Sign(message []byte) {
	n := len(message)
	key := blake2s.Sum256(append([]byte("mac1----"), p.other[:]...))
	p.lastMAC1 = code(key[:], message[:n-2*macSize])
	copy(message[n-2*macSize:], p.lastMAC1[:])
	clear(message[n-macSize:])
	if p.hasCookie {
		mac2 := code(p.cookie[:], message[:n-macSize])
		copy(message[n-macSize:], mac2[:])
	}
}

func code(key, text []byte) (mac [macSize]byte) {
	h, err := blake2s.New128(key)
	if err != nil {
		panic(err) // the key's size is right
	}
	h.Write(text)
	h.Sum(mac[:0])
	return mac
}

// TakeCookie reads the reply to the message that was signed last. From then on
// messages have mac2.
func (p *Party) TakeCookie(reply []byte) error {
	if Kind(reply) != Cookie || len(reply) != CookieSize {
		return errors.New("not a cookie")
	}
	key := blake2s.Sum256(append([]byte("cookie--"), p.other[:]...))
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return err
	}
	cookie, err := aead.Open(nil, reply[8:32], reply[32:], p.lastMAC1[:])
	if err != nil {
		return fmt.Errorf("open cookie: %w", err)
	}
	p.cookie, p.hasCookie = [macSize]byte(cookie), true
	return nil
}

// MakeCookie makes the reply that asks the sender of a message for a cookie.
func (p *Party) MakeCookie(message []byte, cookie [macSize]byte) []byte {
	key := blake2s.Sum256(append([]byte("cookie--"), p.static.Public...))
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		panic(err) // the key's size is right
	}
	reply := make([]byte, 32, CookieSize)
	reply[0] = Cookie
	copy(reply[4:8], message[4:8])
	_, _ = rand.Read(reply[8:32])
	n := len(message)
	return aead.Seal(reply, reply[8:32], cookie[:], message[n-2*macSize:n-macSize])
}

// A Session is a pair of keys. It checks no counter.
type Session struct {
	Local, Remote uint32 // indices
	Counter       uint64 // of the next message
	sealer        cipher.AEAD
	opener        cipher.AEAD
}

func newSession(local, remote uint32, send, receive *noise.CipherState) *Session {
	s := &Session{Local: local, Remote: remote}
	s.sealer, s.opener = aeadOf(send), aeadOf(receive)
	return s
}

func aeadOf(c *noise.CipherState) cipher.AEAD {
	key := c.UnsafeKey()
	aead, err := chacha20poly1305.New(key[:])
	if err != nil {
		panic(err) // the key's size is right
	}
	return aead
}

func nonce(counter uint64) []byte {
	return binary.LittleEndian.AppendUint64(make([]byte, 4, 12), counter)
}

// Seal makes the next transport message. No packet is a keepalive.
func (s *Session) Seal(packet []byte) []byte {
	s.Counter++
	return s.SealAs(s.Counter-1, packet)
}

// SealAs makes a transport message with any counter.
func (s *Session) SealAs(counter uint64, packet []byte) []byte {
	plain := append([]byte(nil), packet...)
	for len(plain)%16 != 0 {
		plain = append(plain, 0)
	}
	message := make([]byte, HeaderSize, HeaderSize+len(plain)+TagSize)
	message[0] = Transport
	binary.LittleEndian.PutUint32(message[4:], s.Remote)
	binary.LittleEndian.PutUint64(message[8:], counter)
	return s.sealer.Seal(message, nonce(counter), plain, nil)
}

// Open reads a transport message. The packet has its padding.
func (s *Session) Open(message []byte) (counter uint64, packet []byte, err error) {
	if Kind(message) != Transport || binary.LittleEndian.Uint32(message[4:]) != s.Local {
		return 0, nil, errors.New("not a message of this session")
	}
	counter = binary.LittleEndian.Uint64(message[8:])
	packet, err = s.opener.Open(nil, nonce(counter), message[HeaderSize:], nil)
	return counter, packet, err
}
