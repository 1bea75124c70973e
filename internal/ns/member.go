package ns

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Place is a network namespace, for a process that has no descriptor of it.
type Place struct {
	Net  Identity
	Hold int // the process of Set.Hold, which does not count; 0: none
}

// Place returns that of the Set.
func (s *Set) Place() (Place, error) {
	id, err := s.NetIdentity()
	return Place{Net: id, Hold: s.holder.number()}, err
}

// Members returns the PIDs of the processes in the network namespace, as far as
// /proc shows them to this process. That of Hold is not among them.
func (s *Set) Members() ([]int, error) {
	p, err := s.Place()
	if err != nil {
		return nil, err
	}
	all, err := Members([]Place{p})
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// Members returns the PIDs of the processes in each of places. It looks through
// /proc once, which is what it costs.
func Members(places []Place) ([][]int, error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	index := make(map[Identity]int, len(places))
	for i, p := range places {
		index[p.Net] = i
	}
	pids := make([][]int, len(places))
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		id, err := identityAt("/proc/" + name + "/ns/net")
		if err != nil {
			continue
		}
		if i, wanted := index[id]; wanted && pid != places[i].Hold {
			pids[i] = append(pids[i], pid)
		}
	}
	return pids, nil
}

// WaitEmpty blocks until no process is left in the network namespace. It waits
// for one process after the other to end and looks again then, so it costs
// nothing in between. It returns the cause of ctx when that ends first.
func (s *Set) WaitEmpty(ctx context.Context) error {
	// /proc is not read at one instant: a child can appear behind the reader
	// while its parent ends before it. Nobody is left when two looks say so.
	for empty := 0; empty < 2; {
		pids, err := s.Members()
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			empty++
			continue
		}
		empty = 0
		if err := WaitExit(ctx, pids[0]); err != nil {
			return err
		}
	}
	return nil
}

// KillAll ends every process in the network namespace, those too that they start
// meanwhile.
func (s *Set) KillAll(ctx context.Context) error {
	for {
		pids, err := s.Members()
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if err := s.kill(pid); err != nil {
				return fmt.Errorf("kill process %d: %w", pid, err)
			}
		}
		if err := WaitExit(ctx, pids[0]); err != nil {
			return err
		}
	}
}

// kill sends SIGKILL to a process if it still is in the network namespace.
func (s *Set) kill(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// With the pidfd open the number cannot be another process's any more.
	id, err := s.NetIdentity()
	if err != nil {
		return err
	}
	if got, err := identityAt(fmt.Sprintf("/proc/%d/ns/net", pid)); err != nil || got != id {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return err
	}
	return nil
}

// WaitExit blocks until process pid has ended; it need not be a child.
func WaitExit(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	return waitPidfd(ctx, os.NewFile(uintptr(fd), "pidfd"))
}

// waitPidfd blocks until the process behind the pidfd has ended, and closes
// the pidfd. It must be non-blocking (PIDFD_NONBLOCK).
func waitPidfd(ctx context.Context, pidfd *os.File) error {
	defer pidfd.Close()
	stop := context.AfterFunc(ctx, func() { pidfd.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	err = raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return err == nil && n > 0
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
