// Package engine runs what speaks WireGuard in a process of its own.
//
// The process (Main) has the TUN device, one end of a socket pair and a pipe
// for log lines, and nothing else. All it is told comes over the socket pair,
// as WireGuard's configuration protocol (package uapi):
//
//	this process                          engine process
//	Start: fork, exec Argv0          ──▶  Main: open the TUN device, seal itself
//	get=1                            ──▶  (first answer: it is ready)
//	set=1 …                          ──▶  first set: bind the UDP port, be up
//	get=1, set=1 …                   ──▶  answer
//	close of the socket, or SIGKILL  ──▶  end
//
// An Engine outlives its processes: when one dies, the next gets the same TUN
// device and the last known configuration, so the link, its addresses and the
// connections over it live on.
//
//	running ── process ends ──▶ down ── Start, restore, handshakes ──▶ running
//	                             ▲ └─ fails: wait, longer each time ─┐
//	                             └───────────────────────────────────┘
//
// Only the end of the link itself ends an Engine that was not closed.
//
// What is restored is what the engine last said of itself: at each change,
// whenever anybody asks for its state, and otherwise at intervals that grow
// from a second to half a minute, and further while nothing comes in: only a
// packet moves a peer's endpoint. A peer that has roamed since then is found
// again by its own next handshake, a quarter of a minute later.
package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"wireguard4netns/internal/sys"
	"wireguard4netns/internal/uapi"
)

// Why an Engine has ended: it is the error of all further requests.
var (
	ErrClosed   = errors.New("engine closed")
	ErrLinkGone = errors.New("TUN device is gone") // somebody deleted the link
)

const (
	firstPause  = 50 * time.Millisecond // after the second death in a row
	longPause   = 5 * time.Second
	steadyAfter = longPause // a process that lived so long did not die of its start

	firstPoll = time.Second      // after each change: peers are about to shake hands
	busyPoll  = 30 * time.Second // at most, while packets come in
	idlePoll  = 6 * time.Minute  // at most
)

// An Engine is a WireGuard engine that survives the death of its process.
type Engine struct {
	config  Config
	closing context.Context // its cause is why the engine has ended
	close   context.CancelCauseFunc
	kept    sync.WaitGroup
	changes chan struct{} // tells of a Set; holds one
	news    chan struct{} // see News; holds one
	trouble chan struct{} // holds one

	// turn is held for one request and what is learnt from its reply.
	turn sync.Mutex

	mu         sync.Mutex    // guards what follows
	process    *Process      // nil while down
	changed    chan struct{} // closed when process changes
	restarts   int
	device     uapi.Device // what the engine last said of itself
	learnt     time.Time   // and when
	configured bool        // a Set went well
	chosen     bool        // the listen port was asked for, not left to the engine
}

// Open starts an engine. It has no configuration until the first Set.
func Open(ctx context.Context, c Config) (*Engine, error) {
	trouble := make(chan struct{}, 1)
	c.trouble = func() {
		select {
		case trouble <- struct{}{}:
		default:
		}
	}
	p, err := Start(ctx, c)
	if err != nil {
		return nil, err
	}
	e := &Engine{config: c, process: p, changed: make(chan struct{}), changes: make(chan struct{}, 1), trouble: trouble, news: make(chan struct{}, 1)}
	e.closing, e.close = context.WithCancelCause(context.Background())
	e.kept.Go(func() { e.keep(p) })
	return e, nil
}

// Close ends the engine and waits for its process.
func (e *Engine) Close() {
	e.close(ErrClosed)
	e.kept.Wait()
}

// Done is closed when the engine has ended: after Close, or because nothing
// can bring it back.
func (e *Engine) Done() <-chan struct{} { return e.closing.Done() }

// Err tells why the engine has ended: ErrClosed, ErrLinkGone; nil before.
func (e *Engine) Err() error { return context.Cause(e.closing) }

// Trouble has a token when a look at the way to the peers is worth while: one does
// not answer, or packets are too large for it. Who waits here needs no polling.
func (e *Engine) Trouble() <-chan struct{} { return e.trouble }

// Pid is the number of the present process, zero while there is none.
func (e *Engine) Pid() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.process == nil {
		return 0
	}
	return e.process.Pid()
}

// Restarts counts the processes that took over from one that died.
func (e *Engine) Restarts() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.restarts
}

// News tells one reader that the engine has said how it is, to whoever asked, or
// that its process is another or gone.
func (e *Engine) News() <-chan struct{} { return e.news }

// Last returns what the engine last said of itself, without asking it.
func (e *Engine) Last() uapi.Device {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.device
}

// Get returns the body of the engine's configuration and state. It waits while
// the engine is down.
func (e *Engine) Get(ctx context.Context) ([]byte, error) {
	var reply []byte
	err := e.ask(ctx, func(p *Process) (err error) {
		reply, err = e.learn(p)
		return err
	})
	return reply, err
}

// Set applies the body of a set request. It waits while the engine is down,
// and asks the next process if one dies over it.
func (e *Engine) Set(ctx context.Context, body []byte) error {
	return e.ask(ctx, func(p *Process) error {
		err := p.Set(e.closing, body)
		if err == nil {
			e.noteSet(body)
		}
		// A refused request may have been applied in part.
		_, learnErr := e.learn(p)
		return errors.Join(err, learnErr)
	})
}

// ask has do put a request to the process that runs, and to the next one if
// that ends over it. A process that does not answer is ended.
func (e *Engine) ask(ctx context.Context, do func(*Process) error) error {
	var err error
	for range 2 {
		p, downErr := e.running(ctx)
		if downErr != nil {
			return downErr
		}
		e.turn.Lock()
		err = do(p)
		e.turn.Unlock()
		var refusal syscall.Errno
		if err == nil || errors.As(err, &refusal) && !died(refusal) {
			return err
		}
		if e.closing.Err() != nil {
			return e.Err()
		}
		p.Close() // most often it has ended before
	}
	return err
}

// died tells what a socket says of an end that is gone from what an engine
// answers.
func died(errno syscall.Errno) bool {
	return errno == syscall.EPIPE || errno == syscall.ECONNRESET
}

// running returns the present process, or the next.
func (e *Engine) running(ctx context.Context) (*Process, error) {
	for {
		e.mu.Lock()
		p, changed := e.process, e.changed
		e.mu.Unlock()
		if p != nil {
			select {
			case <-p.Done():
			default:
				return p, nil
			}
		}
		select {
		case <-changed:
		case <-e.closing.Done():
			return nil, e.Err()
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for engine: %w", ctx.Err())
		}
	}
}

// learn asks p for its state and remembers it.
func (e *Engine) learn(p *Process) ([]byte, error) {
	reply, err := p.Get(e.closing)
	if err != nil {
		return nil, err
	}
	d, err := uapi.Parse(bytes.NewReader(reply))
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.device, e.learnt = d, time.Now()
	put(e.news)
	return reply, nil
}

// noteSet remembers that there is a configuration, and whether somebody cares
// which port it is.
func (e *Engine) noteSet(body []byte) {
	put(e.changes)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.configured = true
	for line := range bytes.Lines(body) {
		if value, ok := bytes.CutPrefix(line, []byte("listen_port=")); ok {
			e.chosen = len(bytes.Trim(value, "0\n")) > 0
		}
	}
}

// keep watches over processes until Close: p is the first.
func (e *Engine) keep(p *Process) {
	for deaths := 0; ; deaths++ {
		started := time.Now()
		e.watch(p)
		e.become(nil)
		if e.closing.Err() != nil {
			p.Close()
			return
		}
		e.config.log(p.Err().Error())
		if time.Since(started) >= steadyAfter {
			deaths = 0
		}
		if p, deaths = e.revive(deaths); p == nil {
			return
		}
		e.become(p)
	}
}

// watch returns when p has ended or e is to. Meanwhile it asks p for its
// state, seldom while nothing comes in.
func (e *Engine) watch(p *Process) {
	for interval := firstPoll; ; {
		select {
		case <-p.Done():
			return
		case <-e.closing.Done():
			return
		case <-e.changes:
			interval = firstPoll
			continue
		case <-time.After(e.untilOld(interval)):
		}
		if e.untilOld(interval) > 0 {
			continue // somebody has asked meanwhile
		}
		before := e.received()
		e.turn.Lock()
		_, err := e.learn(p)
		e.turn.Unlock()
		if err != nil {
			p.Close()
			return
		}
		interval = nextPoll(interval, e.received() != before)
	}
}

// untilOld returns when what was learnt is as old as age.
func (e *Engine) untilOld(age time.Duration) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return age - time.Since(e.learnt)
}

func nextPoll(interval time.Duration, busy bool) time.Duration {
	if busy {
		return min(2*interval, busyPoll)
	}
	return min(2*interval, idlePoll)
}

func (e *Engine) received() (bytes uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.device.Peers {
		bytes += p.RxBytes
	}
	return bytes
}

func (e *Engine) become(p *Process) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.process = p; p != nil {
		e.restarts++
	}
	close(e.changed)
	e.changed = make(chan struct{})
	put(e.news)
}

// put leaves a message in a channel that holds one, unless one is there.
func put(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// revive starts processes until one runs with the last configuration, or e is
// closed (nil). Deaths counts those in a row, before and after.
func (e *Engine) revive(deaths int) (*Process, int) {
	for ; ; deaths++ {
		select {
		case <-time.After(pause(deaths)):
		case <-e.closing.Done():
			return nil, deaths
		}
		if e.linkGone() {
			e.close(ErrLinkGone)
			return nil, deaths
		}
		p, err := Start(e.closing, e.config)
		if err == nil {
			if err = e.restore(p); err == nil {
				return p, deaths
			}
			p.Close()
		}
		if e.closing.Err() != nil {
			return nil, deaths
		}
		e.config.log(err.Error())
	}
}

// linkGone tells whether the link behind the TUN device was deleted: the
// descriptor is then of no device (TUNGETIFF says EBADFD).
func (e *Engine) linkGone() bool {
	raw, err := e.config.TUN.SyscallConn()
	if err != nil {
		return false
	}
	var nameErr error
	err = raw.Control(func(fd uintptr) { _, nameErr = sys.TUNName(int(fd)) })
	return err == nil && errors.Is(nameErr, syscall.EBADFD)
}

// pause is how long to wait before the next start after that many deaths in a
// row that were not the first: not at all, then longer each time.
func pause(deaths int) time.Duration {
	if deaths == 0 {
		return 0
	}
	return min(firstPause<<min(deaths-1, 16), longPause)
}

// restore gives p the last known configuration and has it call its peers, so
// that they learn of the new process now and not by their timers. If meanwhile
// another program took a port that nobody asked for, any other does.
func (e *Engine) restore(p *Process) error {
	e.mu.Lock()
	device, configured, chosen := e.device, e.configured, e.chosen
	e.mu.Unlock()
	if !configured {
		return nil
	}
	err := p.Set(e.closing, device.Restore().Body())
	if errors.Is(err, syscall.EADDRINUSE) && !chosen {
		device.ListenPort = 0
		err = p.Set(e.closing, device.Restore().Body())
	}
	if err == nil {
		err = p.Set(e.closing, calls(device).Body())
	}
	if err != nil {
		return fmt.Errorf("restore configuration: %w", err)
	}
	return nil
}

// calls is a change that has an engine call each peer whose endpoint is known
// and leaves its configuration as it was: turning the persistent keepalive on
// sends one at once, and a keepalive needs a handshake. Peers that have it on
// were called when the device came up.
func calls(d uapi.Device) uapi.Update {
	on, off := time.Second, time.Duration(0)
	var u uapi.Update
	for _, p := range d.Peers {
		if !p.Endpoint.IsValid() || p.PersistentKeepalive != 0 {
			continue
		}
		for _, interval := range []*time.Duration{&on, &off} {
			u.Peers = append(u.Peers, uapi.PeerUpdate{
				PublicKey: p.PublicKey, UpdateOnly: true, PersistentKeepalive: interval,
			})
		}
	}
	return u
}
