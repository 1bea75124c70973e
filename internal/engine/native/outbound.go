package native

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// largest is the largest packet that a TUN device hands over.
const largest = 1<<16 - 1

// outbound is the way of packets from the link to peers, in one thread:
//
//	link.read ──▶ splitter ──▶ route ──▶ outbox.add ──▶ outbox.flush
//	one packet    packets of    by its   seals each     one sendmsg for
//	≤ 64 KiB      the MTU       dst.                    a run of them
//
// It reads on while there is something, and sends when a run is full or there is
// nothing more: nothing waits for company.
type outbound struct {
	device *device
	link   *link
	box    *outbox
	split  splitter
	buffer [vnetSize + largest + 16]byte // the outbox borrows what is behind a packet
}

// drain moves what the link has, until it has no more or the thread has been at it
// for a while (nil), or it is gone.
func (o *outbound) drain() error {
	now := o.device.now()
	defer func() { o.box.flush(now) }()
	for range drainCalls {
		n, err := o.link.read(o.buffer[:vnetSize+largest])
		switch {
		case err == nil:
			now = o.device.now()
			o.take(o.buffer[:n], now)
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR):
		default:
			return err
		}
	}
	return nil
}

// take moves what was read at once: one packet, or a large one.
func (o *outbound) take(b []byte, now time.Duration) {
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
