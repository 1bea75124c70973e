package native

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/flynn/noise"
	"golang.zx2c4.com/wireguard/tai64n"

	"wireguard4netns/internal/uapi"
)

// A peer is the other end of a tunnel.
//
// Sessions move to the left; the right end falls off:
//
//	           previous ◀──── current ◀──── next
//	                             ▲            ▲
//	initiator, on the response ──┘            │
//	responder, on the initiation ─────────────┘   until the peer's first message
//	                                              shows that it has the key
//
// Sending uses current, receiving any of the three.
type peer struct {
	device *device
	key    uapi.PublicKey

	// What all threads use for each packet, without a lock.
	current   atomic.Pointer[keypair]
	endpoint  atomic.Pointer[endpoint]
	keepalive atomic.Int64 // interval of the persistent one; zero: off
	sent      atomic.Uint64
	received  atomic.Uint64
	waiting   atomic.Bool  // packets are in queue
	patient   atomic.Bool  // its silence may be its nature: it need not answer soon
	said      atomic.Int64 // when data was sent to it last
	doubted   atomic.Bool  // it has not answered what was said to it once
	again     atomic.Bool  // a passive keepalive will be due after the next
	handshook atomic.Int64 // when, in nanoseconds of Unix time; zero: never
	timers    timers

	// Of delivery.
	newest time.Duration // when the newest session began under which something came

	mu             sync.Mutex // guards what follows; may be held while sending
	removed        bool
	psk            uapi.Secret
	macs           senderMACs
	previous, next *keypair
	handshake      *noise.HandshakeState // of the initiation that waits for a response
	index          uint32                // its own
	initiated      time.Duration         // when the last initiation or response was sent; long ago: the next may be at once
	asked          time.Duration         // when the last initiation was
	attempts       int                   // in a row without response
	lastMinute     bool                  // the session's end was seen coming
	timestamp      tai64n.Timestamp      // of the last initiation received
	consumed       time.Duration         // when that was
	queue          queue

	// Of the request under way alone.
	fresh   bool // made by it
	allowed bool // it may have routes
}

// longAgo is before anything that could be too soon after it.
const longAgo = -time.Hour

func newPeer(d *device, key uapi.PublicKey) *peer {
	p := &peer{device: d, key: key, macs: newSenderMACs(key), initiated: longAgo, asked: longAgo, consumed: longAgo, queue: queue{total: &d.waiting}}
	p.timers.init(d.now, p.ring)
	return p
}

// String is how the log names a peer.
func (p *peer) String() string {
	text := p.key.String()
	return "peer(" + text[:4] + "…" + text[39:43] + ")"
}

// usable returns the session to send with, nil if there is none.
func (p *peer) usable(now time.Duration) *keypair {
	if kp := p.current.Load(); kp != nil && !kp.expired(now) {
		return kp
	}
	return nil
}

// noteSent is told of each run that was sent to the peer: of size bytes, with
// data or only a keepalive.
func (p *peer) noteSent(size int, data bool, now time.Duration) {
	p.sent.Add(uint64(size))
	if data {
		p.said.Store(int64(now))
		if !p.timers.armed(silence) {
			p.timers.arm(silence, now+p.patience()+jitter())
		}
		if p.doubted.Load() && p.doubted.CompareAndSwap(true, false) {
			p.timers.arm(silence, now)
		}
	}
	p.noteAnySent(now)
}

// noteAnySent is told of each message to the peer that it can authenticate.
func (p *peer) noteAnySent(now time.Duration) {
	p.timers.disarm(passive)
	p.noteTraffic(now)
}

func (p *peer) noteTraffic(now time.Duration) {
	if interval := time.Duration(p.keepalive.Load()); interval > 0 {
		p.timers.arm(persistent, now+interval)
	}
}

// noteReceived is told of each run that came with the session kp.
func (p *peer) noteReceived(kp *keypair, size int, data bool, now time.Duration) {
	p.received.Add(uint64(size))
	p.noteAnyReceived(now)
	if data {
		if p.patient.Load() {
			p.patient.Store(false)
		}
		if !p.timers.armIfOff(passive, now+p.device.limits.KeepaliveTimeout) && !p.again.Load() {
			p.again.Store(true)
		}
	}
	if now >= kp.lastCallAt {
		p.callBeforeEnd(now)
	}
}

// noteAnyReceived is told of each authenticated message of the peer.
func (p *peer) noteAnyReceived(now time.Duration) {
	p.timers.disarm(silence)
	if p.doubted.Load() {
		p.doubted.Store(false)
	}
	p.noteTraffic(now)
}

// ring does what an alarm is for.
func (p *peer) ring(a alarm) {
	now := p.device.now()
	switch a {
	case retransmit:
		p.device.trouble()
		p.retry(now)
	case passive:
		p.sendKeepalive(now)
		if p.again.Swap(false) {
			p.timers.arm(passive, now+p.device.limits.KeepaliveTimeout)
		}
	case silence:
		p.unanswered(now)
	case forget:
		p.device.verbose("%v - no new session: removing all keys", p)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.forgetKeys()
	case persistent:
		if p.keepalive.Load() > 0 {
			p.sendKeepalive(now)
		}
	}
}

// patience is how long the peer may be silent while data is sent to it.
func (p *peer) patience() time.Duration {
	if p.patient.Load() {
		return p.device.limits.listeningTime()
	}
	return answerTime
}

// unanswered calls a peer that does not answer. One that was told something once,
// and not again, has time until its keepalive; so has one that was called and
// still says nothing. Once is until the next packet: a TCP that has waited long
// repeats itself seldom.
func (p *peer) unanswered(now time.Duration) {
	patient := p.patient.Swap(true)
	if !patient && now-time.Duration(p.said.Load()) > answerTime/2 {
		p.timers.armIfOff(silence, now+p.device.limits.listeningTime()-answerTime)
		p.doubted.Store(true)
		return
	}
	p.doubted.Store(false)
	p.device.verbose("%v - no answer: calling it", p)
	p.device.trouble()
	p.endpoint.Store(p.endpoint.Load().unstuck())
	p.call(now)
}

// sendKeepalive sends an empty packet, or begins a handshake if there is no
// session. Packets that wait do as well.
func (p *peer) sendKeepalive(now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kp := p.usable(now)
	if kp == nil {
		p.initiate(now)
		return
	}
	if p.flush(kp, now) == 0 {
		p.device.verbose("%v - sending keepalive", p)
		p.device.aside.send(kp, nil, now)
	}
	if kp.stale(now) {
		p.initiate(now)
	}
}

// promote makes kp the current session; mu is held.
func (p *peer) promote(kp *keypair) {
	p.device.sessions.drop(p.previous)
	p.previous = p.current.Load()
	p.current.Store(kp)
	p.timers.disarm(retransmit)
	p.attempts, p.lastMinute = 0, false
	p.handshook.Store(time.Now().UnixNano())
}

// confirm is called for the first message under a session: the peer has its key.
func (p *peer) confirm(kp *keypair, now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next != kp {
		return
	}
	p.next = nil
	p.abandon()
	p.promote(kp)
	p.flush(kp, now)
}

// forgetKeys ends all sessions and a handshake under way; mu is held.
func (p *peer) forgetKeys() {
	s := &p.device.sessions
	s.drop(p.previous)
	s.drop(p.current.Swap(nil))
	s.drop(p.next)
	p.previous, p.next = nil, nil
	p.abandon()
	p.queue.clear()
	p.waiting.Store(false)
}

// abandon ends a handshake that waits for a response; mu is held.
func (p *peer) abandon() {
	if p.handshake != nil {
		p.device.sessions.release(p.index)
		p.handshake = nil
	}
}

// expire has the next packet begin a handshake. What the peer has sent before
// it knows is still received; it confirms nothing any more.
func (p *peer) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.abandon()
	if kp := p.current.Load(); kp != nil {
		kp.end()
	}
	if p.next != nil {
		p.next.end()
		p.device.sessions.drop(p.previous)
		p.previous, p.next = p.current.Swap(p.next), nil
	}
	p.initiated = longAgo
}

// remove ends the peer.
func (p *peer) remove() {
	p.timers.stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.removed = true
	p.forgetKeys()
	clear(p.psk[:])
}
