package tunnel

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"wireguard4netns/conf"
	"wireguard4netns/internal/host"
	"wireguard4netns/internal/plan"
	"wireguard4netns/internal/uapi"
	"wireguard4netns/internal/watch"
)

// Watch keeps the peers within reach while the host's network changes, until ctx
// ends. A Reload begins it anew: there may be other peers.
func (t *Tunnel) Watch(ctx context.Context) {
	for ctx.Err() == nil {
		round, end := context.WithCancel(ctx)
		var watching sync.WaitGroup
		watching.Go(func() { t.watch(round) })
		select {
		case <-t.reloaded:
		case <-ctx.Done():
		}
		end()
		watching.Wait()
	}
}

func (t *Tunnel) watch(ctx context.Context) {
	watch.Run(ctx, watch.Config{
		Engine: t.Engine, Routes: t.followRoutes, Endpoint: t.configured(),
		Looked: t.history.note, Log: t.log.Line, Resolutions: &t.resolutions,
	})
}

// configured returns what tells where the user said last that a peer is, until the
// next Reload: in the file, or through the UAPI socket. An answer for the file's name
// that was said there is still that name.
func (t *Tunnel) configured() func(uapi.PublicKey) conf.Endpoint {
	file := map[uapi.PublicKey]plan.Peer{}
	for _, p := range t.Plan().Peers {
		file[uapi.PublicKey(p.PublicKey)] = p
	}
	return func(peer uapi.PublicKey) conf.Endpoint {
		e := t.given.endpoint(conf.PublicKey(peer))
		if at, ok := e.AddrPort(); ok && !resolved(file[peer], at) {
			return e
		}
		return file[peer].Endpoint
	}
}

// look finds out about the host. A patient tunnel starts without the addresses that
// there are not yet.
func (r Request) look(ctx context.Context, c *conf.Config, say func(string)) (plan.Host, error) {
	if !r.Patient || r.Wait > 0 {
		return host.Look(ctx, c)
	}
	facts, unresolved, err := host.LookPatiently(ctx, c)
	for _, cause := range unresolved {
		say(fmt.Sprintf("%v: the tunnel tries again until it does", cause))
	}
	return facts, err
}

// Unresolved returns the endpoints whose names have not been resolved yet, of peers
// that nobody has heard from either.
func (t *Tunnel) Unresolved() (names []string) {
	for _, p := range t.Plan().Peers {
		if p.Endpoint.IsZero() || len(p.Candidates) > 0 {
			continue
		}
		if last, ok := t.history.last(uapi.PublicKey(p.PublicKey)); !ok || !last.Endpoint.IsValid() {
			names = append(names, p.Endpoint.String())
		}
	}
	return names
}

// Before returns how the peers were when they were last looked at, a second ago or
// more, and when that was: with the counters of now it gives a rate. While packets
// pass it is ten seconds at most; a tunnel at rest is looked at less often. The time
// is zero if there was no such look.
func (t *Tunnel) Before(now time.Time) (peers []uapi.Peer, at time.Time) {
	return t.history.before(now.Add(-time.Second))
}

// LastHandshake returns that of p, which the engine tells of; it may have been with an
// engine before. The zero time: never.
func (t *Tunnel) LastHandshake(p uapi.Peer) time.Time { return t.history.handshake(p) }

// history is what two looks have seen.
type history struct {
	mu    sync.Mutex
	looks [2]struct { // the older first
		at    time.Time
		peers []uapi.Peer
	}
	handshakes map[conf.PublicKey]time.Time // the last of each peer
}

func (h *history) note(at time.Time, peers []uapi.Peer) {
	h.remember(peers)
	h.mu.Lock()
	defer h.mu.Unlock()
	// Looks that follow on each other tell no rate: the older one stays.
	if at.Sub(h.looks[1].at) >= time.Second {
		h.looks[0] = h.looks[1]
	}
	h.looks[1].at, h.looks[1].peers = at, slices.Clone(peers)
	for i := range peers {
		h.looks[1].peers[i].PresharedKey = uapi.Secret{}
	}
}

// remember keeps the handshakes of peers, which are all that there are, for when the
// engine is another.
func (h *history) remember(peers []uapi.Peer) {
	last := map[conf.PublicKey]time.Time{}
	for _, p := range peers {
		if at := h.handshake(p); !at.IsZero() {
			last[conf.PublicKey(p.PublicKey)] = at
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.handshakes = last
}

// handshake returns the last of p, be it with an engine before.
func (h *history) handshake(p uapi.Peer) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.LastHandshake.IsZero() {
		return h.handshakes[conf.PublicKey(p.PublicKey)]
	}
	return p.LastHandshake
}

func (h *history) all() map[conf.PublicKey]time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.handshakes)
}

func (h *history) last(key uapi.PublicKey) (uapi.Peer, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.looks[1].peers {
		if p.PublicKey == key {
			return p, true
		}
	}
	return uapi.Peer{}, false
}

// before returns the younger of the looks that were at limit or before.
func (h *history) before(limit time.Time) ([]uapi.Peer, time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, look := range slices.Backward(h.looks[:]) {
		if !look.at.IsZero() && !look.at.After(limit) {
			return look.peers, look.at
		}
	}
	return nil, time.Time{}
}

// linkMTU is the MTU that the link has now.
type linkMTU struct {
	bytes  int
	source string
}

// MTU returns the MTU of the link and where it came from.
func (t *Tunnel) MTU() (bytes int, source string) {
	if m := t.mtu.Load(); m != nil {
		return m.bytes, m.source
	}
	return t.Plan().Link.MTU, t.Plan().MTUSource
}

// followRoutes gives the link the MTU that the routes to the peers leave.
func (t *Tunnel) followRoutes(routes []plan.Route) {
	t.changing.Lock()
	defer t.changing.Unlock()
	before, _ := t.MTU()
	mtu, source := t.Plan().MTUOver(routes)
	if mtu == before {
		return
	}
	if err := t.links.SetMTU(t.Plan().Link.Name, mtu); err != nil {
		t.log.Line(err.Error())
		return
	}
	t.mtu.Store(&linkMTU{mtu, source})
	t.log.Line(fmt.Sprintf("link %s: MTU %d, from %s", t.Plan().Link.Name, mtu, source))
}
