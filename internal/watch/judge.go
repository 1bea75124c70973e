package watch

import (
	"net/netip"
	"time"

	"wireguard4netns/internal/host"
)

const (
	busyPause = 10 * time.Second // between two looks while packets pass
	restPause = 5 * time.Minute  // at most, while none do: who is in trouble says so
	callPause = time.Second      // between two calls that nobody has answered
	mostCalls = 3                // after one change; then the engine's own timers have it
)

// seen is a peer at one look.
type seen struct {
	endpoint  netip.AddrPort // not valid: none known
	address   netip.AddrPort // that the configuration has; not valid: it has a name
	path      host.Path      // to endpoint
	handshake time.Time      // the last; zero: never
	sent      uint64         // bytes
}

// memory is what earlier looks left of a peer.
type memory struct {
	known    bool // there was one
	endpoint netip.AddrPort
	path     host.Path
	called   time.Time // zero: no call is open
	calls    int       // since the change
	search   search
}

// judge decides whether the peer is to be called: after the path to its endpoint
// moved or came back, after the machine woke, and again when a call was in vain.
func (m *memory) judge(now time.Time, s seen, woke bool) (call bool) {
	before := *m
	m.known, m.endpoint, m.path = true, s.endpoint, s.path
	switch there := s.path.Source.IsValid(); {
	case !there:
		m.called = time.Time{}
	case before.known && before.endpoint == s.endpoint && moved(before.path, s.path), woke:
		m.called, m.calls = now, 1
		return true
	case m.called.IsZero():
	case s.handshake.After(m.called), m.calls >= mostCalls:
		m.called = time.Time{}
	case now.Sub(m.called) >= time.Duration(m.calls)*callPause:
		m.calls++
		return true
	}
	return false
}

// open tells that a call may have to be made again.
func (m *memory) open() bool { return !m.called.IsZero() }

// moved tells whether packets leave from elsewhere; another MTU is no move.
func moved(a, b host.Path) bool { return a.Source != b.Source || a.Link != b.Link }

// few is how many bytes may pass between two looks at a tunnel at rest: keepalives, a
// handshake.
const few = 1 << 10

// rest decides how long to wait between looks while nothing is open: longer each
// time when nothing has passed.
type rest struct {
	pause  time.Duration
	passed uint64 // bytes, at the last look
}

func (r *rest) next(passed uint64) time.Duration {
	if passed-r.passed > few {
		r.pause = 0
	}
	r.passed = passed
	r.pause = min(max(4*r.pause, busyPause), restPause)
	return r.pause
}
