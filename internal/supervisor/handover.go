package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/sandbox"
	"wireguard4netns/internal/tunnel"
)

// Errors of handing over that a caller can tell apart with errors.Is.
var (
	ErrNotHeld  = errors.New("it was not made by up, and ends with its program")
	ErrFormat   = errors.New("its version and this one cannot hand over to each other")
	errNoBinary = errors.New("no program came with the request")
)

// A supervisor that is asked to hands all over to another version of the program
// by executing it: the process, and so its place in a service, stays the same.
//
//	who asks                 supervisor                    the next one
//	Replace, with its own
//	program's descriptor ──▶ engine's state, descriptors,
//	                         who is connected: all into a
//	                         file in memory; exec ───────▶ kill the old engine,
//	                                                       Start from what was kept,
//	                    ◀── Done ────────────────────────  go on
//
// What happens when exec fails: nothing has changed. When the next one fails: the
// process ends, and what is inside has no network.
//
// Connections to the control socket live on; those to the UAPI socket end.
type handover struct {
	Format  int
	Start   Start
	Kept    map[string]int // descriptors by the names of tunnel.Keep
	Lock    int            // of the tunnel's directory
	Control int            // the listening socket
	Conns   []handedConn
	Asker   int // index in Conns
	Engine  int // process
}

type handedConn struct{ FD, App int }

// handoverFormat is that of this version; another number for each change of what is
// in handover that the other side would not understand.
const handoverFormat = 1

// resumeArg follows Argv0 in the arguments of the next supervisor; the descriptor
// of the handover follows.
const resumeArg = "resume"

// Replace asks a supervisor to become the program that it comes with.
type Replace struct{ Format int }

// replace hands over to the program exe. It returns only with an error.
func (c *control) replace(asker *conn, r Replace, exe *os.File) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	switch {
	case exe == nil:
		return errNoBinary
	case r.Format != handoverFormat:
		return ErrFormat
	}
	select {
	case <-c.held:
	default:
		return ErrNotHeld
	}
	h, err := c.pack(asker)
	if err != nil {
		return err
	}
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	defer clear(text)
	memory, err := unix.MemfdCreate("handover", 0) // not close-on-exec
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	defer unix.Close(memory)
	if _, err := unix.Write(memory, text); err != nil {
		return os.NewSyscallError("write", err)
	}
	args := []string{Argv0, resumeArg, strconv.Itoa(memory)}
	err = unix.Exec("/proc/self/fd/"+strconv.Itoa(int(exe.Fd())), args, []string{"GOTRACEBACK=none"})
	for _, fd := range h.descriptors() {
		unix.Close(fd)
	}
	return fmt.Errorf("execute the new program: %w", err)
}

// pack collects all that the next supervisor needs. The descriptors in it are
// copies that survive exec.
func (c *control) pack(asker *conn) (h *handover, err error) {
	h = &handover{Format: handoverFormat, Start: c.start, Kept: map[string]int{}, Engine: c.t.Engine.Pid()}
	h.Start.Request = c.t.Request()
	if h.Start.Running, err = c.t.Engine.Get(c.ctx); err != nil {
		return nil, err
	}
	kept, err := c.t.Keep()
	if err != nil {
		return nil, err
	}
	var errs []error
	for name, f := range kept {
		h.Kept[name] = inheritable(f, &errs)
	}
	h.Lock = inheritable(c.t.Dir.Lock(), &errs)
	h.Control = inheritable(c.listener, &errs)
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		if conn == asker {
			h.Asker = len(h.Conns)
		}
		h.Conns = append(h.Conns, handedConn{inheritable(conn.stream, &errs), conn.app})
	}
	return h, errors.Join(errs...)
}

// inheritable returns a copy of a descriptor that a program executed by this one
// finds open.
func inheritable(f syscall.Conn, errs *[]error) (fd int) {
	raw, err := f.SyscallConn()
	if err == nil {
		err = errors.Join(raw.Control(func(original uintptr) { fd, err = unix.FcntlInt(original, unix.F_DUPFD, 3) }), err)
	}
	if err != nil {
		*errs = append(*errs, os.NewSyscallError("dup", err))
		return -1
	}
	return fd
}

// descriptors lists all that h has.
func (h *handover) descriptors() []int {
	fds := []int{h.Lock, h.Control}
	for _, fd := range h.Kept {
		fds = append(fds, fd)
	}
	for _, c := range h.Conns {
		fds = append(fds, c.FD)
	}
	return slices.DeleteFunc(fds, func(fd int) bool { return fd < 0 })
}

// resume is the role of the next supervisor: memory is the descriptor of the
// handover.
func resume(ctx context.Context, memory string) error {
	if err := sandbox.HideMemory(); err != nil {
		return err
	}
	h, err := unpack(memory)
	if err != nil {
		return err
	}
	for _, fd := range h.descriptors() {
		unix.CloseOnExec(fd)
	}
	if h.Engine > 0 {
		// It is a child, and reads from the TUN device until it has ended.
		unix.Kill(h.Engine, unix.SIGKILL)
		unix.Wait4(h.Engine, nil, 0, nil)
	}
	for {
		// The kernel ended the other children, with the threads that made them.
		if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 && err != unix.EINTR {
			break
		}
	}
	files := map[string]*os.File{}
	for name, fd := range h.Kept {
		files[name] = os.NewFile(uintptr(fd), name)
	}
	if h.Start.Kept, err = tunnel.NewKept(files); err != nil {
		return err
	}
	h.Start.Kept.Lock = os.NewFile(uintptr(h.Lock), "lock")
	conns := map[*conn]int{}
	var asker *conn
	for i, handed := range h.Conns {
		c, err := newConn(os.NewFile(uintptr(handed.FD), "control"))
		if err != nil {
			return err
		}
		conns[c] = handed.App
		if i == h.Asker {
			asker = c
		}
	}
	l, err := net.FileListener(os.NewFile(uintptr(h.Control), "control"))
	if err != nil {
		return err
	}
	if err := goOn(ctx, h.Start, l.(*net.UnixListener), conns, asker); err != nil {
		asker.send(message{Failed: newRemoteError(err)})
		return err
	}
	return nil
}

func unpack(memory string) (*handover, error) {
	fd, err := strconv.Atoi(memory)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "handover")
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, 0, maxHandover))
	if err != nil {
		return nil, err
	}
	defer clear(text)
	h := new(handover)
	if err := json.Unmarshal(text, h); err != nil {
		return nil, err
	}
	if h.Format != handoverFormat || len(h.Conns) <= h.Asker {
		return nil, ErrFormat
	}
	return h, nil
}

// maxHandover bounds the file, in bytes: what a file and an engine say of 10,000
// peers is far below.
const maxHandover = 64 << 20

// goOn makes a tunnel of what the one before left, and serves it until it is over.
func goOn(ctx context.Context, start Start, l *net.UnixListener, conns map[*conn]int, asker *conn) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	t, err := tunnel.Start(ctx, start.Request, func(line string) { asker.send(message{Say: line}) })
	if err != nil {
		return err
	}
	if err := t.Settle(); err != nil {
		return errors.Join(err, t.Close())
	}
	held := make(chan struct{})
	close(held)
	ctl := newControl(ctx, t, start, held, l, func() { end(errTold) })
	for c, app := range conns {
		ctl.take(c, app)
	}
	a, err := attend(t, start)
	if err != nil {
		t.Log(err.Error()) // the tunnel is worth more
	}
	asker.send(message{Done: true})
	a.begin(ctx)
	serve(ctx, end, t, start, asker, nil, held)
	end(nil)
	undo(t, ctl, a, start)
	return nil
}

// Replace makes a tunnel's supervisor become this very program. The tunnel, what
// is in it and its connections live on.
func (s *Supervisor) Replace(say func(string)) error {
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer exe.Close()
	if err := s.conn.send(message{Replace: &Replace{Format: handoverFormat}}, exe); err != nil {
		return err
	}
	return s.awaitDone(say)
}
