package watch

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"wireguard4netns/internal/host"
	"wireguard4netns/internal/plan"
	"wireguard4netns/internal/uapi"
)

const (
	// stale is how old the last handshake of a peer is, to which packets are
	// sent, when its name is resolved again: 120 s and a handshake's time, as in
	// the reresolve-dns script of wireguard-tools.
	stale = 135 * time.Second

	// unanswered is the same for a peer that has never answered: there is no
	// session to lose.
	unanswered = 10 * time.Second

	mostDoublings = 5 // of restPause between two resolutions: 320 s
)

// search is what is remembered of looking for a peer that has a name.
type search struct {
	sent    uint64
	began   time.Time // when packets were first seen to be sent
	next    time.Time // not before
	tries   int       // in a row
	answers int       // the last resolution had so many
}

// due decides whether the peer's name is to be resolved: when packets are sent
// and there was no handshake for long, and when the host has no way to where the
// peer is. Each answer is given a turn before the pauses grow.
func (m *search) due(now time.Time, s seen, stale time.Duration) bool {
	grew := s.sent > m.sent
	m.sent = s.sent
	if s.sent > 0 && m.began.IsZero() {
		m.began = now
	}
	there := s.path.Source.IsValid()
	since, limit := s.handshake, stale
	if since.IsZero() {
		since, limit = m.began, unanswered
	}
	if there && (since.IsZero() || now.Sub(since) < limit) {
		m.next, m.tries = time.Time{}, 0
		return false
	}
	if there && !grew || now.Before(m.next) {
		return false
	}
	pause := restPause
	if there {
		pause <<= min(m.tries/max(m.answers, 1), mostDoublings)
	}
	m.tries++
	m.next = now.Add(pause)
	return true
}

// turn chooses among the addresses of a name: the one after current, or the first
// if current is none of them, of those that the host has a route to. Without away
// a current that is still an answer is kept. It is not valid if there is nothing
// to change.
func turn(current netip.AddrPort, answers []plan.Route, away bool) netip.AddrPort {
	at := slices.IndexFunc(answers, func(r plan.Route) bool { return r.Addr == current })
	if at >= 0 && !away {
		return netip.AddrPort{}
	}
	for i := range answers {
		r := answers[(at+1+i)%len(answers)]
		if r.MTU != 0 && r.Addr != current {
			return r.Addr
		}
	}
	return netip.AddrPort{}
}

// answer is how a resolution ended.
type answer struct {
	peer   uapi.PublicKey
	routes []plan.Route
	away   bool // from where the peer was looked for
	err    error
}

// resolve looks a peer's name up, one at a time for each peer.
func (w *watcher) resolve(ctx context.Context, peer uapi.PublicKey, away bool) {
	name := w.Names[peer]
	if w.resolving[peer] {
		return
	}
	w.resolving[peer] = true
	w.helpers.Go(func() {
		routes, err := host.Resolve(ctx, name)
		select {
		case w.answers <- answer{peer, routes, away, err}:
		case <-ctx.Done():
		}
	})
}

// use takes a peer to where its name says.
func (w *watcher) use(ctx context.Context, a answer) {
	delete(w.resolving, a.peer)
	m := w.peers[a.peer]
	if m == nil {
		return // removed meanwhile
	}
	if a.err != nil {
		w.Log(a.err.Error())
		return
	}
	m.search.answers = len(a.routes)
	to := turn(m.endpoint, a.routes, a.away)
	if !to.IsValid() {
		return
	}
	d, err := w.device(ctx)
	if err != nil {
		return
	}
	i := slices.IndexFunc(d.Peers, func(p uapi.Peer) bool { return p.PublicKey == a.peer })
	if i < 0 {
		return
	}
	w.Log(fmt.Sprintf("endpoint %s: from %s to %s", w.Names[a.peer], d.Peers[i].Endpoint, to))
	d.Peers[i].Endpoint = to
	w.call(ctx, d, d.Peers[i:i+1], len(d.Peers) == 1)
}
