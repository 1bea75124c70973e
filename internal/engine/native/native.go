package native

import (
	"context"
	"errors"
	"net"
	"runtime"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/uapi"
)

// Options says how an engine runs.
type Options struct {
	MTU     int               // of the link
	Log     func(line string) // called from many goroutines; lines hold no keys
	Verbose bool              // log each handshake
	// Trouble is called when a look at the way to the peers is worth while: one
	// does not answer, or a packet was too large. Not more often than once a
	// second; nil: nobody asks.
	Trouble func()
	// Limits of sessions, if not the protocol's.
	Limits *Limits
	// Threads for each direction, which are all at work all the time; zero: as many
	// as the processors are good for, and at work when there is need.
	Threads  int
	patience int // of their crews
	// Seal is called once, when all that needs rights or files is open and
	// before the first configuration. Its error ends Run.
	Seal func() error
}

// maxThreads bounds those of one direction. They take and give one at a time, which
// is about half of the work: more would wait for each other.
const maxThreads = 4

// threads is how many are of use for each direction. On two processors more than one
// only costs; and others want to run as well.
func threads() int { return min(max(1, runtime.GOMAXPROCS(0)/2), maxThreads) }

// spare is how many of the Go scheduler's processors there are besides those for the
// threads that move packets. The scheduler takes a processor from a thread that
// sleeps in the kernel only when it has no other, and as long as it takes some, it
// looks for more each 20 µs (sysmon in package runtime): with none to spare, that and
// the wake-ups that follow cost a third of all time.
const spare = 2

// garbage is how much of it there may be, in percent of what lives (runtime/debug).
// Packets make none, requests and handshakes little: by default it would grow to
// more than all the rest.
const garbage = 25

// Run moves packets between the TUN device and its peers, configured by the
// requests on control, until control ends (nil), the TUN device ends, or ctx
// does. It takes ownership of the descriptor and of control.
func Run(ctx context.Context, tunFD int, control net.Conn, o Options) error {
	if o.Threads == 0 {
		o.Threads, o.patience = threads(), patience
	}
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), 2*o.Threads+spare))
	debug.SetGCPercent(garbage)
	e, err := newEngine(tunFD, o)
	if err != nil {
		return errors.Join(err, unix.Close(tunFD), control.Close())
	}
	ctx, e.fail = context.WithCancelCause(ctx)
	defer e.close()
	if err := o.Seal(); err != nil {
		return errors.Join(err, control.Close())
	}
	e.ended = ctx.Done()
	e.threads.Go(func() { e.device.answerer.run(ctx) })
	err = uapi.Serve(ctx, control, e, uapi.Limits{})
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// An engine is a device between a link and a socket, and the threads that move
// packets. It answers configuration requests (uapi.Engine).
type engine struct {
	device *device
	link   *link
	wire   *socket

	fail    context.CancelCauseFunc // ends the engine
	ended   <-chan struct{}
	in, out *crew
	threads sync.WaitGroup

	mu   sync.Mutex // held for one request
	port uint16     // asked for
	mark uint32
}

func newEngine(tunFD int, o Options) (*engine, error) {
	e := &engine{wire: newSocket()}
	e.device = newDevice(e.wire, o)
	e.wire.log, e.wire.narrow = e.device.log, e.device.trouble
	var err error
	if e.link, err = openLink(tunFD, e.device.log); err != nil {
		return nil, err
	}
	for _, c := range []**crew{&e.in, &e.out} {
		if *c, err = newCrew(o.Threads, o.patience); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// close ends the threads and closes all descriptors.
func (e *engine) close() {
	e.fail(nil)
	e.in.stop()
	e.out.stop()
	e.threads.Wait()
	for _, p := range e.device.all() {
		e.device.remove(p)
	}
	e.in.close()
	e.out.close()
	_ = unix.Close(e.link.fd)
	if e.up() {
		_ = unix.Close(e.wire.fd)
	}
}

// Get returns the configuration and state.
func (e *engine) Get(context.Context) ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.describe(), nil
}

// Set applies body. The engine comes up with the first that goes well: before,
// it would bind a port that nobody asked for.
func (e *engine) Set(_ context.Context, body []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	mark := e.mark
	if err := e.apply(body); err != nil || e.up() {
		return err
	}
	err := e.start()
	if err != nil {
		e.mark = mark // it may be the reason, and would be again
	}
	return err
}

// up tells whether packets are moved.
func (e *engine) up() bool { return e.wire.fd >= 0 }

// start binds the port and starts the threads.
func (e *engine) start() error {
	fd, port, v4, err := openSocket(e.port, e.mark)
	if err != nil {
		return err
	}
	e.wire.fd, e.wire.port, e.wire.v4 = fd, port, v4
	e.wire.probe()
	to := &delivery{device: e.device, coalescer: coalescer{sink: e.link, udp: e.link.udp, off: !e.link.vnet}}
	e.man(e.in, fd, func() hand { return newInbound(e.device, e.wire, to) })
	e.man(e.out, e.link.fd, func() hand { return newOutbound(e.device, e.link) })
	for _, p := range e.device.all() {
		p.settle(p.keepalive.Load() > 0)
	}
	return nil
}

// man starts a crew.
func (e *engine) man(c *crew, fd int, newHand func() hand) {
	c.fd = fd
	c.hire = func() {
		e.threads.Go(func() {
			if err := c.run(newHand()); err != nil {
				e.fail(err)
			}
		})
	}
	c.man()
}

// setPort moves to another port. The socket there is bound before that of the
// old one is let go.
func (e *engine) setPort(port uint16) error {
	e.port = port
	if !e.up() || port == e.wire.port {
		return nil
	}
	fd, bound, _, err := openSocket(port, e.mark)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Dup3(fd, e.wire.fd, unix.O_CLOEXEC); err != nil {
		return err
	}
	e.wire.port = bound
	// The thread may sleep over the old socket, and keep its port in use.
	e.in.bell.ring()
	select {
	case <-e.in.bell.heard:
	case <-e.ended:
	}
	return nil
}

func (e *engine) setMark(mark uint32) error {
	if mark == e.mark {
		return nil
	}
	if e.up() {
		if err := markSocket(e.wire.fd, mark); err != nil {
			return err
		}
	}
	e.mark = mark
	return nil
}
