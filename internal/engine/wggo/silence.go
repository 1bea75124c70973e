package wggo

import (
	"net/netip"
	"sync"
	"time"
)

// A peer that has lost its state, by a restart, drops the packets of a session that
// it does not know and says nothing. wireguard-go asks for a new session when it has
// heard nothing for 15 s after it sent (KeepaliveTimeout + RekeyTimeout), which is
// long enough for any peer to have sent its keepalive. This asks after five:
//
//	send, the first since it was heard ──▶ since; the timer, unless it runs
//	receive, of any kind               ──▶ no since
//	timer: since is answerTime ago     ──▶ ask for a new session, tell
//
// The session in use is left as it is: if the peer was there all the time and had
// nothing to say, as the receiver of a stream, nothing is lost but three packets,
// and it is left to wireguard-go for trustTime. It was not if data follows the
// handshake at once; then the next silence is asked about as soon.
//
// A tunnel at rest has no timer: it is set by a packet that is sent, and at most
// every answerTime.

const (
	answerTime = 5 * time.Second
	trustTime  = 2 * time.Minute // RekeyAfterTime: there is a handshake then anyway
	resumeTime = 3 * time.Second
)

// silence is what is known of one address that is sent to.
type silence struct {
	since   time.Time // first packet sent since it was heard; zero: none, or told
	calling bool      // a handshake is under way, which wireguard-go repeats
	asked   time.Time // zero: may be asked
	shaken  time.Time // heard for the first time after asked
}

// silences watches all addresses that are sent to.
type silences struct {
	// found is called with an address that has not answered; ask: a new session
	// is to be asked for.
	found func(addr netip.AddrPort, ask bool)
	now   func() time.Time
	start func(time.Duration) // the timer, at the end of which tick is called

	mu      sync.Mutex
	running bool // the timer
	of      map[netip.AddrPort]*silence
}

func newSilences(found func(addr netip.AddrPort, ask bool)) *silences {
	s := &silences{found: found, now: time.Now, of: map[netip.AddrPort]*silence{}}
	s.start = func(d time.Duration) { time.AfterFunc(d, s.tick) }
	return s
}

// sent notes a packet that wants an answer.
func (s *silences) sent(to netip.AddrPort, k kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.of[to]
	if one == nil {
		one = new(silence)
		s.of[to] = one
	}
	one.calling = one.calling || k == initiation
	if !one.since.IsZero() {
		return
	}
	one.since = s.now()
	if !s.running {
		s.running = true
		s.start(answerTime)
	}
}

// heard notes a packet that came in. It may be anybody's: who forges one has
// silence found out by wireguard-go, later.
func (s *silences) heard(from netip.AddrPort, k kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.of[from]
	if one == nil {
		return
	}
	one.since, one.calling = time.Time{}, false
	switch {
	case one.asked.IsZero():
	case one.shaken.IsZero():
		one.shaken = s.now()
	case k == data && s.now().Sub(one.shaken) < resumeTime:
		one.asked, one.shaken = time.Time{}, time.Time{}
	}
}

// tick is the end of the timer.
func (s *silences) tick() {
	for addr, ask := range s.ended() {
		s.found(addr, ask)
	}
}

// ended returns the addresses that have not answered in time, and whether each is
// to be asked. It starts the timer for those that still have time.
func (s *silences) ended() map[netip.AddrPort]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	silent := map[netip.AddrPort]bool{}
	now, next := s.now(), answerTime
	s.running = false
	for addr, one := range s.of {
		if !one.asked.IsZero() && now.Sub(one.asked) >= trustTime {
			one.asked, one.shaken = time.Time{}, time.Time{}
		}
		if one.since.IsZero() {
			if one.asked.IsZero() {
				delete(s.of, addr)
			}
			continue
		}
		if wait := answerTime - now.Sub(one.since); wait > 0 {
			s.running, next = true, min(next, wait)
			continue
		}
		ask := !one.calling && one.asked.IsZero()
		if ask {
			one.asked = now
		}
		one.since = time.Time{}
		silent[addr] = ask
	}
	if s.running {
		s.start(next)
	}
	return silent
}
