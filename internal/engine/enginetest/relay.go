package enginetest

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A Wire says what happens to the datagrams of one direction. The zero Wire is a
// good one. Shares are from 0 to 1.
type Wire struct {
	Lose, Duplicate, Corrupt float64
	Reorder                  float64       // held back until a few others have passed
	Delay                    time.Duration // of each
	Seed                     uint64        // of chance; the n-th datagram always has the same fate
}

// A Relay is a wire between two ends. Each sees the other at an address of the
// relay's:
//
//	near end ──▶ Near │ relay │ far socket ──▶ far end
//
// It goes on when an end's address changes, as NAT does, and changes its own
// when told.
type Relay struct {
	near   *net.UDPConn
	far    atomic.Pointer[net.UDPConn]
	farEnd netip.AddrPort

	nearEnd atomic.Pointer[netip.AddrPort] // where the last came from
	there   lane
	back    lane

	closed  chan struct{}
	running sync.WaitGroup
}

// A lane is one direction.
type lane struct {
	mu     sync.Mutex
	wire   Wire
	chance *rand.Rand
	held   []held // by Reorder
	queue  chan late
	seen   atomic.Int64
	harmed atomic.Int64
	watch  func(message []byte) (pass bool)
}

type held struct {
	message []byte
	after   int // so many others
}

type late struct {
	message []byte
	due     time.Time
}

// NewRelay makes a relay on loopback addresses, to the far end.
func NewRelay(farEnd netip.AddrPort, there, back Wire) (*Relay, error) {
	r := &Relay{farEnd: farEnd, closed: make(chan struct{})}
	var err error
	if r.near, err = listen(netip.MustParseAddr("127.0.0.1")); err != nil {
		return nil, err
	}
	r.there.init(there)
	r.back.init(back)
	if err := r.Move(netip.MustParseAddr("127.0.0.1")); err != nil {
		return nil, errors.Join(err, r.near.Close())
	}
	r.running.Go(func() {
		r.read(r.near, &r.there, func(from netip.AddrPort) { r.nearEnd.Store(&from) })
	})
	r.running.Go(func() {
		r.there.run(r.closed, func(b []byte) { _, _ = r.far.Load().WriteToUDPAddrPort(b, r.farEnd) })
	})
	r.running.Go(func() {
		r.back.run(r.closed, func(b []byte) {
			if to := r.nearEnd.Load(); to != nil {
				_, _ = r.near.WriteToUDPAddrPort(b, *to)
			}
		})
	})
	return r, nil
}

func listen(at netip.Addr) (*net.UDPConn, error) {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
	if err == nil {
		_ = c.SetReadBuffer(4 << 20)
		_ = c.SetWriteBuffer(4 << 20)
	}
	return c, err
}

// Near is where the near end finds the relay.
func (r *Relay) Near() netip.AddrPort { return r.near.LocalAddr().(*net.UDPAddr).AddrPort() }

// Far is where the far end sees the relay.
func (r *Relay) Far() netip.AddrPort { return r.far.Load().LocalAddr().(*net.UDPAddr).AddrPort() }

// Move gives the relay another port, and address, on its far side. What is still
// sent to the old one is lost.
func (r *Relay) Move(at netip.Addr) error {
	c, err := listen(at)
	if err != nil {
		return err
	}
	if old := r.far.Swap(c); old != nil {
		_ = old.Close()
	}
	r.running.Go(func() { r.read(c, &r.back, func(netip.AddrPort) {}) })
	return nil
}

// Change makes both directions another wire.
func (r *Relay) Change(there, back Wire) {
	r.there.set(there)
	r.back.set(back)
}

// Watch has a function see each message of one direction, and say whether it
// passes.
func (r *Relay) Watch(there, back func(message []byte) (pass bool)) {
	for l, f := range map[*lane]func([]byte) bool{&r.there: there, &r.back: back} {
		l.mu.Lock()
		l.watch = f
		l.mu.Unlock()
	}
}

// Seen is how many datagrams have come, and how many of them met with anything
// but delay.
func (r *Relay) Seen() (all, harmed int64) {
	return r.there.seen.Load() + r.back.seen.Load(), r.there.harmed.Load() + r.back.harmed.Load()
}

// Close ends the relay.
func (r *Relay) Close() {
	close(r.closed)
	_ = r.near.Close()
	_ = r.far.Load().Close()
	r.running.Wait()
}

func (r *Relay) read(c *net.UDPConn, l *lane, note func(from netip.AddrPort)) {
	buffer := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error for what was sent before
		}
		note(from)
		for _, message := range l.fate(append([]byte(nil), buffer[:n]...)) {
			select {
			case l.queue <- message:
			case <-r.closed:
				return
			}
		}
	}
}

func (l *lane) init(w Wire) {
	l.queue = make(chan late, 1<<14)
	l.set(w)
}

func (l *lane) set(w Wire) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wire, l.chance = w, rand.New(rand.NewPCG(w.Seed, 1))
}

// fate says what becomes of a datagram: what is to be sent now, and when.
func (l *lane) fate(message []byte) (out []late) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen.Add(1)
	w := &l.wire
	dice := [5]float64{}
	for i := range dice {
		dice[i] = l.chance.Float64()
	}
	due := time.Now().Add(w.Delay)
	for i := range l.held {
		if l.held[i].after--; l.held[i].after <= 0 {
			out = append(out, late{l.held[i].message, due})
		}
	}
	l.held = l.held[len(out):]
	if l.watch != nil && !l.watch(message) {
		l.harmed.Add(1)
		return out
	}
	switch {
	case dice[0] < w.Lose:
		l.harmed.Add(1)
		return out
	case dice[1] < w.Corrupt:
		l.harmed.Add(1)
		bit := int(dice[4] * float64(len(message)*8))
		message[bit/8] ^= 1 << (bit % 8)
	case dice[2] < w.Reorder:
		l.harmed.Add(1)
		l.held = append(l.held, held{message, 3})
		return out
	case dice[3] < w.Duplicate:
		l.harmed.Add(1)
		out = append(out, late{message, due})
	}
	return append(out, late{message, due})
}

// run sends what is due.
func (l *lane) run(closed <-chan struct{}, send func([]byte)) {
	for {
		select {
		case <-closed:
			return
		case m := <-l.queue:
			if wait := time.Until(m.due); wait > 0 {
				select {
				case <-time.After(wait):
				case <-closed:
					return
				}
			}
			send(m.message)
		}
	}
}
