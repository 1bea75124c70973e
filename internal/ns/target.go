package ns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/sys"
)

// Target names a network namespace that something else made. One of PID, Path
// and FD is set.
type Target struct {
	PID        int
	Path       string
	FD         int    // borrowed; used when PID is 0 and Path is empty
	Given      string // what messages call it; empty: by the above
	UserNSPath string // the user namespace to join; empty: the one that owns the network namespace
}

func (t Target) String() string {
	switch {
	case t.Given != "":
		return t.Given
	case t.PID != 0:
		return fmt.Sprintf("process %d", t.PID)
	case t.Path != "":
		return t.Path
	}
	return fmt.Sprintf("fd:%d", t.FD)
}

var procNetNS = regexp.MustCompile(`^/proc/([0-9]+)/ns/net$`)

// ParseTarget reads a PID, a path, or "fd:N". The path /proc/PID/ns/net is that
// of a process and means it.
func ParseTarget(s string) (Target, error) {
	if pid, err := strconv.Atoi(s); err == nil {
		if pid <= 0 {
			return Target{}, fmt.Errorf("target %q: a PID is a positive number", s)
		}
		return Target{PID: pid}, nil
	}
	if m := procNetNS.FindStringSubmatch(s); m != nil {
		pid, err := strconv.Atoi(m[1])
		return Target{PID: pid}, err
	}
	if n, ok := strings.CutPrefix(s, "fd:"); ok {
		fd, err := strconv.Atoi(n)
		if err != nil || fd < 0 {
			return Target{}, fmt.Errorf("target %q: after fd: comes the number of an open descriptor", s)
		}
		return Target{FD: fd}, nil
	}
	if s == "" {
		return Target{}, errors.New("target is empty: give a PID, a path or fd:N")
	}
	return Target{Path: s}, nil
}

// Open holds the namespaces of the target.
func Open(t Target) (*Set, error) {
	net, err := t.openNet()
	if err != nil {
		return nil, err
	}
	s := &Set{Net: net}
	if kind, err := sys.NSType(int(net.Fd())); err != nil || kind != unix.CLONE_NEWNET {
		s.Close()
		return nil, fmt.Errorf("%s: %w", t, ErrNotNetNS)
	}
	if t.UserNSPath != "" {
		s.User, err = openUser(t.UserNSPath)
	} else {
		s.User, err = sys.UserNSOf(int(net.Fd()))
	}
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%s: %w: %w", t, ErrTargetDenied, err)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	own, err := identityAt("/proc/self/ns/user")
	if err != nil {
		s.Close()
		return nil, err
	}
	if id, err := identityOf(s.User); err == nil && id == own {
		s.User.Close() // joining the own user namespace is EINVAL, setns(2)
		s.User = nil
	}
	return s, nil
}

func openUser(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if kind, err := sys.NSType(int(f.Fd())); err != nil || kind != unix.CLONE_NEWUSER {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, ErrNotUserNS)
	}
	return f, nil
}

func (t Target) openNet() (*os.File, error) {
	path := t.Path
	switch {
	case t.PID != 0:
		path = fmt.Sprintf("/proc/%d/ns/net", t.PID)
	case path == "":
		fd, err := unix.FcntlInt(uintptr(t.FD), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t, err)
		}
		return os.NewFile(uintptr(fd), t.String()), nil
	}
	f, err := os.Open(path)
	switch {
	case t.PID != 0 && errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH):
		return nil, fmt.Errorf("%s: %w", t, ErrTargetGone)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s: %w: %w", t, ErrTargetDenied, err)
	}
	return f, err
}

// Wait blocks until the target is over: for a PID until no process is left in
// its network namespace, for a path until that no longer leads to the namespace,
// for a descriptor until ctx ends. It returns nil then, and the cause of ctx when
// that ends first.
func (t Target) Wait(ctx context.Context, s *Set) error {
	switch {
	case t.PID != 0:
		return s.WaitEmpty(ctx)
	case t.Path != "":
		return t.waitPath(ctx, s)
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// pathCheck is how often a path is looked at when no mount event tells of it: it
// may lie in another mount namespace.
const pathCheck = 10 * time.Second

func (t Target) waitPath(ctx context.Context, s *Set) error {
	held, err := s.NetIdentity()
	if err != nil {
		return err
	}
	// A change of the mount table is an exceptional condition, proc(5). It is
	// told once: not as an os.File, where the runtime's own poll takes it.
	mounts, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: "/proc/self/mountinfo", Err: err}
	}
	defer unix.Close(mounts)
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	defer unix.Close(wake)
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		close(woken)
	})
	defer func() {
		if !stop() {
			<-woken
		}
	}()
	for ctx.Err() == nil {
		if id, err := identityAt(t.Path); err != nil || id != held {
			return nil
		}
		fds := []unix.PollFd{{Fd: int32(mounts), Events: unix.POLLPRI}, {Fd: int32(wake), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, int(pathCheck.Milliseconds())); err != nil && err != unix.EINTR {
			return os.NewSyscallError("poll", err)
		}
	}
	return context.Cause(ctx)
}
