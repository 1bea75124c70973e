package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/ns"
	"wireguard4netns/internal/service"
	"wireguard4netns/internal/state"
	"wireguard4netns/internal/tunnel"
)

// Errors that a caller can tell apart with errors.Is.
var (
	ErrNoTunnel = errors.New("no tunnel of this name")
	ErrNotOurs  = errors.New("the namespaces of this tunnel were made by something else")

	ErrNoControl = errors.New("its control socket was removed")
	ErrEnding    = errors.New("it is being ended")
)

// The control socket, DIR/control, speaks the language of message.go:
//
//	who asks                               supervisor
//	Join                          ──▶
//	                              ◀──      Ready with the namespaces' descriptors
//	App: a program runs in them   ──▶
//	                              ◀──      Over: it has ended
//	Hold                          ──▶
//	                              ◀──      Held: the process by which others join,
//	                                       or Failed
//	AskStatus                     ──▶
//	                              ◀──      Status; without Look but for its Processes,
//	                                       and with the Place of those
//	Reload: another file          ──▶
//	                              ◀──      Say: a line for the user (any number)
//	                              ◀──      Done or Failed
//	Replace, with a program       ──▶      becomes that: see handover.go
//	                              ◀──      Again, to all whose request it has not
//	                                       answered: they send it once more
//	                              ◀──      Done or Failed
//	Down                          ──▶
//	                              ◀──      Say: a line for the user (any number)
//	                              ◀──      Over: undone
//
// Anybody who still listens when the tunnel ends is told Over.
type control struct {
	t        *tunnel.Tunnel
	start    Start           // what the supervisor was started for
	ctx      context.Context // ends with the tunnel
	held     <-chan struct{} // closed when the tunnel lives by itself
	down     func()
	listener *net.UnixListener

	changing sync.Mutex // held by one Reload or Replace
	ending   bool       // under changing: none begins any more

	door gate // through which requests come

	mu    sync.Mutex
	conns map[*conn]bool
	ended bool
	serve sync.WaitGroup
}

const (
	controlName = "control"
	maxControl  = 64 // connections at a time
)

// listenControl makes the socket in the tunnel's directory, which is not yet
// visible. down is called when somebody wants the tunnel's end.
func listenControl(ctx context.Context, t *tunnel.Tunnel, start Start, held <-chan struct{}, down func()) (*control, error) {
	dir, err := os.Open(t.Dir.Path())
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	l, err := net.ListenUnix("unix", controlAddr(dir))
	if err != nil {
		return nil, fmt.Errorf("listen on control socket: %w", err)
	}
	return newControl(ctx, t, start, held, l, down), nil
}

// newControl answers on l, which it owns.
func newControl(ctx context.Context, t *tunnel.Tunnel, start Start, held <-chan struct{}, l *net.UnixListener, down func()) *control {
	l.SetUnlinkOnClose(false) // the directory goes, and was renamed
	c := &control{t: t, start: start, ctx: ctx, held: held, down: down, listener: l, conns: map[*conn]bool{}}
	c.door.moved.L = &c.door.mu
	c.serve.Go(c.accept)
	return c
}

// take answers on a connection that the supervisor before had; app is the process
// that it waits for, if not 0.
func (c *control) take(conn *conn, app int) {
	c.mu.Lock()
	c.conns[conn] = true
	c.mu.Unlock()
	c.serve.Go(func() { c.answer(conn) })
	if app != 0 {
		c.await(conn, app)
	}
}

// await tells conn when process app has ended.
func (c *control) await(conn *conn, app int) {
	c.mu.Lock()
	conn.app = app
	c.mu.Unlock()
	c.serve.Go(func() {
		if ns.WaitExit(c.ctx, app) == nil {
			conn.send(message{Over: overDetached})
		}
	})
}

// controlAddr names the socket in an open directory: a path may be longer than
// the 108 bytes of unix(7).
func controlAddr(dir *os.File) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + controlName}
}

func (c *control) accept() {
	for {
		err := c.acceptOne()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			time.Sleep(time.Second) // out of descriptors: the next may have one
		}
	}
}

func (c *control) acceptOne() error {
	c.door.enter()
	defer c.door.leave()
	stream, err := c.listener.AcceptUnix()
	if err != nil {
		return err
	}
	conn := connOf(stream)
	if !ownUser(stream) || !c.add(conn) {
		return conn.Close()
	}
	c.serve.Go(func() { c.answer(conn) })
	return nil
}

// next returns the next request on conn.
func (c *control) next(conn *conn) (m message, err error) {
	for {
		c.door.enter()
		m, err = conn.receive()
		conn.setBusy(err == nil)
		c.door.leave()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return m, err
		}
	}
}

// ownUser tells whether the other end is a process of this uid.
func ownUser(stream *net.UnixConn) bool {
	raw, err := stream.SyscallConn()
	if err != nil {
		return false
	}
	own := false
	raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		own = err == nil && int(cred.Uid) == os.Getuid()
	})
	return own
}

func (c *control) add(conn *conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || len(c.conns) >= maxControl {
		return false
	}
	c.conns[conn] = true
	return true
}

func (c *control) remove(conn *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
	conn.Close()
}

func (c *control) answer(conn *conn) {
	defer c.remove(conn)
	for {
		m, err := c.next(conn)
		if err != nil {
			return
		}
		switch {
		case (m.Join || m.Hold) && c.t.NS.Mount == nil:
			conn.send(message{Failed: newRemoteError(ErrNotOurs)})
		case m.Join:
			conn.send(ready(c.t), c.t.NS.Files()...)
		case m.App != nil:
			c.await(conn, m.App.Pid)
			conn.setBusy(false)
		case m.Hold:
			pid, err := c.t.NS.Hold()
			if err != nil {
				conn.send(message{Failed: newRemoteError(err)})
				continue
			}
			conn.send(message{Held: pid})
		case m.AskStatus:
			conn.send(c.status(m.Look))
		case m.Reload != nil:
			conn.send(c.reload(conn, *m.Reload))
		case m.Replace != nil:
			files := conn.takeFiles()
			err := errNoBinary
			if len(files) == 1 {
				err = c.replace(conn, *m.Replace, files[0])
			}
			for _, f := range files {
				f.Close()
			}
			conn.send(message{Failed: newRemoteError(err)})
		case m.Down:
			c.mu.Lock()
			conn.down = true
			c.mu.Unlock()
			c.down()
			conn.setBusy(false)
		}
	}
}

// status answers AskStatus. To look through /proc is most of what it costs, and who
// asks many tunnels does so once for all.
func (c *control) status(look bool) message {
	s := status(c.t)
	if !look {
		place, _ := c.t.NS.Place()
		return message{Status: s, Place: place}
	}
	s.Processes, _ = c.t.NS.Members()
	return message{Status: s}
}

func (c *control) reload(conn *conn, r Reload) message {
	c.changing.Lock()
	defer c.changing.Unlock()
	if c.isEnding() {
		return message{Failed: newRemoteError(ErrEnding)}
	}
	c.start.Service.Tell(service.Reloading())
	defer c.start.Service.Tell(service.Ready)
	say := func(line string) { conn.send(message{Say: line}) }
	err := c.t.Reload(c.ctx, r.Conf, r.Name, say)
	if err != nil && c.isEnding() {
		err = ErrEnding
	}
	if err != nil {
		return message{Failed: newRemoteError(err)}
	}
	return message{Done: true}
}

// isEnding is asked while c.changing is held.
func (c *control) isEnding() bool { return c.ending || c.ctx.Err() != nil }

// settle returns when nobody changes the tunnel any more: it can be undone.
func (c *control) settle() {
	c.changing.Lock()
	defer c.changing.Unlock()
	c.ending = true
}

// close tells all who listen that the tunnel is undone.
func (c *control) close() {
	c.listener.Close()
	c.mu.Lock()
	c.ended = true
	for conn := range c.conns {
		if line := c.t.Unsaved(); line != "" && conn.down {
			conn.send(message{Say: line})
		}
		conn.send(message{Over: overUndone})
		conn.Close()
	}
	c.mu.Unlock()
	c.serve.Wait()
}

// Dial returns the supervisor of a tunnel that stands, through its control socket.
func Dial(root, name string) (*Supervisor, error) {
	if !state.IsName(name) {
		return nil, fmt.Errorf("%q: %w", name, ErrNoTunnel)
	}
	dir, err := os.Open(filepath.Join(root, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", name, ErrNoTunnel)
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	stream, err := net.DialUnix("unix", nil, controlAddr(dir))
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil, fmt.Errorf("%s: %w", name, errors.Join(ErrNoTunnel, state.RemoveStale(root)))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, unreachable(root, name)
	}
	if err != nil {
		return nil, fmt.Errorf("reach tunnel %s: %w", name, err)
	}
	return &Supervisor{conn: connOf(stream), root: root}, nil
}

// unreachable says why a tunnel's directory has no control socket.
func unreachable(root, name string) error {
	if err := state.RemoveStale(root); err != nil {
		return fmt.Errorf("reach tunnel %s: %w", name, err)
	}
	if names, err := state.List(root); err == nil && !slices.Contains(names, name) {
		return fmt.Errorf("%s: %w", name, ErrNoTunnel) // it was ending, or its supervisor killed
	}
	return fmt.Errorf("reach tunnel %s: %w: process %s has it", name, ErrNoControl, state.Owner(root, name))
}

// Join gets the namespaces of the tunnel.
func (s *Supervisor) Join() error {
	if err := s.ask(message{Join: true}); err != nil {
		return err
	}
	for {
		m, err := s.receive()
		switch {
		case err != nil:
			return s.died(err)
		case m.Failed != nil:
			return m.Failed
		case m.Ready != nil:
			s.Ready = *m.Ready
			s.NS, err = ns.FromFiles(s.conn.takeFiles())
			return err
		}
	}
}

// Hold returns the number of a process by whose entry in /proc others can join the
// tunnel's namespaces. It lives as long as the supervisor.
func (s *Supervisor) Hold() (pid int, err error) {
	if err := s.ask(message{Hold: true}); err != nil {
		return 0, err
	}
	for {
		m, err := s.receive()
		switch {
		case err != nil:
			return 0, s.died(err)
		case m.Failed != nil:
			return 0, m.Failed
		case m.Held != 0:
			return m.Held, nil
		}
	}
}

// Status asks how the tunnel is.
func (s *Supervisor) Status() (*Status, error) {
	status, _, err := s.askStatus(true)
	return status, err
}

func (s *Supervisor) askStatus(look bool) (*Status, ns.Place, error) {
	if err := s.ask(message{AskStatus: true, Look: look}); err != nil {
		return nil, ns.Place{}, err
	}
	for {
		m, err := s.receive()
		switch {
		case err != nil:
			return nil, ns.Place{}, s.died(err)
		case m.Status != nil:
			return m.Status, m.Place, nil
		}
	}
}

// addMembers says who is in the places of tunnels.
func addMembers(all []*Status, places []ns.Place) error {
	members, err := ns.Members(places)
	for i, pids := range members {
		if places[i] != (ns.Place{}) { // else its supervisor is of an older version, and has looked
			all[i].Processes = pids
		}
	}
	return err
}

// atOnce is how many tunnels Statuses asks at the same time.
const atOnce = 32

// Statuses asks tunnels how they are. What it returns of each is at its place in
// names: a Status or an error.
func Statuses(root string, names []string) ([]*Status, []error) {
	all, errs := make([]*Status, len(names)), make([]error, len(names))
	places := make([]ns.Place, len(names))
	turns := make(chan struct{}, atOnce)
	var asking sync.WaitGroup
	for i, name := range names {
		turns <- struct{}{}
		asking.Go(func() {
			defer func() { <-turns }()
			s, err := Dial(root, name)
			if err == nil {
				all[i], places[i], err = s.askStatus(false)
				s.conn.Close()
			}
			errs[i] = err
		})
	}
	asking.Wait()
	answered := make([]*Status, 0, len(names))
	for i, s := range all {
		if s != nil {
			places[len(answered)] = places[i]
			answered = append(answered, s)
		}
	}
	if err := addMembers(answered, places[:len(answered)]); err != nil {
		for i := range names {
			all[i], errs[i] = nil, errors.Join(errs[i], err)
		}
	}
	return all, errs
}

// Reload makes the tunnel what r says. say gets a line for each thing that the user
// should know.
func (s *Supervisor) Reload(r Reload, say func(string)) error {
	if err := s.ask(message{Reload: &r}); err != nil {
		return err
	}
	return s.awaitDone(say)
}

// awaitDone waits for the answer to a request that changes the tunnel.
func (s *Supervisor) awaitDone(say func(string)) error {
	for {
		m, err := s.receive()
		switch {
		case err != nil:
			return s.died(err)
		case m.Say != "":
			say(m.Say)
		case m.Failed != nil:
			return m.Failed
		case m.Done:
			return nil
		}
	}
}

// Down ends the tunnel and returns when it is undone. say gets a line for each thing
// the user should know.
func (s *Supervisor) Down(say func(string)) error {
	if err := s.ask(message{Down: true}); err != nil {
		return err
	}
	return s.AwaitOver(say)
}
