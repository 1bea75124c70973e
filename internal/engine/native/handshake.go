package native

import (
	"time"

	"golang.zx2c4.com/wireguard/tai64n"
)

// minBetween is the least time between two initiations of a peer that are
// answered; apart is what we leave between ours, with some to spare for the way.
const (
	minBetween = 20 * time.Millisecond
	apart      = 2 * minBetween
)

// call begins a handshake, unless one was begun just now.
func (p *peer) call(now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.initiate(now)
}

// callBeforeEnd begins a handshake once per session, while what is received
// under it still counts.
func (p *peer) callBeforeEnd(now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.lastMinute {
		p.lastMinute = true
		p.initiate(now)
	}
}

// retry is for a handshake without response.
func (p *peer) retry(now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.attempts > maxAttempts {
		p.device.verbose("%v - handshake did not complete after %d attempts, giving up", p, p.attempts+1)
		p.timers.disarm(passive)
		p.abandon()
		p.queue.clear()
		p.waiting.Store(false)
		p.timers.armIfOff(forget, now+p.device.limits.forgetTime())
		return
	}
	p.attempts++
	p.device.verbose("%v - handshake did not complete after %v, retrying (try %d)", p, p.device.limits.RekeyTimeout, p.attempts+1)
	// The source address may be what is wrong.
	p.endpoint.Store(p.endpoint.Load().unstuck())
	attempts := p.attempts
	p.initiate(now)
	p.attempts = attempts
	p.timers.armIfOff(retransmit, now+p.device.limits.RekeyTimeout+jitter())
}

// initiate sends an initiation, or sees to it that one is sent as soon as may be; mu
// is held. From here on the alarm for it is set until there is a session, so that
// nothing waits for a handshake that nobody has in mind.
func (p *peer) initiate(now time.Duration) {
	id, to := p.device.identity.Load(), p.endpoint.Load()
	if p.removed || id == nil || to == nil {
		return
	}
	if p.handshake != nil && p.timers.armed(retransmit) {
		return // the alarm repeats it, counts, and tells
	}
	if soonest := p.initiated + p.device.limits.RekeyTimeout; now < soonest {
		p.timers.armIfOff(retransmit, soonest+jitter())
		return
	}
	// The peer would take it for a flood, and the next would be due too late.
	if soonest := p.asked + apart; now < soonest {
		p.timers.arm(retransmit, soonest)
		return
	}
	p.attempts, p.initiated, p.asked = 0, now, now
	p.abandon()
	index := p.device.sessions.reserve(p)
	state, message, err := id.newInitiation(p.key, index, tai64n.Now(), nil)
	if err != nil {
		p.device.sessions.release(index)
		p.device.log("%v - create initiation: %v", p, err)
		return
	}
	p.handshake, p.index = state, index
	p.macs.add(message, now)
	p.sendMessage("handshake initiation", message, to, now)
	p.timers.arm(retransmit, now+p.device.limits.RekeyTimeout+jitter())
}

// sendMessage sends a handshake message; mu is held.
func (p *peer) sendMessage(name string, message []byte, to *endpoint, now time.Duration) {
	p.device.verbose("%v - sending %s", p, name)
	p.noteAnySent(now)
	p.sent.Add(uint64(len(message)))
	if err := p.device.aside.post(p, to, message); err != nil {
		p.device.log("%v - send %s: %v", p, name, err)
	}
}

// answer responds to an initiation that was understood. One of ours that is on
// its way may still be answered, too: when both ends begin at once, there are
// two sessions, and each end sends with its own.
func (p *peer) answer(c *call, from *endpoint, now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch id := p.device.identity.Load(); {
	case p.removed:
		return
	case id == nil || id.public != c.to: // it has changed meanwhile
		return
	case !c.timestamp.After(p.timestamp):
		p.device.verbose("%v - handshake replay", p)
		return
	case now-p.consumed < minBetween:
		p.device.verbose("%v - handshake flood", p)
		return
	}
	p.timestamp, p.consumed = c.timestamp, now
	p.device.verbose("%v - received handshake initiation", p)
	index := p.device.sessions.reserve(p)
	message, keys, err := c.respond(p.psk, index)
	if err != nil {
		p.device.sessions.release(index)
		p.device.log("%v - create response: %v", p, err)
		return
	}
	p.endpoint.Store(from)
	p.received.Add(initiationSize)
	p.noteAnyReceived(now)

	kp := newKeypair(p, &keys, index, c.sender, false, now)
	s := &p.device.sessions
	s.drop(p.next)
	s.drop(p.previous)
	p.previous, p.next = nil, kp
	s.install(kp)
	p.timers.arm(forget, now+p.device.limits.forgetTime())

	p.initiated = now
	p.macs.add(message, now)
	p.sendMessage("handshake response", message, from, now)
}

// complete takes the response to our initiation.
func (p *peer) complete(message []byte, from *endpoint, now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.handshake == nil || p.index != receiverOf(message) {
		return
	}
	keys, err := readResponse(p.handshake, p.psk, message)
	if err != nil {
		p.device.verbose("%v - response: %v", p, err)
		return
	}
	p.device.verbose("%v - received handshake response", p)
	kp := newKeypair(p, &keys, p.index, senderOf(message), true, now)
	p.handshake = nil // its index is now the session's
	p.device.sessions.install(kp)
	p.endpoint.Store(from)
	p.received.Add(responseSize)
	p.noteAnyReceived(now)

	// An answer of ours that the peer has not confirmed is newer than current.
	if p.next != nil {
		p.device.sessions.drop(p.current.Swap(p.next))
		p.next = nil
	}
	p.promote(kp)
	p.timers.arm(forget, now+p.device.limits.forgetTime())
	// The first message tells the peer that we have the key.
	if p.flush(kp, now) == 0 {
		p.device.aside.send(kp, nil, now)
	}
}

// takeCookie takes the cookie for our next initiation or response.
func (p *peer) takeCookie(reply []byte, now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.macs.consume(reply, now) {
		p.device.verbose("%v - received cookie", p)
	}
}
