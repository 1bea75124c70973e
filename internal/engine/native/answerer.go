package native

import (
	"context"
	"time"

	"golang.zx2c4.com/wireguard/ratelimiter"
)

// Bounds of what handshakes may cost. One takes some 200 µs of processor time; a
// message that is dropped for its mac1 takes less than one.
const (
	maxLetters    = 128
	loadedLetters = maxLetters / 8 // so many waiting are a load
	loadedTime    = time.Second    // which lasts so long

	// Under load the answerer rests so many times as long as it has worked.
	restShare = 3
)

// An answerer does the handshakes that others ask for, in a goroutine of its
// own, so that packets need not wait for them.
//
//	offer (inbound threads, in turn) run
//	room? ──▶ mac1 ──▶ letters ──▶ under load: mac2, else a cookie; few a second
//	else it is lost                 from one address ──▶ the handshake itself
type answerer struct {
	device  *device
	letters chan letter
	limiter ratelimiter.Ratelimiter
	loaded  time.Duration // until when there is a load
}

// A letter is one handshake message.
type letter struct {
	message [initiationSize]byte
	size    int
	from    origin
}

func (a *answerer) init(d *device) {
	a.device = d
	a.letters = make(chan letter, maxLetters)
}

// offer takes a copy of a message if there is reason to read it. One thread does so
// at a time; it allocates nothing.
func (a *answerer) offer(message []byte, from *origin, now time.Duration) {
	if len(a.letters) == cap(a.letters) {
		return // a flood costs no more than to receive it
	}
	id := a.device.identity.Load()
	if id == nil || kindOf(message) != typeCookie && !id.macs.validMAC1(message) {
		return
	}
	l := letter{size: len(message), from: *from}
	copy(l.message[:], message)
	select {
	case a.letters <- l:
	default:
	}
}

// run answers until ctx ends.
func (a *answerer) run(ctx context.Context) {
	a.limiter.Init()
	defer a.limiter.Close()
	for {
		select {
		case <-ctx.Done():
			return
		case l := <-a.letters:
			began := a.device.now()
			if len(a.letters) >= loadedLetters {
				a.loaded = began + loadedTime
			}
			a.answer(&l, began)
			if began < a.loaded {
				time.Sleep(restShare * (a.device.now() - began))
			}
		}
	}
}

func (a *answerer) answer(l *letter, now time.Duration) {
	d := a.device
	id := d.identity.Load()
	message := l.message[:l.size]
	kind := kindOf(message)
	if id == nil {
		return
	}
	if kind == typeCookie {
		if p := d.sessions.find(receiverOf(message)).peer; p != nil {
			p.takeCookie(message, now)
		}
		return
	}
	if now < a.loaded {
		if !id.macs.validMAC2(message, l.from.place(), now) {
			reply := id.macs.cookieReply(message, l.from.place(), now)
			d.aside.reply(&endpoint{origin: l.from, sticky: true}, reply)
			return
		}
		if !a.limiter.Allow(l.from.addr()) {
			return
		}
	}
	from := &endpoint{origin: l.from, sticky: true}
	if kind == typeResponse {
		if p := d.sessions.find(receiverOf(message)).peer; p != nil {
			p.complete(message, from, now)
		}
		return
	}
	c, err := id.readInitiation(message, nil)
	if err != nil {
		return
	}
	if p := d.lookup(c.from); p != nil {
		p.answer(c, from, now)
	}
}
