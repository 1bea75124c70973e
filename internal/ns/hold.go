package ns

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/sys"
)

// HoldArgv0 is the name of the role of the process that Hold starts.
const HoldArgv0 = "wireguard4netns-hold"

// HoldMain is that role: to be there.
func HoldMain() int {
	for {
		unix.Pause()
	}
}

// A holder is a process in the namespaces by whose entry in /proc others can join
// them: that of the supervisor is closed to them, for it has keys, and an app is
// below, in namespaces of its own. It has no capabilities and no keys.
type holder struct {
	mu    sync.Mutex
	pid   int // 0: none
	ended chan struct{}
}

// Hold returns the number of a process that stands for the namespaces, and starts it
// if need be. It ends with the Set, and with this process.
func (s *Set) Hold() (pid int, err error) {
	s.holder.mu.Lock()
	defer s.holder.mu.Unlock()
	if s.Mount == nil {
		return 0, errors.New("hold namespaces: they are not ours")
	}
	if s.holder.pid != 0 {
		select {
		case <-s.holder.ended: // somebody killed it
		default:
			return s.holder.pid, nil
		}
	}
	n := sys.Nest{
		UserNS: int(s.User.Fd()), NetNS: int(s.Net.Fd()), MountNS: int(s.Mount.Fd()), Joined: true,
		Dir: "/", Path: []string{"/proc/self/exe"}, Args: []string{HoldArgv0}, Env: []string{"GOMAXPROCS=1"}, FirstClosed: 0,
	}
	type start struct {
		pid int
		err error
	}
	started := make(chan start, 1)
	ended := make(chan struct{})
	go func() {
		// The parent-death signal comes when this thread ends.
		runtime.LockOSThread()
		pid, err := n.Start()
		started <- start{pid, err}
		if err == nil {
			await(pid)
		}
		close(ended)
	}()
	holder := <-started
	if holder.err != nil {
		return 0, fmt.Errorf("hold namespaces: %w", holder.err)
	}
	s.holder.pid, s.holder.ended = holder.pid, ended
	return holder.pid, nil
}

func await(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

// end ends the process and waits for that.
func (h *holder) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pid == 0 {
		return
	}
	select {
	case <-h.ended: // its number may be another's
	default:
		unix.Kill(h.pid, unix.SIGKILL)
		<-h.ended
	}
	h.pid = 0
}

// number is that of the process, or 0.
func (h *holder) number() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pid
}
