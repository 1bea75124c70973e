// Package waiter stands in for the app towards whoever started it: it passes
// signals on, stops when the app stops and ends with its exit code.
//
// The process that starts an app becomes the waiter by an exec of itself. That
// leaves nothing in its memory of the configuration it has read, and gives it
// what a Go program cannot have otherwise: signals that are blocked in all its
// threads from the first instruction on and so can be read from a signalfd(2),
// which tells who sent them. It matters, because the app is in the same process
// group and terminal:
//
//	sender                   the app got it   the waiter
//	a key on the terminal    yes              does nothing
//	kill(2) to the waiter    no               passes it on
//
// A signal to the whole group by kill(2) cannot be told from one to the waiter;
// the app sees it twice.
package waiter

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/supervisor"
	"wireguard4netns/internal/sys"
)

// Argv0 is the name of the role.
const Argv0 = "wireguard4netns-wait"

// passed are the signals that are passed on: all that do not belong to the
// process itself (SIGCHLD, faults) and can be caught.
var passed = func() (list []unix.Signal) {
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
}()

// Catch keeps the signals that will be passed on from ending this process. Call
// it before the app is started, and give Become what it returns.
func Catch() <-chan os.Signal {
	caught := make(chan os.Signal, 64)
	list := make([]os.Signal, len(passed))
	for i, s := range passed {
		list[i] = s
	}
	signal.Notify(caught, list...)
	return caught
}

// Become turns the process into the waiter of its child pid. supervisor is the
// socket on which the supervisor tells that the tunnel is over, root the state
// directory to tidy when it ends without a word. Become must run on the thread
// that it is to be the process's; it returns only with an error.
func Become(pid int, supervisor *os.File, root string, caught <-chan os.Signal) error {
	fd, err := unix.FcntlInt(supervisor.Fd(), unix.F_DUPFD, 0) // without close-on-exec
	if err != nil {
		return os.NewSyscallError("dup", err)
	}
	if err := sys.BlockSignals(passed); err != nil {
		return err
	}
	passCaught(pid, caught)
	args := []string{Argv0, strconv.Itoa(pid), strconv.Itoa(fd), root}
	return &os.PathError{Op: "exec", Path: "/proc/self/exe", Err: syscall.Exec("/proc/self/exe", args, []string{"GOTRACEBACK=none"})}
}

// passCaught passes on what came in the instant between the app's start and now.
// Who sent it is not known here: what the terminal sends the app has as well.
func passCaught(pid int, caught <-chan os.Signal) {
	for {
		select {
		case s := <-caught:
			switch s {
			case unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP, unix.SIGWINCH, unix.SIGCONT:
			default:
				unix.Kill(pid, s.(unix.Signal))
			}
		default:
			return
		}
	}
}

// Main runs the role. It returns the exit code of the app, or 128 and the number
// of the signal that ended it.
func Main(args []string, stderr io.Writer) int {
	pid, fd, root, err := parse(args)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 125
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		unix.CloseOnExec(fd)
		say := func(line string) { fmt.Fprintln(stderr, "wireguard4netns:", line) }
		if err := supervisor.AwaitOver(os.NewFile(uintptr(fd), "supervisor"), root, say); err != nil {
			say(err.Error() + ": the app has no network any more")
		}
	}()
	code, err := wait(pid)
	if err != nil {
		fmt.Fprintf(stderr, "wireguard4netns: wait for process %d: %v\n", pid, err)
		return 125
	}
	// Who starts the next tunnel right away is to find its port free.
	<-over
	return code
}

func parse(args []string) (pid, fd int, root string, err error) {
	if len(args) != 4 {
		return 0, 0, "", fmt.Errorf("%s is started by wireguard4netns run", Argv0)
	}
	if pid, err = strconv.Atoi(args[1]); err != nil {
		return 0, 0, "", err
	}
	fd, err = strconv.Atoi(args[2])
	return pid, fd, args[3], err
}

func wait(pid int) (code int, err error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, os.NewSyscallError("pidfd_open", err)
	}
	signals, err := sys.SignalFD(passed)
	if err != nil {
		return 0, err
	}
	go pass(signals, pidfd)
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(pid, &status, unix.WUNTRACED, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, os.NewSyscallError("wait4", err)
		case status.Exited():
			return status.ExitStatus(), nil
		case status.Signaled():
			return 128 + int(status.Signal()), nil
		case status.Stopped() && status.StopSignal() != unix.SIGSTOP:
			// Stopped by job control: the shell that started us is to see it. A
			// SIGSTOP is not from there, and whoever sent it continues the app alone.
			unix.Kill(os.Getpid(), unix.SIGSTOP)
		}
	}
}

// pass sends the app what was sent to this process alone.
func pass(signals, pidfd int) {
	for {
		s, err := sys.ReadSignal(signals)
		if err != nil {
			return
		}
		if !s.Kernel {
			unix.PidfdSendSignal(pidfd, s.Number, nil, 0)
		}
	}
}
