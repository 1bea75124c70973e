package native

import (
	"crypto/cipher"
	"encoding/binary"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.zx2c4.com/wireguard/replay"

	"wireguard4netns/internal/aead"
)

// A keypair is one session: the keys of both directions. All threads use it
// without a lock; only the peer decides which one is in use.
type keypair struct {
	peer          *peer
	local, remote uint32
	born          time.Duration
	lifetime

	sealer  cipher.AEAD
	counter atomic.Uint64 // of the next message

	opener cipher.AEAD

	// Of delivery.
	window    replay.Filter
	confirmed bool   // a message has come
	expected  uint64 // counter of the next, if none is lost
}

func newKeypair(p *peer, s *secrets, local, remote uint32, initiator bool, now time.Duration) *keypair {
	kp := &keypair{peer: p, local: local, remote: remote, born: now, lifetime: p.device.limits.from(now, initiator)}
	kp.sealer, kp.opener = newAEAD(&s.send), newAEAD(&s.receive)
	clear(s.send[:])
	clear(s.receive[:])
	return kp
}

func newAEAD(key *[keySize]byte) cipher.AEAD {
	a, err := aead.New(key[:])
	if err != nil {
		panic(err) // the key's size is right
	}
	return a
}

// expired tells whether the session may carry nothing any more.
func (kp *keypair) expired(now time.Duration) bool {
	return now >= kp.rejectAt || kp.counter.Load() >= kp.rejectMessages
}

// stale tells whether the next session should be on its way.
func (kp *keypair) stale(now time.Duration) bool {
	return now >= kp.rekeyAt || kp.counter.Load() > kp.rekeyMessages
}

// end has the session send nothing more.
func (kp *keypair) end() { kp.counter.Store(kp.rejectMessages) }

// seal appends the transport message for plain to dst, which must have the
// room and not overlap it. It returns nil when the session is used up. Nonce is
// the caller's scratch: it would escape from here.
func (kp *keypair) seal(dst, plain []byte, nonce *nonce) []byte {
	counter := kp.counter.Add(1) - 1
	if counter >= kp.rejectMessages {
		kp.end() // never round to zero
		return nil
	}
	n := len(dst)
	dst = dst[:n+headerSize]
	putTransport(dst[n:], kp.remote, counter)
	return kp.sealer.Seal(dst, nonce.of(counter), plain, nil)
}

// open decrypts a transport message in place and returns the plain text. It may have
// come before: see fresh.
func (kp *keypair) open(message []byte, nonce *nonce) ([]byte, bool) {
	counter := counterOf(message)
	if counter >= kp.rejectMessages {
		return nil, false
	}
	sealed := message[headerSize:]
	plain, err := kp.opener.Open(sealed[:0], nonce.of(counter), sealed, nil)
	return plain, err == nil
}

// fresh tells whether a message that was opened comes for the first time. It must
// have been opened: the window is for counters that are known to be the peer's.
func (kp *keypair) fresh(counter uint64) bool {
	return kp.window.ValidateCounter(counter, kp.rejectMessages)
}

// ahead tells whether a message that was opened is newer than those before it.
func (kp *keypair) ahead(counter uint64) bool {
	newer := counter >= kp.expected
	if newer {
		kp.expected = counter + 1
	}
	return newer
}

// nonce is the AEAD's: four zero bytes and the counter.
type nonce [chacha20poly1305.NonceSize]byte

func (n *nonce) of(counter uint64) []byte {
	binary.LittleEndian.PutUint64(n[4:], counter)
	return n[:]
}
