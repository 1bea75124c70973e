package watch

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"wireguard4netns/conf"
	"wireguard4netns/internal/host"
	"wireguard4netns/internal/plan"
	"wireguard4netns/internal/uapi"
)

// A peer that has fallen silent is looked for where the configuration has it, by a
// name or an address, and where it was before. A peer's endpoint is where its newest
// message came from, so when both ends move, neither finds the other by itself.
//
//	  ┌───────────────── a handshake ─────────────────┐
//	  ▼                                               │
//	found ── silent, and has an address ──▶ asked ──▶ looked for: one place after
//	  └──── silent, or no way to it; a name ────────▶ the other, ever slower
//
// Silent is a peer that packets are sent to and whose last handshake is long ago.
// Asked is called where it is: it may only have had nothing to say. A peer that is
// where the address of its configuration says is never looked for: there is no other
// place.

const (
	// stale is how old the last handshake of a peer is, to which packets are
	// sent, when its name is resolved again: 120 s and a handshake's time, as in
	// the reresolve-dns script of wireguard-tools.
	stale = 135 * time.Second

	// unanswered is the same for a peer that has never answered: there is no
	// session to lose. The next initiation is sent 5 to 5.3 s after the first.
	unanswered = 4500 * time.Millisecond

	mostDoublings = 6 // of the pause between two tries: 320 s
)

// patience is how long a silent peer is given before it is looked for, and between
// two tries.
type patience struct {
	stale, unanswered time.Duration
	over              time.Duration // as stale, for an address: no session is left
	turn              time.Duration // that each place has; it grows after all had theirs
	away              time.Duration // at most, without a way to where the peer is
}

var patient = patience{stale: stale, unanswered: unanswered, over: lifetime, turn: 5 * time.Second, away: 10 * time.Second}

// search is what is remembered of looking for a peer.
type search struct {
	of     conf.Endpoint  // what the configuration has
	last   netip.AddrPort // where the peer was found
	sent   uint64
	began  time.Time // when packets were first seen to be sent
	next   time.Time // not before
	tries  int       // in a row; 0: found
	places int       // so many there were to try
	said   string    // the last error
}

// step is what is to be done about a peer.
type step int

const (
	stay  step = iota
	ask        // call it where it is
	leave      // try the next place
)

// step decides: a peer is looked for when packets are sent to it and there was no
// handshake for long, and one with a name when the host has no way to where it is.
// Each place is given a turn, be more sent or not, before the pauses grow. A change
// of the host's network is tried at once, and with a name soon again: the resolver
// may have to learn of it too.
func (m *search) step(now time.Time, s seen, p patience, c cause) step {
	grew := s.sent > m.sent
	m.sent = s.sent
	if s.sent > 0 && m.began.IsZero() {
		if m.began = now; c.trouble {
			m.began = now.Add(-p.unanswered) // the engine has waited as long
		}
	}
	there, address := s.path.Source.IsValid(), s.address.IsValid()
	since, limit := s.handshake, p.stale
	switch {
	case since.IsZero():
		since, limit = m.began, p.unanswered
	case address:
		limit = p.over
	}
	found := (there || address) && (since.IsZero() || now.Sub(since) < limit)
	if found || !m.last.IsValid() {
		m.last = s.endpoint
	}
	if found || address && same(s.endpoint, s.address) && same(m.last, s.address) {
		m.next, m.tries = time.Time{}, 0
		return stay
	}
	if !there && c.changed {
		m.next, m.tries = time.Time{}, 0
	}
	round := 0 < m.tries && m.tries < m.places
	if !grew && !round && (there || address && !c.changed) || now.Before(m.next) {
		return stay
	}
	pause := min(p.turn/5<<min(m.tries, mostDoublings), p.away)
	if there {
		pause = p.turn << min(m.tries/max(m.places, 1), mostDoublings)
	}
	m.tries++
	m.next = now.Add(pause)
	if there && address && m.tries == 1 {
		m.places = 2 // where it is, and the configuration's
		return ask
	}
	return leave
}

// pause returns when to look for the peer again; 0: when something is sent to it.
func (m *search) pause(now time.Time, s seen, p patience) time.Duration {
	switch {
	case m.next.After(now):
		return m.next.Sub(now)
	case !s.address.IsValid() && s.handshake.IsZero() && !m.began.IsZero() && now.Sub(m.began) < p.unanswered:
		return p.unanswered - now.Sub(m.began)
	}
	return 0
}

// same tells whether a and b are one place. Engines write a zone in their own way.
func same(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && a.Addr().Unmap().WithZone("") == b.Addr().Unmap().WithZone("")
}

// turn chooses among the places of a peer: the one after current, or the first
// if current is none of them, of those that the host has a route to. Without away
// a current that is still one of them is kept. It is not valid if there is nothing
// to change.
func turn(current netip.AddrPort, places []plan.Route, away bool) netip.AddrPort {
	at := slices.IndexFunc(places, func(r plan.Route) bool { return same(r.Addr, current) })
	if at >= 0 && !away {
		return netip.AddrPort{}
	}
	for i := range places {
		r := places[(at+1+i)%len(places)]
		if r.MTU != 0 && !same(r.Addr, current) {
			return r.Addr
		}
	}
	return netip.AddrPort{}
}

// answer is how a resolution ended.
type answer struct {
	peer   uapi.PublicKey
	of     conf.Endpoint
	routes []plan.Route
	away   bool // from where the peer was looked for
	err    error
}

// Resolutions counts lookups of endpoints' names by how they ended.
type Resolutions struct{ Answered, Failed atomic.Uint64 }

func (r *Resolutions) count(err error) {
	switch {
	case r == nil:
	case err == nil:
		r.Answered.Add(1)
	default:
		r.Failed.Add(1)
	}
}

// resolve looks up where the configuration has a peer, one at a time for each peer.
func (w *watcher) resolve(ctx context.Context, peer uapi.PublicKey, of conf.Endpoint, away bool) {
	if w.resolving[peer] {
		return
	}
	w.resolving[peer] = true
	w.helpers.Go(func() {
		routes, err := host.Resolve(ctx, of)
		select {
		case w.answers <- answer{peer, of, routes, away, err}:
		case <-ctx.Done():
		}
	})
}

// use takes a peer to the next of its places.
func (w *watcher) use(ctx context.Context, a answer) {
	delete(w.resolving, a.peer)
	if _, address := a.of.AddrPort(); !address {
		w.Resolutions.count(a.err)
	}
	m := w.peers[a.peer]
	if m == nil || m.search.of != a.of {
		return // removed, or configured otherwise, meanwhile
	}
	if a.err != nil {
		w.sayOnce(m, a.err.Error())
		return
	}
	places := a.routes
	if last := m.search.last; a.away && last.IsValid() && !slices.ContainsFunc(places, func(r plan.Route) bool { return same(r.Addr, last) }) {
		places = append(places, plan.Route{Addr: last, MTU: host.PathTo(last).MTU})
	}
	m.search.places, m.search.said = len(places), ""
	to := turn(m.endpoint, places, a.away)
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
	from := "nowhere"
	if before := d.Peers[i].Endpoint; before.IsValid() {
		from = before.String()
	}
	w.Log(fmt.Sprintf("endpoint %s: from %s to %s", a.of, from, to))
	d.Peers[i].Endpoint = to
	w.call(ctx, d, d.Peers[i:i+1])
}

// sayOnce logs why a name is not resolved, unless that was said before.
func (w *watcher) sayOnce(m *memory, line string) {
	if m.search.said != line {
		w.Log(line)
	}
	m.search.said = line
}
