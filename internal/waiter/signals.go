package waiter

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/sys"
)

// passed are the signals that are passed on: all that do not belong to the
// process itself (SIGCHLD, faults) and can be caught.
func passed() (list []unix.Signal) {
	for s := unix.Signal(1); s <= 64; s++ {
		switch s {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGURG, // the last is the Go runtime's
			unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGSYS,
			unix.SIGPROF, unix.SIGVTALRM, unix.SIGXCPU, unix.SIGTTIN, unix.SIGTTOU, 32, 33, 34:
		default:
			list = append(list, s)
		}
	}
	return list
}

// ending are the signals that end a program, without those that are ignored.
func ending() (list []os.Signal) {
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		if !signal.Ignored(s) {
			list = append(list, s)
		}
	}
	return list
}

// ignoreQuit ignores SIGQUIT where SIGINT is: a shell without job control starts
// what is to run in the background with both ignored.
func ignoreQuit() {
	if signal.Ignored(unix.SIGINT) {
		signal.Ignore(unix.SIGQUIT)
	}
}

// pass sends the app what was sent to this process and not to the app.
func pass(signals <-chan sys.Signal, pidfd int) {
	for s := range signals {
		if !s.Kernel || s.Number == unix.SIGHUP && sessionLeader() {
			unix.PidfdSendSignal(pidfd, s.Number, nil, 0)
		}
	}
}

func sessionLeader() bool {
	session, err := unix.Getsid(0)
	return err == nil && session == os.Getpid()
}
