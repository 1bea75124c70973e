package tunnel

import (
	"context"
	"fmt"
	"sync"

	"wireguard4netns/conf"
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
	names := map[uapi.PublicKey]conf.Endpoint{}
	for _, p := range t.Plan().Peers {
		if _, literal := p.Endpoint.AddrPort(); !literal && !p.Endpoint.IsZero() {
			names[uapi.PublicKey(p.PublicKey)] = p.Endpoint
		}
	}
	watch.Run(ctx, watch.Config{Engine: t.Engine, Routes: t.followRoutes, Names: names, Log: t.log.Line, Resolutions: &t.resolutions})
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
