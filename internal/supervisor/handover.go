package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/sandbox"
	"wireguard4netns/internal/tunnel"
)

// Errors of handing over that a caller can tell apart with errors.Is.
var (
	ErrNotHeld  = errors.New("it was not made by up, and ends with its program")
	ErrFormat   = errors.New("its version and this one cannot hand over to each other")
	ErrSettings = errors.New("it was made with other flags")
	errNoBinary = errors.New("no program came with the request")
)

// A supervisor that is asked to hands all over to another version of the program
// by executing it: the process, and so its place in a service, stays the same.
//
//	who asks                 supervisor                    the next one
//	Replace, with its own
//	program's descriptor ──▶ await the command outside,
//	                         read no more requests;
//	                         engine's state, descriptors,
//	                         who is connected: all into a
//	                         file in memory; exec ───────▶ kill the old engine,
//	                                                       Start from what was kept,
//	                    ◀── Again, to others ────────────  those whose request is open
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

type handedConn struct {
	FD, App int
	Begun   []byte `json:",omitempty"` // was read of what has not been understood yet
	Files   []int  `json:",omitempty"` // came with that
	Busy    bool   `json:",omitempty"` // a request was not answered: it is to come again
}

// handoverFormat is that of this version; another number for each change of what is
// in handover that the other side would not understand.
const handoverFormat = 1

// resumeArg follows Argv0 in the arguments of the next supervisor; the descriptor
// of the handover follows.
const resumeArg = "resume"

// Replace asks a supervisor to become the program that it comes with.
type Replace struct {
	Format   int
	Settings map[string]string `json:",omitempty"` // the tunnel must have been started with
}

// others returns the settings that the tunnel was not started with.
func (r Replace) others(start Start) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(r.Settings)) {
		if was, ok := start.Settings[name]; !ok || was != r.Settings[name] {
			names = append(names, name)
		}
	}
	return names
}

// replace hands over to the program exe. It returns only with an error.
func (c *control) replace(asker *conn, r Replace, exe *os.File) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	switch {
	case r.Format != handoverFormat:
		return ErrFormat
	case c.isEnding():
		return ErrEnding
	}
	select {
	case <-c.held:
	default:
		return ErrNotHeld
	}
	if others := r.others(c.start); len(others) > 0 {
		return fmt.Errorf("%w: %s", ErrSettings, strings.Join(others, ", "))
	}
	defer c.t.HoldOutside()()
	running, err := c.t.Engine.Get(c.ctx)
	switch {
	case c.isEnding():
		return ErrEnding
	case err != nil:
		return err
	}
	defer clear(running)
	defer c.quiet(asker)()
	if c.isEnding() {
		return ErrEnding
	}
	// What is made to survive exec is not to get into other processes: none is
	// started from here on.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	h, err := c.pack(asker)
	defer h.close()
	if err != nil {
		return err
	}
	h.Start.Running = running
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
	return fmt.Errorf("execute the new program: %w", err)
}

// sendTime bounds how long who does not read his answer is waited for.
const sendTime = time.Second

// quiet has nothing come in, and nothing but to asker go out, until its result is
// called: what others want is in their sockets, or noted as busy.
func (c *control) quiet(asker *conn) (end func()) {
	others := func() []*conn {
		c.mu.Lock()
		defer c.mu.Unlock()
		return slices.DeleteFunc(slices.Collect(maps.Keys(c.conns)), func(conn *conn) bool { return conn == asker })
	}
	past := time.Unix(1, 0)
	c.door.close(func() {
		c.listener.SetDeadline(past)
		for _, conn := range others() {
			conn.stream.SetReadDeadline(past)
			conn.stream.SetWriteDeadline(time.Now().Add(sendTime))
		}
	})
	silenced := others()
	for _, conn := range silenced {
		conn.sending.Lock()
	}
	return func() {
		for _, conn := range silenced {
			conn.stream.SetDeadline(time.Time{})
			conn.sending.Unlock()
		}
		c.listener.SetDeadline(time.Time{})
		c.door.open()
	}
}

// pack collects all that the next supervisor needs. The descriptors in it are
// copies that survive exec, also after an error.
func (c *control) pack(asker *conn) (h *handover, err error) {
	h = &handover{Format: handoverFormat, Start: c.start, Kept: map[string]int{}, Engine: c.t.Engine.Pid()}
	h.Start.Request = c.t.Request()
	kept, err := c.t.Keep()
	if err != nil {
		return h, err
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
		handed := handedConn{FD: inheritable(conn.stream, &errs), App: conn.app, Begun: conn.unread(), Busy: conn != asker && conn.busy}
		if conn != asker && !handed.Busy {
			for _, f := range conn.files {
				handed.Files = append(handed.Files, inheritable(f, &errs))
			}
		}
		h.Conns = append(h.Conns, handed)
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
		fds = append(append(fds, c.FD), c.Files...)
	}
	return slices.DeleteFunc(fds, func(fd int) bool { return fd < 0 })
}

// close closes the copies.
func (h *handover) close() {
	for _, fd := range h.descriptors() {
		unix.Close(fd)
	}
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
	endChildren(h.Engine)
	files := map[string]*os.File{}
	for name, fd := range h.Kept {
		files[name] = os.NewFile(uintptr(fd), name)
	}
	if h.Start.Kept, err = tunnel.NewKept(files); err != nil {
		return err
	}
	h.Start.Kept.Lock = os.NewFile(uintptr(h.Lock), "lock")
	conns := map[*conn]handedConn{}
	var asker *conn
	for i, handed := range h.Conns {
		c, err := newConn(os.NewFile(uintptr(handed.FD), "control"))
		if err != nil {
			return err
		}
		c.goOn(handed.Begun)
		for _, fd := range handed.Files {
			c.files = append(c.files, os.NewFile(uintptr(fd), "received"))
		}
		conns[c] = handed
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

// endChildren ends what the process had started before its exec, and waits for it: an
// engine reads from the TUN device until then. The kernel ends children with the
// threads that made them, so nobody is asked in vain.
func endChildren(engine int) {
	pids := []int{engine}
	// proc_pid_task_children(5); not in every kernel.
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
	if err == nil {
		pids = nil
		for word := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	for _, pid := range pids {
		if pid > 0 {
			unix.Kill(pid, unix.SIGKILL)
			for again := unix.EINTR; again == unix.EINTR; {
				_, err := unix.Wait4(pid, nil, 0, nil)
				again, _ = err.(syscall.Errno)
			}
		}
	}
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
func goOn(ctx context.Context, start Start, l *net.UnixListener, conns map[*conn]handedConn, asker *conn) error {
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
	for c, handed := range conns {
		ctl.take(c, handed.App)
		if handed.Busy {
			c.send(message{Again: true})
		}
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
// is in it and its connections live on. It is refused if the tunnel was not started
// with the settings.
func (s *Supervisor) Replace(settings map[string]string, say func(string)) error {
	// Whom the file allows to execute it, it need not allow to read it.
	exe, err := os.OpenFile("/proc/self/exe", unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer exe.Close()
	if err := s.ask(message{Replace: &Replace{Format: handoverFormat, Settings: settings}}, exe); err != nil {
		return err
	}
	return s.awaitDone(say)
}
