package native

import (
	"sync"
	"time"
)

// wire carries datagrams to other hosts: the UDP socket, or a test's.
type wire interface {
	// send sends a run of datagrams of segment bytes each, but the last, which
	// may be shorter.
	send(s *sender, to *endpoint, run []byte, segment int) error
}

// An outbox seals packets, one behind the other in one buffer, and sends those
// of one peer and one size with one system call (UDP_SEGMENT):
//
//	│ header packet tag │ header packet tag │ header packet tag │ hdr pkt tag │
//	├───── segment ─────┼───── segment ─────┼───── segment ─────┼─ the last ──┤
//
// A run ends when the next packet is for another session, or larger, or behind a
// shorter one, or does not fit; and at flush. One goroutine uses it at a time.
type outbox struct {
	wire   wire
	mtu    int
	turn   *turn // that is awaited before anything is sent
	sender sender
	nonce  nonce

	failed time.Duration // when a failure was logged

	keypair *keypair
	to      *endpoint
	segment int
	count   int
	short   bool // the last of the run is in
	data    bool // not only keepalives
	used    int
	buffer  [maxDatagram + overhead]byte
}

// add seals one packet; none is a keepalive. The bytes behind packet, up to a
// multiple of 16, are borrowed for the padding. False: the session is used up.
func (o *outbox) add(kp *keypair, to *endpoint, packet []byte, now time.Duration) bool {
	plain := packet[:paddedSize(len(packet), o.mtu)]
	size := len(plain) + overhead
	if size > maxDatagram {
		return true // no UDP packet can carry it
	}
	if o.used > 0 && (kp != o.keypair || o.short || size > o.segment ||
		o.count == maxSegments || o.used+size > maxDatagram) {
		o.flush(now)
	}
	var behind [16]byte
	padding := plain[len(packet):]
	copy(behind[:], padding)
	clear(padding)
	sealed := kp.seal(o.buffer[:o.used], plain, &o.nonce)
	copy(padding, behind[:])
	if sealed == nil {
		return false
	}
	if o.used == 0 {
		o.keypair, o.to, o.segment = kp, to, size
	}
	o.used = len(sealed)
	o.count++
	o.short = size < o.segment
	o.data = o.data || len(packet) > 0
	return true
}

// flush sends what there is, in turn.
func (o *outbox) flush(now time.Duration) {
	o.turn.await()
	if o.used == 0 {
		return
	}
	p := o.keypair.peer
	if err := o.post(p, o.to, o.buffer[:o.used], o.segment); err != nil && (o.failed == 0 || now-o.failed >= time.Second) {
		o.failed = now
		p.device.verbose("%v - send packets: %v", p, err)
	}
	p.noteSent(o.used, o.data, now)
	o.keypair, o.to = nil, nil
	o.used, o.count, o.short, o.data = 0, 0, false, false
}

// post sends a run of messages that are sealed already to p. If that fails, the
// source may be an address that the host has no more: then any will do.
func (o *outbox) post(p *peer, to *endpoint, run []byte, segment int) error {
	err := o.wire.send(&o.sender, to, run, segment)
	if err != nil && to.sticky {
		p.endpoint.CompareAndSwap(to, to.unstuck())
		err = o.wire.send(&o.sender, to.unstuck(), run, segment)
	}
	return err
}

// paddedSize is that of a packet rounded up to a multiple of 16, but not above
// the MTU (whitepaper, 5.4.6).
func paddedSize(n, mtu int) int {
	return max(n, min((n+15)&^15, mtu))
}

// aside is the outbox of all but the outbound threads: for handshakes,
// keepalives and packets that waited for a session.
type aside struct {
	mu  sync.Mutex
	box outbox
}

// send seals and sends packets at once, in order.
func (a *aside) send(kp *keypair, packet []byte, now time.Duration) {
	a.sendAll(kp, [][]byte{packet}, now)
}

func (a *aside) sendAll(kp *keypair, packets [][]byte, now time.Duration) {
	to := kp.peer.endpoint.Load()
	if to == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, packet := range packets {
		a.box.add(kp, to, packet, now)
	}
	a.box.flush(now)
}

// post sends one message that is sealed already.
func (a *aside) post(p *peer, to *endpoint, message []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.box.post(p, to, message, len(message))
}

// reply answers a message of nobody in particular.
func (a *aside) reply(to *endpoint, message []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = a.box.wire.send(&a.box.sender, to, message, len(message))
}
