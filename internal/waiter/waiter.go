// Package waiter starts the app and stands in for it towards whoever started us:
// it passes signals on, stops when the app stops and ends with its exit code.
//
// The process that made the tunnel becomes the waiter by an exec of itself, which
// leaves nothing in its memory of the configuration it has read. What it needs
// comes as descriptors and arguments; the environment is the app's.
//
// The app is in the same process group and terminal as the waiter. So who sent a
// signal matters:
//
//	sender                   the app got it   the waiter
//	a key on the terminal    yes              does nothing
//	hang-up of the terminal  no               passes it on: the kernel tells the
//	                                          leader of the session, which it is
//	kill(2) to the waiter    no               passes it on
//
// A signal to the whole group by kill(2) cannot be told from one to the waiter;
// the app sees it twice.
//
// Of the signals that were ignored when we were started, the app too ignores
// SIGHUP (nohup(1)), SIGINT with SIGQUIT (a background job of a shell) and those
// of job control. Of the others the Go runtime changes the disposition before
// main and does not tell what it was: the app has the default.
package waiter

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/ns"
	"wireguard4netns/internal/supervisor"
	"wireguard4netns/internal/sys"
)

// Argv0 is the name of the role.
const Argv0 = "wireguard4netns-wait"

// Config is what a waiter works on.
type Config struct {
	App        ns.App  // without Args: none, the tunnel serves somebody else
	KillAfter  bool    // end what the app leaves behind
	NS         *ns.Set // where the app is started
	Supervisor int     // its process, a child of this one
	Socket     *os.File
	Root       string // state directory, to tidy when the supervisor is killed
}

// Main runs the role. It returns the exit code of the app, or 128 and the number
// of the signal that ended it; for an app that cannot be started what report, who
// tells the user, returns.
func Main(args []string, stderr io.Writer, report func(error) int) int {
	debug.SetTraceback("none")
	c, err := parse(args)
	if err != nil {
		return report(err)
	}
	s, err := supervisor.Adopt(c.Socket, c.Supervisor, c.Root)
	if err != nil {
		return report(err)
	}
	if len(c.App.Args) == 0 {
		return attend(s, stderr, report)
	}
	ignoreQuit()
	signals, err := sys.CatchSignals(passed())
	if err != nil {
		return report(err)
	}
	pid, err := start(c)
	if err != nil {
		s.Close()
		return report(err)
	}
	lost := s.AppStarted(supervisor.App{Pid: pid, KillAfter: c.KillAfter})
	over := make(chan struct{})
	go func() {
		defer close(over)
		say := func(line string) { fmt.Fprintln(stderr, "wireguard4netns:", line) }
		if lost == nil {
			lost = s.AwaitOver(say)
		}
		if lost != nil {
			say(lost.Error() + ": no network until another takes the tunnel over")
		}
	}()
	code, err := wait(pid, signals)
	if err != nil {
		return report(fmt.Errorf("wait for process %d: %w", pid, err))
	}
	// Who starts the next tunnel right away is to find its port free.
	<-over
	return code
}

// attend waits for the end of a tunnel that serves somebody else's namespaces, and
// ends it by the signals that end a program.
func attend(s *supervisor.Supervisor, stderr io.Writer, report func(error) int) int {
	ctx, stop := signal.NotifyContext(context.Background(), ending()...)
	defer stop()
	return report(s.Wait(ctx, func(line string) { fmt.Fprintln(stderr, "wireguard4netns:", line) }))
}

// start starts the app and lets go of what is the app's alone: the other end of
// a pipe is to see that the app has closed it.
func start(c Config) (pid int, err error) {
	sys.RestoreNofile()
	if pid, err = c.NS.Start(c.App); err != nil {
		return 0, err
	}
	if err := c.NS.Close(); err != nil {
		return 0, err
	}
	for fd := 3; fd < 3+c.App.PreserveFDs; fd++ {
		unix.Close(fd)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	for _, fd := range []int{unix.Stdin, unix.Stdout} {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return 0, os.NewSyscallError("dup3", err)
		}
	}
	return pid, nil
}

// wait passes signals on to the app until it ends, and stops when it stops.
func wait(pid int, signals <-chan sys.Signal) (code int, err error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, os.NewSyscallError("pidfd_open", err)
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
