package native

import (
	"math"
	"time"
)

// The limits of the protocol (whitepaper, 6.1).
const (
	rekeyAfterMessages  = 1 << 60
	rejectAfterMessages = math.MaxUint64 - 1<<13
	rekeyAfterTime      = 120 * time.Second
	rejectAfterTime     = 180 * time.Second
	rekeyAttemptTime    = 90 * time.Second
	rekeyTimeout        = 5 * time.Second
	keepaliveTimeout    = 10 * time.Second

	rekeyJitter = 334 * time.Millisecond
	maxAttempts = int(rekeyAttemptTime / rekeyTimeout)
)

// Limits are how long sessions last, and what is waited for. Only tests have others
// than the protocol's: a session of two minutes is too long for them.
type Limits struct {
	// From here on the next session is begun; RekeyAfterTime is for the initiator.
	RekeyAfterMessages uint64
	RekeyAfterTime     time.Duration
	// From here on a session carries nothing.
	RejectAfterMessages uint64
	RejectAfterTime     time.Duration

	RekeyTimeout     time.Duration // between two initiations
	KeepaliveTimeout time.Duration // until one is sent for what was received
}

// Protocol returns WireGuard's own limits.
func Protocol() Limits {
	return Limits{
		RekeyAfterMessages: rekeyAfterMessages, RekeyAfterTime: rekeyAfterTime,
		RejectAfterMessages: rejectAfterMessages, RejectAfterTime: rejectAfterTime,
		RekeyTimeout: rekeyTimeout, KeepaliveTimeout: keepaliveTimeout,
	}
}

// listeningTime is how long a peer may be silent that only listens: its keepalive is
// due, and has come.
func (l *Limits) listeningTime() time.Duration { return l.KeepaliveTimeout + l.RekeyTimeout }

// forgetTime is how long the keys of the last session are kept.
func (l *Limits) forgetTime() time.Duration { return 3 * l.RejectAfterTime }

// never is later than any time.
const never = time.Duration(math.MaxInt64)

// A lifetime is the limits of one session, on the engine's clock.
type lifetime struct {
	rekeyMessages, rejectMessages uint64
	rekeyAt                       time.Duration // when a packet is sent; never: that is for the other end
	lastCallAt                    time.Duration // when one is received: nothing was sent to begin it by
	rejectAt                      time.Duration
}

// from is the lifetime of a session that begins now. The initiator's next handshake
// is its own to begin.
func (l *Limits) from(now time.Duration, initiator bool) lifetime {
	t := lifetime{
		rekeyMessages: l.RekeyAfterMessages, rejectMessages: l.RejectAfterMessages,
		rekeyAt: never, lastCallAt: never, rejectAt: now + l.RejectAfterTime,
	}
	if initiator {
		t.rekeyAt = now + l.RekeyAfterTime
		t.lastCallAt = t.rejectAt - l.KeepaliveTimeout - l.RekeyTimeout
	}
	return t
}
