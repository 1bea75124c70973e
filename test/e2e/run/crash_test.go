package run_test

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/nstest"
)

// perRole is at how many places each role is hit. There are thousands; a run at
// one takes a tenth of a second.
const perRole = 24

// shoot runs a command in a tunnel and sends a signal to one of our processes at
// a certain system call. Without a role it only counts them.
func (m *machine) shoot(t *testing.T, role string, at int, signal unix.Signal, command ...string) shotResult {
	t.Helper()
	cmd := m.run(command...)
	got, err := shoot.Call(exec.Command, shot{Command: cmd.Args, Env: cmd.Env, Role: role, At: at, Signal: signal})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// places spreads over 1…calls, the first and the last included.
func places(calls int) (list []int) {
	for i := range perRole {
		list = append(list, 1+i*max(calls-1, 0)/(perRole-1))
	}
	return slices.Compact(list)
}

// Whichever of our processes is killed, at whatever step from the start to the
// end: what was started ends, and nothing is left.
func TestKillEachProcessAtEachStep(t *testing.T) {
	t.Parallel()
	calls := newMachine(t).shoot(t, "", 0, 0, "true").Calls
	for _, role := range []string{
		"run", "run's child", "supervisor", "supervisor's child", "inside", "engine", "wait", "wait's child", "app",
	} {
		if calls[role] == 0 {
			t.Errorf("no process is %q: %v", role, calls)
		}
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			before := nstest.TakeSnapshot(t, m.Host, "/run")
			for _, at := range places(calls[role]) {
				got := m.shoot(t, role, at, unix.SIGKILL, "true")
				if !got.Hit {
					continue // this time it made fewer
				}
				checkShot(t, m, fmt.Sprintf("call %d of %d", at, calls[role]), got)
				before.Check(t)
			}
		})
	}
}

func checkShot(t *testing.T, m *machine, where string, got shotResult) {
	t.Helper()
	for _, bad := range []string{"panic", "goroutine", m.private, m.psk} {
		if strings.Contains(got.Stderr, bad) {
			t.Errorf("killed at %s: standard error has %q:\n%s", where, bad, got.Stderr)
		}
	}
	if strings.Count(got.Stderr, "\n") > 2 {
		t.Errorf("killed at %s: more than two lines:\n%s", where, got.Stderr)
	}
	if got.Code != 0 && got.Code != 125 && got.Code != 137 {
		t.Errorf("killed at %s: exit code %d\n%s", where, got.Code, got.Stderr)
	}
}

// A signal that is to end the program does so whenever it comes: no moment of the
// start is deaf.
func TestSignalAtEachStepEndsIt(t *testing.T) {
	t.Parallel()
	calls := newMachine(t).shoot(t, "", 0, 0, "true").Calls
	for _, role := range []string{"run", "wait"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			before := nstest.TakeSnapshot(t, m.Host, "/run")
			for _, at := range places(calls[role]) {
				got := m.shoot(t, role, at, unix.SIGTERM, "sleep", "2")
				if !got.Hit || got.Late {
					break
				}
				if got.Code != 143 || got.Stderr != "" {
					t.Errorf("SIGTERM at call %d of %d: exit code %d\n%s", at, calls[role], got.Code, got.Stderr)
				}
				before.Check(t)
			}
		})
	}
}
