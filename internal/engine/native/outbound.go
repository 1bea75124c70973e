package native

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of packets that are read before they are sealed.
const (
	largest  = 1<<16 - 1 // the largest that a TUN device hands over
	enough   = 32 << 10  // bytes, after which no more is read
	maxReads = 64
)

// outbound is the way of packets from the link to peers, in one thread of a crew:
//
//	take           work, in place                            give
//	link.read ──▶ splitter ──▶ route ──▶ outbox.add ──▶ outbox.flush
//	packets       packets of   by its    seals each      one sendmsg for
//	≤ 64 KiB      the MTU      dst.                      a run of them
//
// It sends when a run is full or there is nothing more: nothing waits for company.
type outbound struct {
	device *device
	link   *link
	box    *outbox
	split  splitter
	reads  [][]byte
	buffer [enough + vnetSize + largest + borrowed]byte
}

// borrowed is how many bytes behind a packet the outbox makes use of.
const borrowed = 16

func newOutbound(d *device, l *link) *outbound {
	return &outbound{device: d, link: l, box: &outbox{wire: d.wire, mtu: d.mtu}, reads: make([][]byte, 0, maxReads)}
}

func (o *outbound) take() (found, dry bool, err error) {
	o.reads = o.reads[:0]
	for used := 0; used < enough && len(o.reads) < maxReads; {
		b := o.buffer[used:]
		n, err := o.link.read(b[:vnetSize+largest])
		switch {
		case err == nil:
			o.reads = append(o.reads, b[:n])
			used += n + borrowed
		case errors.Is(err, unix.EAGAIN):
			return len(o.reads) > 0, true, nil
		case errors.Is(err, unix.EINTR):
		default:
			return false, false, err
		}
	}
	return true, false, nil
}

func (o *outbound) work(t *turn) {
	o.box.turn = t
	now := o.device.now()
	for _, b := range o.reads {
		o.packets(b, now)
	}
}

func (o *outbound) give(all bool) {
	if all {
		o.box.flush(o.device.now())
	}
}

// packets moves what was read at once: one packet, or a large one.
func (o *outbound) packets(b []byte, now time.Duration) {
	var h vnetHeader
	if o.link.vnet {
		if len(b) < vnetSize {
			return
		}
		h, b = readVnet(b), b[vnetSize:]
	}
	if h.gso == gsoNone {
		if len(b) > 0 && complete(h, b) == nil {
			o.route(b, now)
		}
		return
	}
	if o.split.init(h, b) != nil {
		return
	}
	for packet := o.split.next(); packet != nil; packet = o.split.next() {
		o.route(packet, now)
	}
}

// route hands a packet to the peer it is for.
func (o *outbound) route(packet []byte, now time.Duration) {
	p := o.device.route(destinationOf(packet))
	if p == nil {
		return
	}
	kp, to := p.usable(now), p.endpoint.Load()
	if kp == nil || to == nil || p.waiting.Load() || !o.box.add(kp, to, packet, now) {
		o.box.flush(now)
		p.wait(packet, now)
		return
	}
	if kp.stale(now) {
		p.call(now)
	}
}
