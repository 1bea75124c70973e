package watch

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
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
	// session to lose. The next initiation is sent 5 to 5.3 s after the first.
	unanswered = 4500 * time.Millisecond

	mostDoublings = 6 // of the pause between two resolutions: 320 s
)

// patience is how long a silent peer is given before its name is resolved, and
// between two resolutions.
type patience struct {
	stale, unanswered time.Duration
	turn              time.Duration // that each answer has; it grows after all had theirs
	away              time.Duration // at most, without a way to where the peer is
}

var patient = patience{stale: stale, unanswered: unanswered, turn: 5 * time.Second, away: 10 * time.Second}

// search is what is remembered of looking for a peer that has a name.
type search struct {
	sent    uint64
	began   time.Time // when packets were first seen to be sent
	next    time.Time // not before
	tries   int       // in a row
	answers int       // the last resolution had so many
	said    string    // the last error
}

// due decides whether the peer's name is to be resolved: when packets are sent
// and there was no handshake for long, and when the host has no way to where the
// peer is. Each answer is given a turn, be more sent or not, before the pauses grow. A
// change of the host's network is tried at once, and soon again: the resolver may
// have to learn of it too.
func (m *search) due(now time.Time, s seen, p patience, c cause) bool {
	grew := s.sent > m.sent
	m.sent = s.sent
	if s.sent > 0 && m.began.IsZero() {
		if m.began = now; c.trouble {
			m.began = now.Add(-p.unanswered) // the engine has waited as long
		}
	}
	there := s.path.Source.IsValid()
	since, limit := s.handshake, p.stale
	if since.IsZero() {
		since, limit = m.began, p.unanswered
	}
	if there && (since.IsZero() || now.Sub(since) < limit) {
		m.next, m.tries = time.Time{}, 0
		return false
	}
	if !there && c.changed {
		m.next, m.tries = time.Time{}, 0
	}
	round := 0 < m.tries && m.tries < m.answers
	if there && !grew && !round || now.Before(m.next) {
		return false
	}
	pause := min(p.turn/5<<min(m.tries, mostDoublings), p.away)
	if there {
		pause = p.turn << min(m.tries/max(m.answers, 1), mostDoublings)
	}
	m.tries++
	m.next = now.Add(pause)
	return true
}

// pause returns when to look for the peer again; 0: when something is sent to it.
func (m *search) pause(now time.Time, s seen, p patience) time.Duration {
	switch {
	case m.next.After(now):
		return m.next.Sub(now)
	case s.handshake.IsZero() && !m.began.IsZero() && now.Sub(m.began) < p.unanswered:
		return p.unanswered - now.Sub(m.began)
	}
	return 0
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
	w.Resolutions.count(a.err)
	m := w.peers[a.peer]
	if m == nil {
		return // removed meanwhile
	}
	if a.err != nil {
		w.sayOnce(m, a.err.Error())
		return
	}
	m.search.answers, m.search.said = len(a.routes), ""
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
	from := "nowhere"
	if before := d.Peers[i].Endpoint; before.IsValid() {
		from = before.String()
	}
	w.Log(fmt.Sprintf("endpoint %s: from %s to %s", w.Names[a.peer], from, to))
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
