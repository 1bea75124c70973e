// Package watch keeps the peers of a tunnel within reach while the host around it
// changes. WireGuard itself goes on sending from an address that is gone, and
// tries again by timers that take up to five seconds, or minutes of sleep.
//
//	rtnetlink: links, addresses, routes ──┐ (settle)
//	clock: set, or awake again ───────────┤
//	engine: trouble ──────────────────────┼──▶ look ──▶ judge ──▶ call
//	timer: 1 s while a call is open,      │    engine's state,
//	  10 s while packets pass, else ──────┘    path to each endpoint
//	  longer each time                           └──▶ seek ──▶ resolve ──▶ call there
//
// A call makes the engine forget the source it sent from, its session keys and
// when it last called, and so begin a handshake now. It is said in UAPI alone, so
// any engine does it.
package watch

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"wireguard4netns/conf"
	"wireguard4netns/internal/host"
	"wireguard4netns/internal/plan"
	"wireguard4netns/internal/uapi"
)

// settle is how long to wait after a change of the host's network for those that
// come with it: an address and its routes are several messages.
const settle = 100 * time.Millisecond

// Engine is what is watched over.
type Engine interface {
	Get(ctx context.Context) ([]byte, error)
	Set(ctx context.Context, body []byte) error
	// Trouble has a token when a peer does not answer, or packets are too large
	// for the way to it.
	Trouble() <-chan struct{}
}

// Config says what is watched.
type Config struct {
	Engine Engine
	// Routes gets the routes to all endpoints when one of them has changed.
	Routes func([]plan.Route)
	// Endpoint returns where the configuration has a peer, which is what the user
	// said last; zero: nowhere. It is asked at each look.
	Endpoint func(uapi.PublicKey) conf.Endpoint
	// Looked gets the peers as they are at each look.
	Looked func(at time.Time, peers []uapi.Peer)
	Log    func(line string)
	// Resolutions counts how lookups of names ended; nil: they are not counted.
	Resolutions *Resolutions

	seams
}

// seams are what a test puts in the place of the machine's clock.
type seams struct {
	patience patience
	slept    func() time.Duration
	jumps    chan struct{} // holds one
}

type watcher struct {
	Config
	clock  *sleepClock
	routes []plan.Route // as last told
	peers  map[uapi.PublicKey]*memory
	rest   rest

	helpers   sync.WaitGroup
	resolving map[uapi.PublicKey]bool
	answers   chan answer
}

// Run watches until ctx ends.
func Run(ctx context.Context, c Config) {
	if c.slept == nil {
		c.slept, c.jumps = timeAsleep, make(chan struct{}, 1)
	}
	if c.patience == (patience{}) {
		c.patience = patient
	}
	w := &watcher{
		Config: c, clock: newSleepClock(c.slept), peers: map[uapi.PublicKey]*memory{},
		resolving: map[uapi.PublicKey]bool{}, answers: make(chan answer),
	}
	defer w.helpers.Wait()
	changes := make(chan struct{}, 1)
	w.listen(ctx, "the host's network", changes, hostChanges)
	w.listen(ctx, "the clock", c.jumps, clockJumps)
	for pause := time.Duration(0); ctx.Err() == nil; {
		var cause cause
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-changes:
			cause.changed = true
			gather(ctx, changes)
		case <-c.jumps:
		case <-c.Engine.Trouble():
			cause.trouble = true
		case a := <-w.answers:
			w.use(ctx, a)
		case <-timer.C:
		}
		timer.Stop()
		pause = w.look(ctx, cause)
	}
}

// listen has a helper put events into a channel.
func (w *watcher) listen(ctx context.Context, to string, events chan<- struct{}, source func(context.Context, chan<- struct{}) error) {
	w.helpers.Go(func() {
		if err := source(ctx, events); err != nil {
			w.Log(fmt.Sprintf("watch %s: %v", to, err))
		}
	})
}

// gather waits for the changes that come with one.
func gather(ctx context.Context, changes <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-time.After(settle):
	}
	select {
	case <-changes:
	default:
	}
}

// cause is why there is a look: the host's network has changed, the engine is in
// trouble, or neither.
type cause struct{ changed, trouble bool }

// round is one look at all peers.
type round struct {
	cause
	now    time.Time
	woke   bool
	call   []uapi.Peer
	routes []plan.Route
	passed uint64        // bytes, of all peers
	pause  time.Duration // until the next
}

// look looks at all peers, calls those that judge says, and returns when to look
// again.
func (w *watcher) look(ctx context.Context, c cause) (pause time.Duration) {
	d, err := w.device(ctx)
	if err != nil {
		return busyPause
	}
	r := &round{cause: c, now: time.Now(), woke: w.clock.woke(), pause: restPause}
	before := w.peers
	w.peers = make(map[uapi.PublicKey]*memory, len(d.Peers))
	for _, p := range d.Peers {
		m := before[p.PublicKey]
		if m == nil {
			m = new(memory)
		}
		w.peers[p.PublicKey] = m
		w.lookAt(ctx, r, p, m)
	}
	if w.Looked != nil {
		w.Looked(r.now, d.Peers)
	}
	slices.SortFunc(r.routes, func(a, b plan.Route) int { return a.Addr.Compare(b.Addr) })
	if !slices.Equal(r.routes, w.routes) {
		w.routes = r.routes
		w.Routes(r.routes)
	}
	if len(r.call) > 0 {
		w.call(ctx, d, r.call)
	}
	return min(r.pause, w.rest.next(r.passed))
}

func (w *watcher) lookAt(ctx context.Context, r *round, p uapi.Peer, m *memory) {
	s := seen{endpoint: p.Endpoint, handshake: p.LastHandshake, sent: p.TxBytes}
	r.passed += p.TxBytes + p.RxBytes
	if p.Endpoint.IsValid() {
		s.path = host.PathTo(p.Endpoint)
		r.routes = append(r.routes, plan.Route{Addr: p.Endpoint, MTU: s.path.MTU})
	}
	call := m.judge(r.now, s, r.woke)
	if w.seek(ctx, r, p.PublicKey, s, m) == ask {
		call = true
	}
	if call {
		r.call = append(r.call, p)
	}
	if m.open() {
		r.pause = min(r.pause, callPause)
	}
}

// seek looks for a peer that has fallen silent.
func (w *watcher) seek(ctx context.Context, r *round, peer uapi.PublicKey, s seen, m *memory) step {
	of := w.Endpoint(peer)
	if of.IsZero() {
		return stay
	}
	if m.search.of != of {
		m.search = search{of: of} // the user knows better
	}
	if at, ok := of.AddrPort(); ok {
		s.address = at
	}
	do := m.search.step(r.now, s, w.patience, r.cause)
	if woken := r.woke && !s.address.IsValid(); do == leave || woken {
		w.resolve(ctx, peer, of, do == leave)
	}
	if pause := m.search.pause(r.now, s, w.patience); pause > 0 {
		r.pause = min(r.pause, pause)
	}
	return do
}

func (w *watcher) device(ctx context.Context) (uapi.Device, error) {
	body, err := w.Engine.Get(ctx)
	if err != nil {
		return uapi.Device{}, err
	}
	defer clear(body)
	return uapi.Parse(bytes.NewReader(body))
}

// call calls peers of d at their endpoints.
func (w *watcher) call(ctx context.Context, d uapi.Device, peers []uapi.Peer) {
	if err := w.Engine.Set(ctx, calls(d, peers, time.Now())); err != nil && ctx.Err() == nil {
		w.Log(fmt.Sprintf("call peers: %v", err))
	}
}

// calls is the request that has an engine call peers of d. The endpoint, be it the
// same as before, drops the source; a keepalive that is turned on is sent at once
// and needs a session. Another private key, for a moment, expires the sessions, but
// those of all peers: it is left out where another peer has one to lose. Then the
// keepalive goes by the session that there is, and so tells the peer where we are
// now; if the peer has lost it, the engine finds out by the silence.
func calls(d uapi.Device, peers []uapi.Peer, now time.Time) []byte {
	var body []byte
	var u uapi.Update
	if !d.PrivateKey.IsZero() && !otherSession(d, peers, now) {
		body = uapi.Update{PrivateKey: new(uapi.Secret)}.Body()
		u.PrivateKey = &d.PrivateKey
	}
	for _, p := range peers {
		first, second := time.Second, p.PersistentKeepalive
		if second != 0 {
			first = 0
		}
		u.Peers = append(u.Peers,
			uapi.PeerUpdate{PublicKey: p.PublicKey, UpdateOnly: true, Endpoint: p.Endpoint, PersistentKeepalive: &first},
			uapi.PeerUpdate{PublicKey: p.PublicKey, UpdateOnly: true, PersistentKeepalive: &second})
	}
	return append(body, u.Body()...)
}

// lifetime is how long a session can be used (whitepaper, 6.1: Reject-After-Time).
const lifetime = 180 * time.Second

// otherSession tells whether a peer of d that is not called has a session.
func otherSession(d uapi.Device, called []uapi.Peer, now time.Time) bool {
	return slices.ContainsFunc(d.Peers, func(p uapi.Peer) bool {
		return now.Sub(p.LastHandshake) < lifetime &&
			!slices.ContainsFunc(called, func(c uapi.Peer) bool { return c.PublicKey == p.PublicKey })
	})
}
