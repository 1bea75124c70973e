package run_test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
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
	return m.shootAt(t, role, at, signal, m.run(command...))
}

func (m *machine) shootAt(t *testing.T, role string, at int, signal unix.Signal, cmd *exec.Cmd) shotResult {
	t.Helper()
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

// The same for attach, to a namespace that ends by itself.
func TestKillEachProcessOfAttach(t *testing.T) {
	t.Parallel()
	attach := func(t *testing.T, m *machine, role string, at int) shotResult {
		target := m.Command("unshare", "-Urn", "sleep", "0.4")
		if err := target.Start(); err != nil {
			t.Fatal(err)
		}
		defer target.Wait()
		m.processNamed(t, "sleep 0.4")
		cmd := m.Command(m.program, "attach", "-c", "--tmpdir=/run/user", strconv.Itoa(target.Process.Pid), "wg0", m.conf)
		cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR=/run/user")
		return m.shootAt(t, role, at, unix.SIGKILL, cmd)
	}
	calls := attach(t, newMachine(t), "", 0).Calls
	for _, role := range []string{"run", "supervisor", "supervisor's child", "engine", "wait"} {
		if calls[role] == 0 {
			t.Errorf("no process is %q: %v", role, calls)
		}
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			before := nstest.TakeSnapshot(t, m.Host, "/run")
			for _, at := range places(calls[role]) {
				if got := attach(t, m, role, at); got.Hit {
					checkShot(t, m, fmt.Sprintf("call %d of %d", at, calls[role]), got)
					before.Check(t)
				}
			}
		})
	}
}

// The same for a tunnel that lives: a script makes it, uses it and ends it. Whatever
// is killed, what the script does then ends as well, and leaves nothing.
func TestKillEachProcessOfUp(t *testing.T) {
	t.Parallel()
	live := func(t *testing.T, m *machine, role string, at int) shotResult {
		cmd := m.UserCommand("sh", "-c", `
"$0" up --replace --name home --ifname wg0 "$1"
"$0" env home >/dev/null
"$0" exec home -- true
"$0" reload home "$2"
"$0" up --replace --name home --ifname wg0 "$1"
"$0" status home >/dev/null || echo "status: exit code $?" >&2
"$0" down --all || "$0" down --all
`, m.program, m.conf, m.conf+".other")
		return m.shootAt(t, role, at, unix.SIGKILL, cmd)
	}
	prepare := func(t *testing.T) *machine {
		m := newMachine(t)
		text, err := os.ReadFile(m.conf)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, m.conf+".other", strings.Replace(string(text), "51820", "51821", 1))
		return m
	}
	calls := live(t, prepare(t), "", 0).Calls
	for role, samples := range map[string]int{"run": 12, "supervisor": 12, "supervisor's child": 4, "engine": 4, "wait": 3, "hold": 2} {
		if calls[role] == 0 {
			t.Errorf("no process is %q: %v", role, calls)
		}
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			m := prepare(t)
			before := nstest.TakeSnapshot(t, m.Host, "/run")
			hits := 0
			for i := range samples {
				at := 1 + i*max(calls[role]-1, 0)/samples
				got := live(t, m, role, at)
				if !got.Hit {
					continue
				}
				hits++
				unwanted := []string{"panic", "goroutine", m.private, m.psk}
				if !strings.HasPrefix(role, "supervisor") {
					unwanted = append(unwanted, "status: exit code 125") // there is a tunnel then
				}
				for _, bad := range unwanted {
					if strings.Contains(got.Stderr, bad) {
						t.Errorf("killed at call %d of %d: standard error has %q:\n%s", at, calls[role], bad, got.Stderr)
					}
				}
				before.Check(t)
			}
			if hits < samples/2 {
				t.Errorf("%d of %d were killed", hits, samples)
				t.Log(calls)
			}
		})
	}
}
