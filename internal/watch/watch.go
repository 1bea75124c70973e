// Package watch keeps the peers of a tunnel within reach while the host around it
// changes. WireGuard itself goes on sending from an address that is gone, and
// tries again by timers that take up to five seconds, or minutes of sleep.
//
//	rtnetlink: links, addresses, routes ──┐ (settle)
//	timer: 10 s, 1 s while a call is open ┼──▶ look ──▶ judge ──▶ call
//	clocks: the machine was asleep ───────┘    engine's state,
//	                                           path to each endpoint
//	                                             └──▶ due ──▶ resolve ──▶ call there
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
}

// Config says what is watched.
type Config struct {
	Engine Engine
	// Routes gets the routes to all endpoints when one of them has changed.
	Routes func([]plan.Route)
	// Names are the endpoints that have to be resolved, of peers that have one.
	Names map[uapi.PublicKey]conf.Endpoint
	Log   func(line string)
}

type watcher struct {
	Config
	clock  *sleepClock
	routes []plan.Route // as last told
	peers  map[uapi.PublicKey]*memory

	helpers   sync.WaitGroup
	resolving map[uapi.PublicKey]bool
	answers   chan answer
}

// Run watches until ctx ends.
func Run(ctx context.Context, c Config) {
	w := &watcher{
		Config: c, clock: newSleepClock(timeAsleep), peers: map[uapi.PublicKey]*memory{},
		resolving: map[uapi.PublicKey]bool{}, answers: make(chan answer),
	}
	defer w.helpers.Wait()
	changes := make(chan struct{}, 1)
	w.helpers.Go(func() {
		if err := hostChanges(ctx, changes); err != nil {
			c.Log(fmt.Sprintf("watch the host's network: %v", err))
		}
	})
	for pause := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-changes:
			select {
			case <-ctx.Done():
				return
			case <-time.After(settle):
			}
			select {
			case <-changes:
			default:
			}
		case a := <-w.answers:
			w.use(ctx, a)
		case <-time.After(pause):
		}
		pause = w.look(ctx)
	}
}

// look looks at all peers, calls those that judge says, and returns when to look
// again.
func (w *watcher) look(ctx context.Context) (pause time.Duration) {
	d, err := w.device(ctx)
	if err != nil {
		return restPause
	}
	now, woke := time.Now(), w.clock.woke()
	var call []uapi.Peer
	var routes []plan.Route
	before := w.peers
	w.peers = make(map[uapi.PublicKey]*memory, len(d.Peers))
	pause = restPause
	for _, p := range d.Peers {
		m := before[p.PublicKey]
		if m == nil {
			m = new(memory)
		}
		w.peers[p.PublicKey] = m
		s := seen{endpoint: p.Endpoint, handshake: p.LastHandshake, sent: p.TxBytes}
		if p.Endpoint.IsValid() {
			s.path = host.PathTo(p.Endpoint)
			routes = append(routes, plan.Route{Addr: p.Endpoint, MTU: s.path.MTU})
		}
		if m.judge(now, s, woke) {
			call = append(call, p)
		}
		if _, named := w.Names[p.PublicKey]; named {
			if away := m.search.due(now, s, stale); away || woke {
				w.resolve(ctx, p.PublicKey, away)
			}
		}
		pause = min(pause, m.pause())
	}
	slices.SortFunc(routes, func(a, b plan.Route) int { return a.Addr.Compare(b.Addr) })
	if !slices.Equal(routes, w.routes) {
		w.routes = routes
		w.Routes(routes)
	}
	if len(call) > 0 {
		w.call(ctx, d, call, true)
	}
	return pause
}

func (w *watcher) device(ctx context.Context) (uapi.Device, error) {
	body, err := w.Engine.Get(ctx)
	if err != nil {
		return uapi.Device{}, err
	}
	defer clear(body)
	return uapi.Parse(bytes.NewReader(body))
}

// call calls peers of d at their endpoints. With expire it does so at once, and
// the sessions of all peers of d have to be made anew.
func (w *watcher) call(ctx context.Context, d uapi.Device, peers []uapi.Peer, expire bool) {
	if err := w.Engine.Set(ctx, calls(d, peers, expire)); err != nil && ctx.Err() == nil {
		w.Log(fmt.Sprintf("call peers: %v", err))
	}
}

// calls is the request that has an engine call peers of d. Another private key,
// for a moment, expires the sessions of all peers; the endpoint, be it the same as
// before, drops the source; a keepalive that is turned on is sent at once and
// needs a session.
func calls(d uapi.Device, peers []uapi.Peer, expire bool) []byte {
	var body []byte
	var u uapi.Update
	if expire && !d.PrivateKey.IsZero() {
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
