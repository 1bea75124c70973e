package sandbox

import (
	"os"

	"golang.org/x/sys/unix"
)

// A rule allows a system call when all of its conditions hold. A call may have
// several rules.
type rule struct {
	call string
	when []condition
}

// condition compares one argument.
type condition struct {
	argument uint32
	is       test
	value    uint64
}

type test int

const (
	equal test = iota
	withoutBits
)

// engineCalls is what an engine on the Go runtime does once all is open.
// Names that an architecture has not are left out there. The first of the list
// are met first by each packet.
//
// Each call is here because a process died without it. Some are rare: pread64
// (the runtime reads the CPU limit of its cgroup once a second unless
// GOMAXPROCS is set), ppoll (wireguard-go's netlink listener, only when it
// loses a race), uname and netlink sockets (each time the port changes).
func engineCalls() []rule {
	return append(allowed(
		// packets
		"read", "write", "readv", "writev", "sendmmsg", "recvmmsg", "sendmsg", "recvmsg", "sendto", "recvfrom",
		// scheduler
		"futex", "epoll_pwait", "epoll_pwait2", "epoll_wait", "nanosleep", "clock_nanosleep", "clock_gettime",
		"gettimeofday", "sched_yield", "sched_getaffinity", "restart_syscall", "gettid", "getpid",
		"epoll_create1", "epoll_ctl", "eventfd2", "pipe2", "ppoll", "poll", "close", "fcntl",
		"timer_create", "timer_settime", "timer_delete",
		// signals and threads
		"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "set_robust_list", "rseq",
		"exit", "exit_group",
		// memory
		"madvise", "munmap", "mincore", "brk", "getrandom",
		// sockets
		"getsockname", "getpeername", "getsockopt", "setsockopt", "shutdown", "bind", "uname",
		"dup3", // a new port keeps the descriptor of the old
		// the runtime's look at limits
		"pread64", "fstat", "prlimit64",
	), []rule{
		{"mmap", notExecutable(2)},
		{"mprotect", notExecutable(2)},
		{"clone", []condition{{0, equal, goThread}}},
		{"clone", []condition{{0, equal, goThread | unix.CLONE_SETTLS}}}, // amd64
		{"tgkill", []condition{{0, equal, uint64(os.Getpid())}}},
		{"prctl", []condition{{0, equal, unix.PR_SET_VMA}}},
		{"socket", []condition{{0, equal, unix.AF_INET}, {1, equal, datagram}}},
		{"socket", []condition{{0, equal, unix.AF_INET6}, {1, equal, datagram}}},
		{"socket", []condition{
			{0, equal, unix.AF_NETLINK}, {1, equal, unix.SOCK_RAW | unix.SOCK_CLOEXEC}, {2, equal, unix.NETLINK_ROUTE},
		}},
	}...)
}

const (
	// goThread is cloneFlags of the Go runtime (runtime/os_linux.go).
	goThread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND |
		unix.CLONE_SYSVSEM | unix.CLONE_THREAD
	// datagram is the type of socket that package net asks for.
	datagram = unix.SOCK_DGRAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
)

func allowed(calls ...string) []rule {
	rules := make([]rule, len(calls))
	for i, call := range calls {
		rules[i].call = call
	}
	return rules
}

func notExecutable(argument uint32) []condition {
	return []condition{{argument, withoutBits, unix.PROT_EXEC}}
}
