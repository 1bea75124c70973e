package sys

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// StepError says which step of a forked child failed.
type StepError struct {
	Step string
	Err  error
}

func (e *StepError) Error() string { return e.Step + ": " + e.Err.Error() }
func (e *StepError) Unwrap() error { return e.Err }

// Steps of Join, as they appear in a StepError.
const (
	StepFork        = "fork"
	StepJoinUserNS  = "join user namespace"
	StepJoinNetNS   = "join network namespace"
	StepOpenTUN     = "open /dev/net/tun"
	StepCreateTUN   = "create TUN device"
	StepOpenNetlink = "open netlink socket"
)

var joinSteps = []string{StepFork, StepJoinUserNS, StepJoinNetNS, StepOpenTUN, StepCreateTUN, StepOpenNetlink}

const (
	joinUser = 1 + iota
	joinNet
	joinOpenTUN
	joinTUN
	joinNetlink
)

// ifreq is struct ifreq of netdevice(7), as far as TUNSETIFF reads it.
type ifreq struct {
	name  [unix.IFNAMSIZ]byte
	flags uint16
	_     [22]byte
}

var devNetTun = []byte("/dev/net/tun\x00")

// Join makes a TUN device and a route-netlink socket inside a network namespace
// and returns both file descriptors, which the caller owns. They are
// close-on-exec and blocking: a non-blocking TUN would, by the Go runtime's epoll,
// wake the caller for each packet, though it only holds it. Both keep belonging to
// that namespace wherever they are used. userns is the user namespace that owns netns, or -1
// when it is the caller's own. tunFlags are the IFF_ flags of TUNSETIFF. An empty
// name makes no TUN, and tun is then -1.
//
// The work is done by a child that shares the caller's descriptor table
// (CLONE_FILES), so nothing is passed, executed or left inside. An error is a
// *StepError.
func Join(userns, netns int, name string, tunFlags uint16) (tun, netlink int, err error) {
	if len(name) >= unix.IFNAMSIZ {
		return -1, -1, &StepError{StepCreateTUN, unix.ENAMETOOLONG}
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return -1, -1, &StepError{StepFork, err}
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])

	job := joinJob{userns: userns, netns: netns, pipe: uintptr(pipe[1])}
	if name != "" {
		copy(job.req.name[:], name)
		job.req.flags = tunFlags
		job.tun = true
	}
	pid, errno := forkJoin(&job)
	if errno != 0 {
		return -1, -1, &StepError{StepFork, errno}
	}
	reap(pid)
	runtime.KeepAlive(&job)

	o, ok := receive(pipe[0])
	if !ok {
		return -1, -1, &StepError{StepFork, fmt.Errorf("child %d ended without a word", pid)}
	}
	if o.errno != 0 {
		for _, fd := range o.fds {
			if fd >= 0 {
				unix.Close(int(fd))
			}
		}
		return -1, -1, &StepError{joinSteps[o.step], syscall.Errno(o.errno)}
	}
	return int(o.fds[0]), int(o.fds[1]), nil
}

type joinJob struct {
	userns, netns int
	tun           bool
	pipe          uintptr
	req           ifreq
}

//go:norace
func forkJoin(job *joinJob) (pid int, errno syscall.Errno) {
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	runtimeBeforeFork()
	child, errno := clone(unix.CLONE_FILES)
	if errno == 0 && child == 0 {
		joinChild(job)
	}
	runtimeAfterFork()
	return int(child), errno
}

// joinChild runs in the forked child; see fork.go for what it may not do.
//
//go:nosplit
//go:norace
//go:noinline
func joinChild(job *joinJob) {
	o := outcome{fds: [2]int32{-1, -1}}
	var errno syscall.Errno
	var fd uintptr

	if job.userns >= 0 {
		o.step = joinUser
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETNS, uintptr(job.userns), unix.CLONE_NEWUSER, 0); errno != 0 {
			goto end
		}
	}
	o.step = joinNet
	if _, _, errno = syscall.RawSyscall(unix.SYS_SETNS, uintptr(job.netns), unix.CLONE_NEWNET, 0); errno != 0 {
		goto end
	}
	if job.tun {
		o.step = joinOpenTUN
		fd, _, errno = syscall.RawSyscall6(unix.SYS_OPENAT, atFDCWD, uintptr(unsafe.Pointer(&devNetTun[0])),
			unix.O_RDWR|unix.O_CLOEXEC, 0, 0, 0)
		if errno != 0 {
			goto end
		}
		o.fds[0] = int32(fd)
		o.step = joinTUN
		if _, _, errno = syscall.RawSyscall(unix.SYS_IOCTL, fd, unix.TUNSETIFF, uintptr(unsafe.Pointer(&job.req))); errno != 0 {
			goto end
		}
	}
	o.step = joinNetlink
	fd, _, errno = syscall.RawSyscall(unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if errno == 0 {
		o.fds[1] = int32(fd)
	}
end:
	o.errno = int32(errno)
	o.send(job.pipe)
	exit(0)
}

// atFDCWD is AT_FDCWD as an argument of a raw system call.
const atFDCWD = ^uintptr(99)
