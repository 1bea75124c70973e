// Package watch keeps the peers of a tunnel within reach while the host around it
// changes. WireGuard itself goes on sending from an address that is gone, and
// tries again by timers that take up to five seconds, or minutes of sleep.
//
//	rtnetlink: links, addresses, routes ──┐ (settle)
//	timer: 10 s, 1 s while a call is open ┼──▶ look ──▶ judge ──▶ call
//	clocks: the machine was asleep ───────┘    engine's state,
//	                                           path to each endpoint
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
	Log    func(line string)
}

type watcher struct {
	Config
	clock  *sleepClock
	routes []plan.Route // as last told
	peers  map[uapi.PublicKey]*memory
}

// Run watches until ctx ends.
func Run(ctx context.Context, c Config) {
	var helpers sync.WaitGroup
	defer helpers.Wait()
	changes := make(chan struct{}, 1)
	helpers.Go(func() {
		if err := hostChanges(ctx, changes); err != nil {
			c.Log(fmt.Sprintf("watch the host's network: %v", err))
		}
	})
	w := &watcher{Config: c, clock: newSleepClock(timeAsleep), peers: map[uapi.PublicKey]*memory{}}
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
		case <-time.After(pause):
		}
		pause = w.look(ctx)
	}
}

// look looks at all peers, calls those that judge says, and returns when to look
// again.
func (w *watcher) look(ctx context.Context) (pause time.Duration) {
	body, err := w.Engine.Get(ctx)
	if err != nil {
		return restPause
	}
	d, err := uapi.Parse(bytes.NewReader(body))
	clear(body)
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
		s := seen{endpoint: p.Endpoint, handshake: p.LastHandshake}
		if p.Endpoint.IsValid() {
			s.path = host.PathTo(p.Endpoint)
			routes = append(routes, plan.Route{Addr: p.Endpoint, MTU: s.path.MTU})
		}
		if m.judge(now, s, woke) {
			call = append(call, p)
		}
		pause = min(pause, m.pause())
	}
	slices.SortFunc(routes, func(a, b plan.Route) int { return a.Addr.Compare(b.Addr) })
	if !slices.Equal(routes, w.routes) {
		w.routes = routes
		w.Routes(routes)
	}
	if len(call) > 0 {
		if err := w.Engine.Set(ctx, calls(d, call)); err != nil && ctx.Err() == nil {
			w.Log(fmt.Sprintf("call peers after a change of the host's network: %v", err))
		}
	}
	return pause
}

// calls is the request that has an engine call peers of d from scratch. Another
// private key, for a moment, expires the sessions of all peers; the same endpoint
// as before drops the source; a keepalive that is turned on is sent at once and
// needs a handshake.
func calls(d uapi.Device, peers []uapi.Peer) []byte {
	var u uapi.Update
	if !d.PrivateKey.IsZero() {
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
	return append(uapi.Update{PrivateKey: new(uapi.Secret)}.Body(), u.Body()...)
}
