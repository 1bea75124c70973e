package sys

// A process may only join or create a user namespace while it has one thread
// (setns(2), user_namespaces(7)), and a Go process never has. What has one
// thread is the child of a bare clone(2): a copy of the memory with only the
// calling thread in it. In that child there is no scheduler, no garbage
// collector and no signal handler, so all code that runs there
//
//   - is nosplit and norace, makes no allocation and takes no lock;
//   - calls nothing but RawSyscall;
//   - never returns: it ends in exit_group or execve.
//
// syscall.forkExec in the standard library lives by the same rules. The three
// runtime functions below are the ones it uses around the clone; the runtime
// keeps them linkable for programs like this one (runtime/proc.go names gVisor).

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

//go:linkname runtimeAfterForkInChild syscall.runtime_AfterForkInChild
func runtimeAfterForkInChild()

// clone starts a child that shares nothing with the caller but what flags say.
// It returns 0 in the child, with all signals blocked.
//
//go:nosplit
//go:norace
func clone(flags uintptr) (pid uintptr, errno syscall.Errno) {
	pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, flags|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	return pid, errno
}

// exit ends a forked child.
//
//go:nosplit
//go:norace
func exit(code uintptr) {
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, code, 0, 0)
	}
}

// outcome is what a forked child tells its parent through a pipe: how far it
// came, and what it leaves behind.
type outcome struct {
	step  int32
	errno int32
	fds   [2]int32
}

const outcomeSize = unsafe.Sizeof(outcome{})

//go:nosplit
//go:norace
func (o *outcome) send(fd uintptr) {
	syscall.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(o)), outcomeSize)
}

// receive reads the outcome that a child left in the pipe. ok is false when the
// child ended without a word.
func receive(fd int) (o outcome, ok bool) {
	buf := unsafe.Slice((*byte)(unsafe.Pointer(&o)), outcomeSize)
	for {
		n, err := unix.Read(fd, buf)
		if err == unix.EINTR {
			continue
		}
		return o, err == nil && n == int(outcomeSize)
	}
}

// reap waits for a forked child.
func reap(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}
