// Package supervisor is the process that owns one tunnel, from both sides: Main
// is that process, Launch starts it.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/ns"
	"wireguard4netns/internal/service"
	"wireguard4netns/internal/tunnel"
)

// Argv0 is the name of the role.
const Argv0 = "wireguard4netns-supervisor"

// Descriptors that the process is started with.
const (
	socketFD = 3
	exitFD   = 4 // if Start.ExitFD says so
	netnsFD  = 5 // if the target is a descriptor
)

// What Over says.
const (
	overUndone   = "undone"
	overDetached = "detached"
)

var (
	errFrontGone = errors.New("the process that started the tunnel is gone")
	errTold      = errors.New("told to end")
)

// Main runs the role with the arguments after Argv0. It returns the exit code.
func Main(args []string, stderr io.Writer) int {
	// Processes inside, hooks and engines are children; none may stay a zombie.
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	defer stop()
	if len(args) == 2 && args[0] == resumeArg {
		if err := resume(ctx, args[1]); err != nil {
			fmt.Fprintln(stderr, "take over the tunnel:", err)
			return 125
		}
		return 0
	}
	front, err := newConn(os.NewFile(socketFD, "front"))
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 125
	}
	defer front.Close()
	unix.CloseOnExec(exitFD)
	unix.CloseOnExec(netnsFD)
	first, err := front.receive()
	if err != nil || first.Start == nil {
		return 125
	}
	start := *first.Start
	if start.Kept, err = kept(start, front.takeFiles()); err != nil {
		front.send(message{Say: err.Error() + "; the tunnel is made anew"})
	}
	if err := supervise(ctx, front, start); err != nil {
		front.send(message{Failed: newRemoteError(err)})
		return 125
	}
	return 0
}

// supervise makes the tunnel, serves it until it is over and undoes it. An error
// is one of the start.
func supervise(ctx context.Context, front *conn, start Start) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	apps, held := listen(front, end)
	if start.ExitFD {
		go watchExit(end)
	}
	say := func(line string) { front.send(message{Say: line}) }
	t, err := tunnel.Start(ctx, start.Request, say)
	if start.Target != nil && start.Target.FD == netnsFD {
		unix.Close(netnsFD) // it may keep a mount busy, as Set.Release says
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil {
			return errors.Join(cause, err)
		}
		return err
	}
	ctl, err := listenControl(ctx, t, start, held, func() { end(errTold) })
	a, attendErr := attend(t, start)
	if err = errors.Join(err, attendErr); err == nil {
		err = errors.Join(t.Dir.Publish(), t.Settle())
	}
	if err != nil {
		a.end()
		return errors.Join(err, t.Close())
	}
	if err := store(start, t); err != nil {
		t.Log(err.Error()) // it stands all the same
	}
	if start.Target == nil {
		err = front.send(ready(t), t.NS.Files()...)
	} else {
		err = front.send(ready(t))
	}
	if err == nil {
		a.begin(ctx)
		serve(ctx, end, t, start, front, apps, held)
	}
	end(nil)
	undo(t, ctl, a, start)
	front.send(message{Over: overUndone})
	return nil
}

// undo ends a tunnel that stands.
func undo(t *tunnel.Tunnel, ctl *control, a *attendant, start Start) {
	ctl.settle()
	start.Service.Tell(service.Stopping)
	a.end()
	t.Close()
	unstore(start.Service)
	ctl.close()
}

func ready(t *tunnel.Tunnel) message {
	return message{Ready: &Ready{Name: t.Dir.Name(), Dir: t.Dir.Path(), UAPIPath: t.UAPIPath(), IfName: t.Plan().Link.Name, Pid: os.Getpid()}}
}

// listen reads what the front says, and returns where the App comes and what is
// closed by Detach. When the front is gone without having said either, the tunnel
// has nobody to serve.
func listen(front *conn, end context.CancelCauseFunc) (apps chan App, held chan struct{}) {
	apps, held = make(chan App, 1), make(chan struct{})
	go func() {
		alone := false
		for {
			m, err := front.receive()
			switch {
			case err != nil && alone:
				return
			case err != nil:
				end(errFrontGone)
				return
			case m.App != nil && !alone:
				alone = true
				apps <- *m.App
			case m.Detach && !alone:
				alone = true
				close(held)
				front.send(message{Over: overDetached})
			}
		}
	}()
	return apps, held
}

// watchExit ends the tunnel on a byte or the end of file on exitFD, as the exit
// descriptor of slirp4netns does.
func watchExit(end context.CancelCauseFunc) {
	for {
		fds := []unix.PollFd{{Fd: exitFD, Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != unix.EINTR {
			end(errTold)
			return
		}
	}
}

// serve returns when the tunnel is over.
func serve(ctx context.Context, end context.CancelCauseFunc, t *tunnel.Tunnel, start Start, front *conn, apps <-chan App, held <-chan struct{}) {
	ctx, stop := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	defer watchers.Wait()
	defer stop()
	watchers.Go(func() { t.Watch(ctx) })
	go func() {
		select {
		case <-t.Engine.Done(): // by itself: somebody inside deleted the link
			front.send(message{Say: t.Engine.Err().Error()})
			end(t.Engine.Err())
		case <-ctx.Done():
		}
	}()
	if start.Target != nil {
		start.Target.Wait(ctx, t.NS)
		return
	}
	select {
	case app := <-apps:
		serveApp(ctx, t, front, app)
	case <-held: // up: until it is told to end
		<-ctx.Done()
	case <-ctx.Done():
	}
}

// serveApp waits for the app and then for what it left behind.
func serveApp(ctx context.Context, t *tunnel.Tunnel, front *conn, app App) {
	if err := ns.WaitExit(ctx, app.Pid); err != nil {
		return
	}
	if app.KillAfter {
		t.NS.KillAll(ctx)
		return
	}
	if left, err := t.NS.Members(); err == nil && len(left) > 0 {
		front.send(message{Over: overDetached})
		t.NS.WaitEmpty(ctx)
	}
}
