package native

import (
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// answerTime is how long a peer that used to answer may be silent before it is
// called anew: it may have lost the session. It is our own: WireGuard has
// Limits.listeningTime for all.
const answerTime = 5 * time.Second

// An alarm is one of the reasons for which a peer wakes up.
type alarm int

const (
	retransmit alarm = iota // no response came
	passive                 // we only received, for a while: say that we are there
	silence                 // we only sent, for a while: is the peer there?
	forget                  // no new session came: drop all keys
	persistent              // keep a way through NAT open
	alarms     = iota
)

// notDue is when an alarm rings that is off.
const notDue = int64(math.MaxInt64)

// timers are the alarms of one peer over a single timer of the runtime. Threads set
// alarms for each packet, so that costs a load and a store: the timer is touched only if it would be late. One that is early finds nothing
// to do and is set anew. With no alarm due there is no timer: an idle tunnel
// sleeps.
type timers struct {
	now  func() time.Duration
	ring func(alarm) // called by one goroutine at a time, without locks held

	due [alarms]atomic.Int64
	set atomic.Int64 // when the timer fires

	mu      sync.Mutex // guards the timer
	timer   *time.Timer
	stopped bool

	ringing sync.Mutex
}

func (t *timers) init(now func() time.Duration, ring func(alarm)) {
	t.now, t.ring = now, ring
	for a := range t.due {
		t.due[a].Store(notDue)
	}
	t.set.Store(notDue)
}

// arm sets an alarm, in place of the one there was.
func (t *timers) arm(a alarm, at time.Duration) {
	t.due[a].Store(int64(at))
	if int64(at) < t.set.Load() {
		t.reset()
	}
}

// armIfOff sets an alarm unless it is set.
func (t *timers) armIfOff(a alarm, at time.Duration) (armed bool) {
	if t.armed(a) {
		return false
	}
	t.arm(a, at)
	return true
}

func (t *timers) armed(a alarm) bool { return t.due[a].Load() != notDue }

// disarm leaves the timer as it is: it fires once for nothing.
func (t *timers) disarm(a alarm) {
	if t.armed(a) {
		t.due[a].Store(notDue)
	}
}

// reset sets the timer to the first alarm.
func (t *timers) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := notDue
	for a := range t.due {
		first = min(first, t.due[a].Load())
	}
	if first >= t.set.Load() || t.stopped {
		return
	}
	t.set.Store(first)
	wait := max(0, time.Duration(first)-t.now())
	if t.timer == nil {
		t.timer = time.AfterFunc(wait, t.fire)
	} else {
		t.timer.Reset(wait)
	}
}

// fire rings what is due. An alarm that is set meanwhile sees that the timer is
// not, or is seen by the reset.
func (t *timers) fire() {
	t.ringing.Lock()
	defer t.ringing.Unlock()
	t.set.Store(notDue)
	now := int64(t.now())
	for a := range t.due {
		due := t.due[a].Load()
		if due <= now && t.due[a].CompareAndSwap(due, notDue) {
			t.ring(alarm(a))
		}
	}
	t.reset()
}

// stop disarms everything for good.
func (t *timers) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	if t.timer != nil {
		t.timer.Stop()
	}
}

func jitter() time.Duration { return rand.N(rekeyJitter) }
