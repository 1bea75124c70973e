package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/sandbox"
	"wireguard4netns/internal/uapi"
)

// Argv0 is the name under which this program becomes an engine process: who
// finds it as os.Args[0] calls Main.
const Argv0 = "wireguard4netns-engine"

// MaxMTU is the largest packet that an engine sends: what is left of the largest UDP
// datagram over IPv4 (ip(7), udp(7)) behind 32 bytes of WireGuard's own.
const MaxMTU = 1<<16 - 1 - 20 - 8 - 32

// answerTime is how long a process may take to answer one request, the first
// with its start: more is a process that hangs.
const answerTime = 10 * time.Second

// patience is answerTime, but for tests.
func (c Config) patience() time.Duration {
	if c.answerTime > 0 {
		return c.answerTime
	}
	return answerTime
}

// Config says what an engine works on.
type Config struct {
	Exe     string            // program that calls Main; default /proc/self/exe
	IfName  string            // of the link, for who reads ps
	MTU     int               // of the link; above MaxMTU packets are lost
	TUN     *os.File          // borrowed for the life of the engine
	Engine  string            // Native or WireGuardGo; empty: the default
	Sandbox sandbox.Level     // what is asked; see package sandbox
	Verbose bool              // log each handshake
	Log     func(line string) // nil: nothing is logged. Called from other goroutines; lines hold no keys

	trouble    func() // the process said troubleLine
	answerTime time.Duration
}

// troubleLine is the one line that an engine process writes beside those of its
// log: something is wrong with the way to a peer.
const troubleLine = "trouble"

// line takes what the process wrote.
func (c Config) line(text string) {
	switch {
	case text != troubleLine:
		c.log(text)
	case c.trouble != nil:
		c.trouble()
	}
}

func (c Config) log(line string) {
	if c.Log != nil {
		c.Log(line)
	}
}

// A Process is one engine process, from its start to its end.
type Process struct {
	process  *os.Process
	conn     *uapi.Conn
	patience time.Duration
	done     chan struct{}
	err      error // valid when done is closed
}

// Start starts an engine process and returns when it has sealed itself and
// answers. The process ends when the returned Process is closed, and with this
// process, however that ends.
func Start(ctx context.Context, c Config) (*Process, error) {
	p, err := start(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	return p, nil
}

func start(ctx context.Context, c Config) (*Process, error) {
	o := options{ifName: c.IfName, mtu: min(c.MTU, MaxMTU), verbose: c.Verbose, sandbox: c.Sandbox, engine: c.Engine}
	if c.Sandbox == sandbox.None {
		return launch(ctx, c, o, nil)
	}
	p, err := launch(ctx, c, o, sandbox.Namespace)
	var refused *spawnError
	if !errors.As(err, &refused) {
		return p, err
	}
	notes, err := sandbox.Degrade(c.Sandbox, sandbox.Missing{sandbox.Namespaces: refused})
	if err != nil {
		return nil, err
	}
	_ = notes // the process repeats them
	o.noNamespaces = refused.Error()
	return launch(ctx, c, o, nil)
}

// spawnError is the kernel's refusal to make the process at all.
type spawnError struct{ error }

func (e *spawnError) Unwrap() error { return e.error }

// launch makes the process and waits for its first answer. confine, when not
// nil, adds to how it is made.
func launch(ctx context.Context, c Config, o options, confine func(*syscall.SysProcAttr)) (*Process, error) {
	near, far, err := socketPair()
	if err != nil {
		return nil, err
	}
	logs, stderr, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, near.Close(), far.Close())
	}
	attr := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if confine != nil {
		confine(attr)
	}
	p := &Process{conn: uapi.NewConn(near), patience: c.patience(), done: make(chan struct{})}
	err = p.spawn(c, o, attr, far, stderr, logs)
	_ = far.Close()
	_ = stderr.Close()
	if err != nil {
		return nil, errors.Join(&spawnError{err}, near.Close(), logs.Close())
	}
	if _, err := p.Get(ctx); err != nil {
		p.Close()
		return nil, fmt.Errorf("%w (%w)", p.err, err)
	}
	return p, nil
}

// socketPair returns the stream for requests and the end that is the child's.
func socketPair() (near net.Conn, far *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	far = os.NewFile(uintptr(fds[1]), "control")
	f := os.NewFile(uintptr(fds[0]), "control")
	defer f.Close()
	if near, err = net.FileConn(f); err != nil {
		return nil, nil, errors.Join(err, far.Close())
	}
	return near, far, nil
}

// spawn makes the process and the goroutines that wait for it. On success it
// owns logs.
func (p *Process) spawn(c Config, o options, attr *syscall.SysProcAttr, control, stderr, logs *os.File) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	exe := c.Exe
	if exe == "" {
		exe = "/proc/self/exe"
	}
	made := make(chan error)
	go func() {
		// The kernel sends the parent-death signal when the *thread* that
		// made the child ends (prctl(2)): this one waits with the child.
		runtime.LockOSThread()
		err := sandbox.Exposed(func() (err error) {
			p.process, err = os.StartProcess(exe, append([]string{Argv0}, o.args()...), &os.ProcAttr{
				Dir:   "/",
				Env:   environment(),
				Files: []*os.File{null, null, stderr, c.TUN, control},
				Sys:   attr,
			})
			return err
		})
		made <- err
		if err == nil {
			p.wait(readLines(logs, c.line))
		}
	}()
	return <-made
}

// environment holds what the Go runtime must know before main: no stack traces
// (arguments are keys), and a number of threads that it need not read from
// files which the engine cannot open.
func environment() []string {
	return []string{
		"GOTRACEBACK=none",
		"GOMAXPROCS=" + strconv.Itoa(runtime.GOMAXPROCS(0)),
	}
}

// wait collects the end of the process.
func (p *Process) wait(lastLine func() string) {
	state, err := p.process.Wait()
	_ = p.conn.Close()
	last := lastLine()
	switch {
	case err != nil:
		p.err = fmt.Errorf("wait for engine: %w", err)
	case last != "" && state.Exited():
		p.err = fmt.Errorf("engine ended (%v): %s", state, last)
	default:
		p.err = fmt.Errorf("engine ended (%v)", state)
	}
	close(p.done)
}

// readLines passes each line of r on, and closes r at its end. The function it
// returns waits for that and tells the last line.
func readLines(r io.ReadCloser, do func(line string)) (last func() string) {
	var line string
	var reading sync.WaitGroup
	reading.Go(func() {
		defer r.Close()
		b := bufio.NewReader(r)
		for {
			text, long, err := b.ReadLine()
			if err != nil {
				return
			}
			if !long { // else it is no line of ours
				line = string(text)
				do(line)
			}
		}
	})
	return func() string {
		reading.Wait()
		return line
	}
}

// Get returns the body of the engine's configuration and state.
func (p *Process) Get(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, p.patience)
	defer cancel()
	return p.conn.Get(ctx)
}

// Set applies the body of a set request.
func (p *Process) Set(ctx context.Context, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, p.patience)
	defer cancel()
	return p.conn.Set(ctx, body)
}

// Pid is the process's number.
func (p *Process) Pid() int { return p.process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err tells why the process ended. It is valid when Done is closed.
func (p *Process) Err() error { return p.err }

// Close ends the process at once and waits for that. WireGuard has no goodbye:
// nothing would be gained by asking it.
func (p *Process) Close() {
	_ = p.process.Kill()
	<-p.done
}
