package native

import (
	"bytes"
	"sync/atomic"
	"time"
)

// Bounds of what waits for sessions: of one peer, in packets, and of all, in
// bytes.
const (
	maxWaiting      = 128
	maxWaitingBytes = 2 << 20
)

// A queue holds the packets of one peer that wait for a session. When it is
// full, the oldest is lost. Its peer's mutex guards it.
type queue struct {
	total   *atomic.Int64 // bytes of all queues
	packets [][]byte
	bytes   int
}

// push takes a copy, with room behind it for the padding.
func (q *queue) push(packet []byte) {
	if len(q.packets) == maxWaiting {
		q.account(-len(q.packets[0]))
		q.packets = q.packets[1:]
	}
	if q.total.Load()+int64(len(packet)) > maxWaitingBytes {
		return
	}
	q.account(len(packet))
	q.packets = append(q.packets, append(bytes.Clone(packet), make([]byte, 16)...)[:len(packet)])
}

func (q *queue) account(n int) {
	q.bytes += n
	q.total.Add(int64(n))
}

func (q *queue) clear() {
	q.account(-q.bytes)
	q.packets = nil
}

// flush sends what waits, in order, and tells how much that was; mu is held, so
// that no outbound thread, which sees that packets wait, sends no later one
// before them.
func (p *peer) flush(kp *keypair, now time.Duration) int {
	n := len(p.queue.packets)
	if n > 0 && p.endpoint.Load() != nil {
		p.device.aside.sendAll(kp, p.queue.packets, now)
	}
	p.queue.clear()
	p.waiting.Store(false)
	return n
}

// wait has a packet wait for a session, or sends it after all if there is one
// now.
func (p *peer) wait(packet []byte, now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.removed {
		return
	}
	p.queue.push(packet)
	p.waiting.Store(true)
	if kp := p.usable(now); kp != nil {
		p.flush(kp, now)
	} else {
		p.initiate(now)
	}
}
