package native

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"

	"wireguard4netns/internal/uapi"
)

// A device is WireGuard without its surroundings: identity, peers, routes to
// them and sessions. It sends on a wire; what comes is given to an inbound, what
// is to go to an outbound.
type device struct {
	epoch  time.Time
	mtu    int
	limits Limits
	wire   wire
	logf   func(format string, args ...any)
	loud   bool
	told   func()       // Options.Trouble
	when   atomic.Int64 // that was

	// What all threads use without a lock.
	identity atomic.Pointer[identity]
	routes   atomic.Pointer[bart.Table[*peer]]

	sessions sessions
	answerer answerer
	aside    aside
	waiting  atomic.Int64 // bytes in the peers' queues

	mu    sync.RWMutex // guards what follows
	peers map[uapi.PublicKey]*peer
}

func newDevice(w wire, o Options) *device {
	d := &device{epoch: time.Now(), mtu: o.MTU, wire: w, loud: o.Verbose, told: o.Trouble, peers: make(map[uapi.PublicKey]*peer)}
	d.logf = func(format string, args ...any) {
		if o.Log != nil {
			o.Log(fmt.Sprintf(format, args...))
		}
	}
	if d.limits = Protocol(); o.Limits != nil {
		d.limits = *o.Limits
	}
	d.routes.Store(new(bart.Table[*peer]))
	d.sessions.slots = make(map[uint32]slot)
	d.answerer.init(d)
	d.aside.box.wire, d.aside.box.mtu = w, d.mtu
	return d
}

// now is the time of the engine, which began at zero.
func (d *device) now() time.Duration { return time.Since(d.epoch) }

func (d *device) log(format string, args ...any) { d.logf(format, args...) }

// verbose logs what is of use to who looks for a fault.
func (d *device) verbose(format string, args ...any) {
	if d.loud {
		d.logf(format, args...)
	}
}

// trouble tells that a look at the way to the peers is worth while.
func (d *device) trouble() {
	now, last := int64(d.now()), d.when.Load()
	if d.told != nil && (last == 0 || now-last >= int64(time.Second)) && d.when.CompareAndSwap(last, now) {
		d.told()
	}
}

func (d *device) lookup(key uapi.PublicKey) *peer {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.peers[key]
}

// all returns the peers in no order.
func (d *device) all() []*peer {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Collect(maps.Values(d.peers))
}

func (d *device) add(key uapi.PublicKey) *peer {
	p := newPeer(d, key)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.peers[key] = p
	return p
}

// remove ends a peer. Its routes go first, so that nothing new reaches it.
func (d *device) remove(p *peer) {
	d.disallowAll(p)
	d.mu.Lock()
	delete(d.peers, p.key)
	d.mu.Unlock()
	p.remove()
}

// setIdentity changes the device's own key: no session of the old one goes on.
func (d *device) setIdentity(private uapi.Secret) {
	id := newIdentity(private)
	old := d.identity.Load()
	if old == nil && id == nil || old != nil && id != nil && old.private == id.private {
		return
	}
	d.identity.Store(id)
	if id != nil {
		if self := d.lookup(id.public); self != nil {
			d.remove(self)
		}
	}
	for _, p := range d.all() {
		p.expire()
	}
}
