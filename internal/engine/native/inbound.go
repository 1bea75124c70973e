package native

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of a batch: bytes, after which nothing more is received; receives; and
// messages that are opened before they are delivered.
const (
	batchSize   = 64 << 10
	maxReceives = 64
	maxOpened   = 128
)

// inbound is the way of packets from peers to the link, in one thread of a crew:
//
//	take                work, in place                       give
//	socket.receive ──▶ session ──▶ open ──▶ checksums ──▶ delivery (deliver.go)
//	datagrams of       by index              of TCP, UDP
//	one sender each
//
// Handshake messages take long: they go to another goroutine (answerer).
type inbound struct {
	device   *device
	wire     *socket
	receiver receiver
	delivery *delivery // of all threads; used in turn
	nonce    nonce

	received []received
	opened   []opened
	used     int // of the buffer
	buffer   [batchSize + largest]byte
}

// What is received at once are datagrams of one sender, of segment bytes each, but
// the last, which may be shorter; or one, if segment is zero.
type received struct {
	from    origin
	payload []byte
	segment int
}

func newInbound(d *device, s *socket, to *delivery) *inbound {
	return &inbound{device: d, wire: s, delivery: to, received: make([]received, 0, maxReceives), opened: make([]opened, 0, maxOpened)}
}

func (in *inbound) take() (found, dry bool, err error) {
	in.received, in.used = in.received[:0], 0
	for range maxReceives {
		if in.used >= batchSize {
			break
		}
		r := &in.received[:len(in.received)+1][len(in.received)]
		b := in.buffer[in.used:][:largest]
		n, segment, err := in.wire.receive(&in.receiver, &r.from, b)
		if errors.Is(err, unix.EAGAIN) {
			dry = true
			break
		}
		if err != nil {
			// What a datagram sent earlier has met (icmp(7)): it says nothing
			// about the next.
			continue
		}
		in.add(b[:n:n], segment)
	}
	return len(in.received) > 0, dry, nil
}

// add adds to the batch what was received, whose sender is noted already.
func (in *inbound) add(payload []byte, segment int) {
	in.received = in.received[:len(in.received)+1]
	r := &in.received[len(in.received)-1]
	r.payload, r.segment = payload, segment
	// Each begins on a line of the processor's cache.
	in.used += (len(payload) + 63) &^ 63
}

func (in *inbound) work(t *turn) {
	now := in.device.now()
	for i := range in.received {
		r := &in.received[i]
		segment := r.segment
		if segment == 0 {
			segment = len(r.payload)
		}
		for b := r.payload; len(b) > 0; {
			n := min(segment, len(b))
			if len(in.opened) == maxOpened {
				t.await()
				in.deliver(now)
			}
			in.message(b[:n:n], &r.from, now, t)
			b = b[n:]
		}
	}
}

func (in *inbound) message(b []byte, from *origin, now time.Duration, t *turn) {
	switch kindOf(b) {
	case typeTransport:
		in.transport(b, from, now)
	case typeInitiation, typeResponse, typeCookie:
		t.await() // the answerer is one for all threads
		in.device.answerer.offer(b, from, now)
	}
}

func (in *inbound) transport(b []byte, from *origin, now time.Duration) {
	kp := in.session(receiverOf(b))
	if kp == nil || now >= kp.rejectAt {
		return
	}
	plain, ok := kp.open(b, &in.nonce)
	if !ok {
		return
	}
	in.opened = in.opened[:len(in.opened)+1]
	o := &in.opened[len(in.opened)-1]
	*o = opened{keypair: kp, from: from, counter: counterOf(b), size: len(b), empty: len(plain) == 0}
	packet, source := trim(plain)
	if o.source = source; source.IsValid() {
		in.delivery.coalescer.examine(packet, &o.flow)
	}
}

// session finds the one that a message is for; often that of the message before.
func (in *inbound) session(index uint32) *keypair {
	if n := len(in.opened); n > 0 && in.opened[n-1].keypair.local == index {
		return in.opened[n-1].keypair
	}
	return in.device.sessions.find(index).keypair
}

func (in *inbound) give(bool) {
	now := in.device.now()
	in.deliver(now)
	in.delivery.flush(now)
}

func (in *inbound) deliver(now time.Duration) {
	for i := range in.opened {
		in.delivery.take(&in.opened[i], now)
	}
	in.opened = in.opened[:0]
}
