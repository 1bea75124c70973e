package e2e_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"wireguard4netns/internal/nstest"
)

// Whatever is asked of a tunnel while another version takes it over, or two do, is
// answered: nobody waits for ever, and the tunnel works.
func TestAskedDuringReplace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conf := w.account(t, "DNS = 10.77.0.1")
	before := w.snapshot(t)
	w.mustRun(t, "up", "--name", "home", conf)
	inTime := func(args ...string) {
		cmd := w.tool(args...)
		var out lockedBuffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Error(err)
			return
		}
		if code := exitCode(t, cmd, 2*waiting); code != 0 {
			logs, _, _ := w.run(t, "logs", "home")
			t.Errorf("%q: exit code %d: %s\n%s", args, code, out.String(), logs)
		}
	}
	var all sync.WaitGroup
	for _, args := range [][]string{
		{"up", "--replace", "--name", "home", conf},
		{"up", "--replace", "--name", "home", conf},
		{"reload", "home"},
		{"exec", "home", "--", "true"},
		{"exec", "home", "--", "true"},
		{"status", "home"},
		{"env", "home"},
		{"monitor", "--once", "--interval", "100ms", "home"},
	} {
		all.Go(func() {
			for range 3 {
				inTime(args...)
			}
		})
	}
	all.Wait()
	contains(t, w.mustRun(t, "exec", "home", "--", "ping", "-c", "1", "-w", "15", w.peer.Addr4.String()), " bytes from ")
	for _, p := range w.machine.Processes() {
		if strings.Contains(p.Command, "defunct") {
			t.Errorf("left: %v", p)
		}
	}
	// The end comes before a change, or after it.
	all.Go(func() { inTime("down", "home") })
	for range 2 {
		all.Go(func() {
			if _, errs, code := w.run(t, "up", "--replace", "--name", "home", conf); code != 0 && code != 125 || strings.Count(errs, "\n")%2 != 0 {
				t.Errorf("up --replace during down: %d, %s", code, errs)
			}
		})
	}
	all.Wait()
	if w.mustRun(t, "list", "--json") != "[]\n" {
		inTime("down", "home")
	}
	before.Check(t)
}

// The engine dies while other things are asked of the tunnel.
func TestAskedWhileEngineRestarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conf := w.account(t)
	before := w.snapshot(t)
	w.mustRun(t, "up", "--name", "home", conf)
	for _, args := range [][]string{
		{"reload", "home"}, {"up", "--replace", "--name", "home", conf}, {"env", "home"}, {"show", "home"}, {"exec", "home", "--", "true"},
	} {
		engine := w.status(t, "home").EnginePID
		if err := syscall.Kill(engine, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		w.mustRun(t, args...)
		nstest.Eventually(t, waiting, func() error {
			if s := w.status(t, "home"); s.EnginePID == 0 || s.EnginePID == engine {
				return fmt.Errorf("after %q the engine is process %d", args, s.EnginePID)
			}
			return nil
		})
		engines := 0
		for _, p := range w.machine.Processes() {
			if strings.HasPrefix(p.Command, "wireguard4netns-engine") {
				engines++
			}
		}
		if engines != 1 {
			t.Errorf("after %q: %d engines", args, engines)
		}
	}
	contains(t, w.mustRun(t, "exec", "home", "--", "ping", "-c", "1", "-w", "15", w.peer.Addr4.String()), " bytes from ")
	w.mustRun(t, "down", "home")
	before.Check(t)
}

// A command outside that runs while another version takes over is waited for, and
// leaves no zombie.
func TestReplaceDuringHook(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conf := w.account(t)
	gate := t.TempDir() + "/gate"
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	before := w.snapshot(t)
	w.mustRun(t, "up", "--name", "home", "--on-up", "read -r line <"+gate+"; echo heard $line", conf)
	replace := w.tool("up", "--replace", "--name", "home", conf)
	nstest.Start(t, replace)
	open, err := os.OpenFile(gate, os.O_WRONLY, 0) // waits for the reader
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(open, "it")
	open.Close()
	if code := exitCode(t, replace, 2*waiting); code != 0 {
		t.Errorf("exit code %d", code)
	}
	contains(t, w.mustRun(t, "logs", "home"), "heard it")
	w.mustRun(t, "down", "home")
	before.Check(t)
}

// What somebody removes from a tunnel's directory is not the end of the tunnel, and
// a signal ends it.
func TestDirectoryRemoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conf := w.account(t)
	before := w.snapshot(t)
	root := fmt.Sprintf("/run/user/%d/wireguard4netns", nstest.User)
	for _, gone := range []string{"lock", "log", "control", "wg0.sock", ""} {
		w.mustRun(t, "up", "--name", "home", conf)
		s := w.status(t, "home")
		succeed(t, w.user.command("rm", "-r", root+"/home/"+gone))
		if gone == "lock" {
			if _, errs, code := w.run(t, "up", "--name", "home", conf); code != 125 || !strings.Contains(errs, "a tunnel of this name exists") {
				t.Errorf("without lock: %d, %s", code, errs)
			}
		}
		if gone == "control" {
			if _, errs, code := w.run(t, "down", "home"); code != 125 || !strings.Contains(errs, fmt.Sprintf("its control socket was removed: process %d has it", s.SupervisorPID)) || strings.Count(errs, "\n") != 2 {
				t.Errorf("without control: %d, %s", code, errs)
			}
		}
		if gone == "lock" || gone == "log" || gone == "wg0.sock" {
			w.mustRun(t, "reload", "home")
			w.mustRun(t, "up", "--replace", "--name", "home", conf)
			contains(t, w.mustRun(t, "exec", "home", "--", "ping", "-c", "1", "-w", "15", w.peer.Addr4.String()), " bytes from ")
			w.mustRun(t, "down", "home")
		} else if err := syscall.Kill(s.SupervisorPID, syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		before.Check(t)
	}
}
