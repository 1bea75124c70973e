package tunnel

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// hookTimeout bounds the commands that run while a tunnel is undone.
const hookTimeout = 10 * time.Second

// hookEnv is all that a hook finds in its environment.
var hookEnv = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}

// hooks runs the commands of one key inside, one after the other, with
// capabilities over the namespaces: they may set routes and firewall rules there.
func (t *Tunnel) hooks(ctx context.Context, key string, commands []string, say func(string)) error {
	for _, command := range commands {
		say(fmt.Sprintf("running %s inside: %s", key, command))
		if err := t.hook(ctx, command, say); err != nil {
			return fmt.Errorf("run %s %q: %w", key, command, err)
		}
	}
	return nil
}

// hooksDown runs PreDown and PostDown. The link is there for both: it goes with
// the namespaces.
func (t *Tunnel) hooksDown(say func(string)) error {
	ctx, cancel := context.WithTimeout(context.Background(), hookTimeout)
	defer cancel()
	return errors.Join(
		t.hooks(ctx, "PreDown", t.Plan().Hooks.PreDown, say),
		t.hooks(ctx, "PostDown", t.Plan().Hooks.PostDown, say))
}

func (t *Tunnel) hook(ctx context.Context, command string, say func(string)) error {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return os.NewSyscallError("pipe2", err)
	}
	output := os.NewFile(uintptr(pipe[0]), "pipe")
	defer output.Close()
	stop := context.AfterFunc(ctx, func() { output.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	pid, err := t.NS.StartPrivileged([]string{"/bin/sh", "-c", command}, hookEnv, pipe[1])
	unix.Close(pipe[1])
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(output); lines.Scan(); {
		say(strings.ToValidUTF8(lines.Text(), "?"))
	}
	if ctx.Err() != nil {
		unix.Kill(pid, unix.SIGKILL)
	}
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("wait4", err)
		}
		break
	}
	switch {
	case status.Signaled():
		return fmt.Errorf("ended by %s", unix.SignalName(status.Signal()))
	case status.ExitStatus() != 0:
		return fmt.Errorf("exit code %d", status.ExitStatus())
	}
	return nil
}
