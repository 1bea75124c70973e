package native

import (
	"net/netip"
	"time"
)

// An opened message is authentic, but may have come before.
type opened struct {
	keypair *keypair
	from    *origin
	counter uint64
	size    int
	empty   bool       // a keepalive
	source  netip.Addr // of the packet in it; invalid: there is none
	flow    flow
}

// delivery is the end of the way in, of all threads, which use it in turn:
//
//	replay ──▶ whose   ──▶ where   ──▶ coalescer ──▶ link.deliver
//	window     source      the peer    by flow       one writev for
//	           it is       is now                    up to 64 packets
type delivery struct {
	device    *device
	coalescer coalescer

	// A run is what came in a row with one session from one place.
	last   *keypair
	from   *origin
	size   int
	data   bool
	placed bool // its sender is where the peer is
}

func (d *delivery) take(o *opened, now time.Duration) {
	kp := o.keypair
	if !kp.fresh(o.counter) {
		return
	}
	if kp != d.last || o.from != d.from {
		d.endRun(now)
		d.last, d.from = kp, o.from
	}
	if kp.ahead(o.counter) && !d.placed {
		d.place()
	}
	if !kp.confirmed {
		kp.confirmed = true
		kp.peer.confirm(kp, now)
	}
	d.size += o.size
	if o.empty {
		d.device.verbose("%v - received keepalive", kp.peer)
		return
	}
	d.data = true
	if !o.source.IsValid() || d.device.route(o.source) != kp.peer {
		d.device.verbose("%v - packet whose source is not among its allowed IPs", kp.peer)
		return
	}
	d.coalescer.add(&o.flow)
}

// place notes where the peer is: where its newest message came from. One that was
// long on its way says where the peer was; whoever keeps it back could say anything
// (as RFC 9000, 9.3, has it for QUIC).
func (d *delivery) place() {
	d.placed = true
	p := d.last.peer
	if d.last.born < p.newest {
		return
	}
	p.newest = d.last.born
	if !p.endpoint.Load().is(d.from) {
		p.endpoint.Store(&endpoint{origin: *d.from, sticky: true})
	}
}

func (d *delivery) endRun(now time.Duration) {
	if d.last != nil {
		d.last.peer.noteReceived(d.last, d.size, d.data, now)
		d.last, d.from, d.size, d.data, d.placed = nil, nil, 0, false, false
	}
}

// flush delivers all there is.
func (d *delivery) flush(now time.Duration) {
	d.endRun(now)
	d.coalescer.flush()
}

// route finds the peer for an address, nil if there is none.
func (d *device) route(a netip.Addr) *peer {
	p, _ := d.routes.Load().Lookup(a)
	return p
}
