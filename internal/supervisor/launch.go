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

	conn    *conn
	asked   message // what is to be answered
	files   []*os.File
	root    string
	process *os.Process // a child of this process; nil: reached by Dial
}

// Launch starts a supervisor and returns when its tunnel stands. stored are
// descriptors that a service manager kept, by name; Launch owns them. say gets a line
// for each thing that the user should know. exit may be nil; else its end of file
// ends the tunnel. The supervisor is in a session of its own and has the null
// device for input and output; stderr, if not nil, gets what it would print when
// it crashes.
func Launch(ctx context.Context, start Start, stored map[string]*os.File, exit *os.File, stderr *os.File, say func(string)) (*Supervisor, error) {
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
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{Argv0}
	cmd.Env = []string{"GOTRACEBACK=none"}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{theirs, exit, nil}
	start.ExitFD = exit != nil
	if t := start.Target; t != nil && t.PID == 0 && t.Path == "" {
		cmd.ExtraFiles[netnsFD-socketFD] = os.NewFile(uintptr(t.FD), "target")
		moved := *t
		moved.FD, moved.Given = netnsFD, t.String()
		start.Target = &moved
	}
	if stderr != nil {
		cmd.Stderr = stderr
		cmd.Env = []string{"GOTRACEBACK=all"}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	theirs.Close() // or its end would not be seen
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("start supervisor: %w", err)
	}
	s.process = cmd.Process
	stop := context.AfterFunc(ctx, func() { c.stream.CloseWrite() })
	defer stop()
	err = s.start(start, stored, say)
	for _, f := range stored {
		f.Close()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Supervisor) start(start Start, stored map[string]*os.File, say func(string)) error {
	var files []*os.File
	for name, f := range stored {
		start.Stored = append(start.Stored, name)
		files = append(files, f)
	}
	if err := s.conn.send(message{Start: &start}, files...); err != nil {
		return s.died(err)
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

// ask sends a request, for which the caller then waits by receive; files stay the
// caller's, and are to be open until then.
func (s *Supervisor) ask(m message, files ...*os.File) error {
	s.asked, s.files = m, files
	if err := s.conn.send(m, files...); err != nil {
		return s.died(err)
	}
	return nil
}

// receive returns the next message, and asks again where a supervisor that took over
// wants that.
func (s *Supervisor) receive() (message, error) {
	for {
		m, err := s.conn.receive()
		if err != nil || !m.Again {
			return m, err
		}
		if err := s.conn.send(s.asked, s.files...); err != nil {
			return m, err
		}
	}
}

// died tidies up after a supervisor that was killed.
func (s *Supervisor) died(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		err = ErrDied
	}
	// The kernel closes its socket before it lets go of its lock.
	s.reap()
	return errors.Join(err, state.RemoveStale(s.root))
}

// AppStarted tells the supervisor whom it serves; it goes on alone from here.
func (s *Supervisor) AppStarted(app App) error {
	return s.ask(message{App: &app})
}

// Detach tells the supervisor to go on alone, and returns when it does. One that was
// reached by Dial is only let go of.
func (s *Supervisor) Detach(say func(string)) error {
	if s.process == nil {
		return s.conn.Close()
	}
	if err := s.conn.send(message{Detach: true}); err != nil {
		return s.died(err)
	}
	return s.AwaitOver(say)
}

// Socket returns a copy of the connection, for who takes over the front.
func (s *Supervisor) Socket() (*os.File, error) { return s.conn.stream.File() }

// Wait blocks until the tunnel is over, or ends it when ctx ends first.
func (s *Supervisor) Wait(ctx context.Context, say func(string)) error {
	stop := context.AfterFunc(ctx, func() { s.conn.stream.CloseWrite() })
	defer stop()
	if err := s.awaitOver(say, func(over string) bool { return over == overUndone }); err != nil {
		return err
	}
	s.reap()
	return nil
}

// Process returns the number of the supervisor's process if that is a child of
// this one, else 0.
func (s *Supervisor) Process() int {
	if s.process == nil {
		return 0
	}
	return s.process.Pid
}

// reap waits for the end of the supervisor's process if that is a child.
func (s *Supervisor) reap() error {
	if s.process == nil {
		return nil
	}
	_, err := s.process.Wait()
	return err
}

// Adopt returns the supervisor behind a front's Socket, which it owns, for the
// program that goes on as that front after an exec, and as the parent of process
// pid, if that is not 0.
func Adopt(socket *os.File, pid int, root string) (*Supervisor, error) {
	c, err := newConn(socket)
	if err != nil {
		return nil, err
	}
	s := &Supervisor{conn: c, root: root}
	if pid == 0 {
		return s, nil
	}
	if s.process, err = os.FindProcess(pid); err != nil {
		c.Close()
		return nil, err
	}
	return s, nil
}

// AwaitOver returns when the supervisor, who knows of the app, has undone the
// tunnel or goes on alone with what the app left behind, and ErrDied when it was
// killed.
func (s *Supervisor) AwaitOver(say func(string)) error {
	return s.awaitOver(say, func(string) bool { return true })
}

// awaitOver waits for an Over that is enough.
func (s *Supervisor) awaitOver(say func(string), enough func(over string) bool) error {
	defer s.conn.Close()
	for {
		m, err := s.receive()
		switch {
		case err != nil:
			return s.died(err)
		case m.Say != "":
			say(m.Say)
		case m.Over != "" && enough(m.Over):
			return nil
		}
	}
}

// Close ends the tunnel and waits for its undoing.
func (s *Supervisor) Close() error {
	defer s.conn.Close()
	s.conn.stream.CloseWrite()
	return s.reap()
}
