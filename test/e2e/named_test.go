package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"wireguard4netns"
	"wireguard4netns/internal/nstest"
)

// run runs the program and returns what it printed and its exit code.
func (w *world) run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := w.tool(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func (w *world) mustRun(t *testing.T, args ...string) string {
	t.Helper()
	out, errs, code := w.run(t, args...)
	if code != 0 {
		t.Fatalf("%s: exit code %d: %s", args, code, errs)
	}
	return out
}

func (w *world) status(t *testing.T, name string) wireguard4netns.Status {
	t.Helper()
	var all []wireguard4netns.Status
	if err := json.Unmarshal([]byte(w.mustRun(t, "status", "--json", name)), &all); err != nil || len(all) != 1 {
		t.Fatalf("status of %s: %v, %d", name, err, len(all))
	}
	return all[0]
}

// A named tunnel from up to down: programs come and go, all in the same
// namespaces, and nothing is left.
func TestNamedTunnel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conf := w.account(t, "DNS = 10.77.0.1")
	before := w.snapshot(t)

	w.mustRun(t, "up", "--name", "home", conf)
	if s := w.status(t, "home"); s.State != "idle" || len(s.Processes) != 0 || s.Interface != "wg0" || s.MTU != 1440 {
		t.Errorf("before the first packet: %+v", s)
	}
	if out := w.mustRun(t, "exec", "home", "--", "ping", "-c", "1", "-w", "15", w.peer.Addr4.String()); !strings.Contains(out, " bytes from ") {
		t.Errorf("ping: %s", out)
	}
	s := w.status(t, "home")
	if s.State != "up" || len(s.Peers) != 1 || s.Peers[0].RxBytes == 0 || s.Peers[0].LastHandshake.IsZero() || s.EnginePID == 0 {
		t.Errorf("after a ping: %+v", s)
	}
	if text := w.mustRun(t, "status", "home"); !strings.Contains(text, "state        up") || !strings.Contains(text, "10.77.0.1") {
		t.Errorf("status for people:\n%s", text)
	}

	// What run promises holds for exec as well.
	if _, errs, code := w.run(t, "exec", "home", "--", "sh", "-c", "exit 7"); code != 7 || errs != "" {
		t.Errorf("exit code %d, %s", code, errs)
	}
	if _, _, code := w.run(t, "exec", "home", "no-such-program"); code != 127 {
		t.Errorf("a program that is not there: exit code %d", code)
	}
	if out := w.mustRun(t, "exec", "home", "cat", "/etc/resolv.conf"); !strings.Contains(out, "nameserver 10.77.0.1") {
		t.Errorf("resolv.conf: %s", out)
	}
	for _, forbidden := range []string{"umount /etc", "ip link set wg0 down", "cat " + s.Directory + "/log"} {
		if out, _, code := w.run(t, "exec", "home", "sh", "-c", forbidden); code == 0 {
			t.Errorf("a program may: %s: %s", forbidden, out)
		}
	}
	first := w.mustRun(t, "exec", "home", "readlink", "/proc/self/ns/net")
	if second := w.mustRun(t, "exec", "home", "readlink", "/proc/self/ns/net"); second != first {
		t.Errorf("%s and %s", first, second)
	}

	// A program that runs over the end of its tunnel has no network then.
	stays := w.tool("exec", "home", "--", "sh", "-c", "echo $$; read -r _; ! ping -c 1 -W 1 "+w.peer.Addr4.String()+" && ! ping -c 1 -W 1 192.0.2.1")
	in, err := stays.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	hold(t, stays)
	if out := w.mustRun(t, "list"); !strings.Contains(out, "home") || !strings.Contains(out, "up") {
		t.Errorf("list: %s", out)
	}
	if got := len(w.status(t, "home").Processes); got != 1 {
		t.Errorf("%d processes inside", got)
	}
	w.mustRun(t, "down", "home")
	fmt.Fprintln(in)
	in.Close()
	if err := stays.Wait(); err != nil {
		t.Errorf("after down: %v", err)
	}
	if _, errs, code := w.run(t, "exec", "home", "true"); code != 125 || !strings.Contains(errs, "no tunnel of this name") || strings.Count(errs, "\n") != 2 {
		t.Errorf("exec after down: %d, %s", code, errs)
	}
	if _, _, code := w.run(t, "down", "home"); code != 125 {
		t.Errorf("down after down: %d", code)
	}
	before.Check(t)
}

func TestTwoUpsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conf := w.account(t)
	before := w.snapshot(t)
	const many = 6
	var won, lost int
	var mu sync.Mutex
	var all sync.WaitGroup
	for range many {
		all.Go(func() {
			_, errs, code := w.run(t, "up", conf)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case code == 0:
				won++
			case strings.Contains(errs, "a tunnel of this name exists: process "):
				lost++
			default:
				t.Errorf("exit code %d: %s", code, errs)
			}
		})
	}
	all.Wait()
	if won != 1 || lost != many-1 {
		t.Errorf("%d won, %d lost", won, lost)
	}
	w.mustRun(t, "up", "--name", "other", conf)
	w.mustRun(t, "down", "--all")
	if out := w.mustRun(t, "list", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("list: %s", out)
	}
	before.Check(t)
}

// A supervisor that is killed takes the network of its programs with it, and the
// name is free again.
func TestNamedSupervisorKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conf := w.account(t)
	w.mustRun(t, "up", "--name", "home", conf)
	stays := w.tool("exec", "home", "--", "sh", "-c", "echo $$; read -r _; ! ping -c 1 -W 1 "+w.peer.Addr4.String()+" && ! ping -c 1 -W 1 192.0.2.1")
	in, err := stays.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	hold(t, stays)
	for _, p := range w.machine.Processes() {
		if strings.HasPrefix(p.Command, "wireguard4netns-supervisor") {
			if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	nstest.Eventually(t, 15*time.Second, func() error {
		if out := w.mustRun(t, "list"); strings.Contains(out, "home") {
			return fmt.Errorf("list: %s", out)
		}
		return nil
	})
	fmt.Fprintln(in)
	in.Close()
	if err := stays.Wait(); err != nil {
		t.Errorf("the program has a network: %v", err)
	}
	w.mustRun(t, "up", "--name", "home", conf)
	w.mustRun(t, "exec", "home", "--", "ping", "-c", "1", "-w", "15", w.peer.Addr4.String())
	w.mustRun(t, "down", "home")
}

// exec enters what we made; the namespaces of attach are somebody else's.
func TestExecWhereWeOnlyAttached(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pid := hold(t, w.user.command("unshare", "-Urn", "sh", "-c", "echo $$; read -r _"))
	w.mustRun(t, "attach", "--detach", "--name", "theirs", fmt.Sprint(pid), "wg0", w.account(t))
	if _, errs, code := w.run(t, "exec", "theirs", "true"); code != 125 || !strings.Contains(errs, "made by something else") {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if s := w.status(t, "theirs"); len(s.Processes) != 1 || s.Processes[0] == os.Getpid() {
		t.Errorf("status: %+v", s)
	}
	w.mustRun(t, "down", "theirs")
	if out, err := enter(pid, "ip", "link", "show", "wg0").CombinedOutput(); err == nil {
		t.Errorf("the link is left: %s", out)
	}
}
