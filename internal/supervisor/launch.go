package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/ns"
	"wireguard4netns/internal/state"
)

// ErrDied: the supervisor ended without a word.
var ErrDied = errors.New("the supervisor died")

// Supervisor is a running one, as its front sees it.
type Supervisor struct {
	Ready
	NS *ns.Set // run: the namespaces of the tunnel; nil otherwise

	conn *conn
	root string
	cmd  *exec.Cmd // nil: adopted
}

// Launch starts a supervisor and returns when its tunnel stands. say gets a line
// for each thing that the user should know. exit may be nil; else its end of file
// ends the tunnel. The supervisor is in a session of its own and has the null
// device for input and output; stderr, if not nil, gets what it would print when
// it crashes.
func Launch(ctx context.Context, start Start, exit *os.File, stderr *os.File, say func(string)) (*Supervisor, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "supervisor")
	c, err := newConn(os.NewFile(uintptr(fds[0]), "supervisor"))
	if err != nil {
		theirs.Close()
		return nil, err
	}
	s := &Supervisor{conn: c, root: start.Root}
	s.cmd = exec.Command("/proc/self/exe")
	s.cmd.Args = []string{Argv0}
	s.cmd.Env = []string{"GOTRACEBACK=none"}
	s.cmd.Dir = "/"
	s.cmd.ExtraFiles = []*os.File{theirs, exit, nil}
	start.ExitFD = exit != nil
	if t := start.Target; t != nil && t.PID == 0 && t.Path == "" {
		s.cmd.ExtraFiles[netnsFD-socketFD] = os.NewFile(uintptr(t.FD), "target")
		moved := *t
		moved.FD = netnsFD
		start.Target = &moved
	}
	if stderr != nil {
		s.cmd.Stderr = stderr
		s.cmd.Env = []string{"GOTRACEBACK=all"}
	}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = s.cmd.Start()
	theirs.Close() // or its end would not be seen
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("start supervisor: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { c.stream.CloseWrite() })
	defer stop()
	if err := s.start(start, say); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Supervisor) start(start Start, say func(string)) error {
	if err := s.conn.send(message{Start: &start}); err != nil {
		return fmt.Errorf("start supervisor: %w", err)
	}
	for {
		m, err := s.conn.receive()
		switch {
		case err != nil:
			return s.died(err)
		case m.Say != "":
			say(m.Say)
		case m.Failed != nil:
			return m.Failed
		case m.Ready != nil:
			s.Ready = *m.Ready
			if start.Target != nil {
				return nil
			}
			s.NS, err = ns.FromFiles(s.conn.takeFiles())
			return err
		}
	}
}

// died tidies up after a supervisor that was killed.
func (s *Supervisor) died(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		err = ErrDied
	}
	if s.cmd != nil {
		s.cmd.Wait()
	}
	return errors.Join(err, state.RemoveStale(s.root))
}

// AppStarted tells the supervisor whom it serves; it goes on alone from here.
func (s *Supervisor) AppStarted(app App) error { return s.conn.send(message{App: &app}) }

// Detach tells the supervisor to go on alone.
func (s *Supervisor) Detach() error {
	defer s.conn.Close()
	return s.conn.send(message{Detach: true})
}

// Socket returns a copy of the connection, for who takes over the front.
func (s *Supervisor) Socket() (*os.File, error) { return s.conn.stream.File() }

// Wait blocks until the tunnel is over, or ends it when ctx ends first.
func (s *Supervisor) Wait(ctx context.Context, say func(string)) error {
	stop := context.AfterFunc(ctx, func() { s.conn.stream.CloseWrite() })
	defer stop()
	defer s.conn.Close()
	for {
		m, err := s.conn.receive()
		switch {
		case err != nil:
			return s.died(err)
		case m.Say != "":
			say(m.Say)
		case m.Over == overUndone:
			if s.cmd != nil {
				s.cmd.Wait()
			}
			return nil
		}
	}
}

// Adopt returns the supervisor behind a front's Socket, which it owns, for the
// program that goes on as that front after an exec.
func Adopt(socket *os.File, root string) (*Supervisor, error) {
	c, err := newConn(socket)
	if err != nil {
		return nil, err
	}
	return &Supervisor{conn: c, root: root}, nil
}

// AwaitOver returns when the supervisor, who knows of the app, has undone the
// tunnel or goes on alone with what the app left behind, and ErrDied when it was
// killed.
func (s *Supervisor) AwaitOver(say func(string)) error {
	defer s.conn.Close()
	for {
		m, err := s.conn.receive()
		switch {
		case err != nil:
			return errors.Join(ErrDied, state.RemoveStale(s.root))
		case m.Say != "":
			say(m.Say)
		case m.Over != "":
			return nil
		}
	}
}

// Close ends the tunnel and waits for its undoing.
func (s *Supervisor) Close() error {
	defer s.conn.Close()
	s.conn.stream.CloseWrite()
	if s.cmd != nil {
		return s.cmd.Wait()
	}
	for {
		if _, err := s.conn.receive(); err != nil {
			return nil
		}
	}
}
