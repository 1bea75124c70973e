package native

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// batchSize is how much is received before it is delivered, if more is there: it
// is for small packets, of which each comes by a call of its own.
const batchSize = 64 << 10

// inbound is the way of packets from peers to the link, in one thread:
//
//	socket.receive ──▶ session ──▶ open ──▶ source ──▶ coalescer ──▶ link.deliver
//	datagrams of       by index,   in       is the     by flow       one writev for
//	one sender         replay      place    peer's                   up to 64 packets
//
// Handshake messages take long: they go to another goroutine (answerer).
type inbound struct {
	device    *device
	wire      *socket
	receiver  receiver
	coalescer coalescer
	nonce     nonce

	from   origin
	sender *endpoint // made of from when first needed

	// A run is what came in a row with one session.
	last   *keypair
	size   int
	data   bool
	placed bool // its sender is where the peer is

	buffer [batchSize + largest]byte
}

// drain moves what the socket has, until it has no more or the thread has been at it
// for a while.
func (in *inbound) drain() error {
	used := 0
	for range drainCalls {
		n, segment, err := in.wire.receive(&in.receiver, &in.from, in.buffer[used:][:largest])
		switch {
		case err == nil:
			in.take(in.buffer[used:used+n], segment, in.device.now())
			// Packets stay in the buffer until the flush; each begins on a
			// line of the processor's cache.
			used += (n + 63) &^ 63
			if used < batchSize {
				continue
			}
		case errors.Is(err, unix.EAGAIN):
			in.coalescer.flush()
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		default:
			// What a datagram sent earlier has met (icmp(7)): it says nothing
			// about the next.
			continue
		}
		in.coalescer.flush()
		used = 0
	}
	in.coalescer.flush()
	return nil
}

// take takes the datagrams of one sender: of segment bytes each, but the last.
func (in *inbound) take(b []byte, segment int, now time.Duration) {
	in.sender = nil
	if segment == 0 {
		segment = len(b)
	}
	for len(b) > 0 {
		n := min(segment, len(b))
		in.message(b[:n:n], now)
		b = b[n:]
	}
	in.endRun(now)
}

func (in *inbound) message(b []byte, now time.Duration) {
	switch kindOf(b) {
	case typeTransport:
		in.transport(b, now)
	case typeInitiation, typeResponse, typeCookie:
		in.device.answerer.offer(b, &in.from, now)
	}
}

func (in *inbound) transport(b []byte, now time.Duration) {
	kp := in.last
	if index := receiverOf(b); kp == nil || kp.local != index {
		if kp = in.device.sessions.find(index).keypair; kp == nil {
			return
		}
	}
	if now >= kp.rejectAt {
		return
	}
	plain, ok := kp.open(b, &in.nonce)
	if !ok {
		return
	}
	if kp != in.last {
		in.endRun(now)
		in.last = kp
	}
	if kp.ahead(counterOf(b)) && !in.placed {
		in.place(kp)
	}
	if !kp.confirmed {
		kp.confirmed = true
		kp.peer.confirm(kp, now)
	}
	in.size += len(b)
	if len(plain) == 0 {
		in.device.verbose("%v - received keepalive", kp.peer)
		return
	}
	in.data = true
	packet, source := trim(plain)
	if !source.IsValid() || in.device.route(source) != kp.peer {
		in.device.verbose("%v - packet whose source is not among its allowed IPs", kp.peer)
		return
	}
	in.coalescer.add(packet)
}

// place notes where the peer is: where its newest message came from. One that was
// long on its way says where the peer was; whoever keeps it back could say anything
// (as RFC 9000, 9.3, has it for QUIC).
func (in *inbound) place(kp *keypair) {
	in.placed = true
	p := kp.peer
	if kp.born < p.newest {
		return
	}
	p.newest = kp.born
	if !p.endpoint.Load().is(&in.from) {
		p.endpoint.Store(in.endpoint())
	}
}

func (in *inbound) endRun(now time.Duration) {
	if in.last != nil {
		in.last.peer.noteReceived(in.last, in.size, in.data, now)
		in.last, in.size, in.data, in.placed = nil, 0, false, false
	}
}

// endpoint is where the datagrams came from.
func (in *inbound) endpoint() *endpoint {
	if in.sender == nil {
		in.sender = &endpoint{origin: in.from, sticky: true}
	}
	return in.sender
}

// route finds the peer for an address, nil if there is none.
func (d *device) route(a netip.Addr) *peer {
	p, _ := d.routes.Load().Lookup(a)
	return p
}
