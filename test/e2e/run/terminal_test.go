package run_test

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/nstest"
)

const prompt = "ready> "

// shell is an interactive bash on a terminal.
func (m *machine) shell(t *testing.T) *terminal {
	t.Helper()
	cmd := m.UserCommand("bash", "--norc", "--noprofile", "--noediting", "-i")
	cmd.Env = append(cmd.Env, "PS1="+prompt, "RUN="+m.program+" run "+m.conf+" --", "TERM=xterm", "HISTFILE=")
	term := startTerminal(t, cmd)
	term.expect(prompt)
	return term
}

func TestJobControlOfWrapper(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	term := m.shell(t)
	term.typed("$RUN sleep 300\r")
	app := m.processNamed(t, "sleep 300")
	wrapper := m.processNamed(t, "wireguard4netns-wait")

	term.typed(ctrlZ)
	term.expect(`Stopped +\$RUN sleep 300`)
	term.expect(prompt)
	awaitState(t, "T", app, wrapper)

	term.typed("bg\r")
	term.expect(prompt)
	awaitState(t, "S", app, wrapper)
	term.typed("jobs\r")
	term.expect(`Running +\$RUN sleep 300`)

	term.typed("fg\r")
	nstest.Eventually(t, deadline, func() error { return inForeground(app) })
	term.typed(ctrlZ)
	term.expect(`Stopped +\$RUN sleep 300`)
	awaitState(t, "T", app, wrapper)

	term.typed("kill %1\r")
	awaitGone(t, app, wrapper)
	// The shell tells of it at the next prompt after it has heard itself.
	nstest.Eventually(t, deadline, func() error {
		term.typed("\r")
		return term.printed(`Exit 143 +\$RUN sleep 300`)
	})
	term.expect(prompt)

	term.typed("$RUN sleep 301\r")
	app = m.processNamed(t, "sleep 301")
	term.expect(`sleep 301`)
	term.typed(ctrlC)
	term.expect(prompt)
	term.typed("echo code=$?\r")
	term.expect("code=130")
	awaitGone(t, app)
	term.typed("exit\r")
	term.rest()
}

func inForeground(pid int) error {
	s, err := statOf(pid)
	if err == nil && s.pgrp != s.tpgid {
		err = fmt.Errorf("process group %d is not the terminal's foreground %d", s.pgrp, s.tpgid)
	}
	return err
}

func TestInteractiveShellAsApp(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	cmd := m.run("env", "PS1="+prompt, "bash", "--norc", "--noprofile", "--noediting", "-i")
	term := startTerminal(t, cmd)
	term.expect(`^ready> `) // and not: no job control in this shell
	term.typed("sleep 300\r")
	app := m.processNamed(t, "sleep 300")
	nstest.Eventually(t, deadline, func() error { return inForeground(app) })
	term.typed(ctrlZ)
	term.expect(`Stopped +sleep 300`)
	awaitState(t, "T", app)
	awaitState(t, "S", cmd.Process.Pid)
	term.typed("fg\r")
	awaitState(t, "S", app)
	nstest.Eventually(t, deadline, func() error { return inForeground(app) })
	term.typed(ctrlC)
	term.expect(prompt)
	awaitGone(t, app)
	term.typed("exit 5\r")
	if code := await(t, cmd); code != 5 {
		t.Errorf("exit code %d, want 5", code)
	}
}

func TestFullScreenProgramIsRedrawn(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	file := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(file, []byte(strings.Repeat("a line\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := m.run("env", "TERM=xterm", "busybox", "vi", file)
	term := startTerminal(t, cmd)
	// vi writes its status line in the last row: ESC [ row ; column H.
	term.expect(`\x1b\[24;1H`)
	term.resize(40, 100)
	term.expect(`\x1b\[40;1H`)
	term.typed(":q\r")
	if code := await(t, cmd); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestHangUpReachesApp(t *testing.T) {
	t.Parallel()
	for _, group := range []string{"the same", "its own"} {
		t.Run(group, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			before := nstest.TakeSnapshot(t, m.Host, "/run")
			file := filepath.Join(t.TempDir(), "told")
			cmd := m.run("env", appEnv+"=hangup", "FILE="+file, "GROUP="+group, testBinary())
			term := startTerminal(t, cmd)
			term.expect("ready")
			// The kernel tells the leader of the session, which is what was
			// started, and the process group in the foreground.
			term.hangUp()
			if code := await(t, cmd); code != 3 {
				t.Errorf("exit code %d, want 3", code)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("the app was not told of the hang-up: %v", err)
			}
			before.Check(t)
		})
	}
}

// noteHangUp makes $FILE when it gets a SIGHUP.
func noteHangUp() {
	if os.Getenv("GROUP") == "its own" {
		unix.Setpgid(0, 0)
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGHUP)
	fmt.Println("ready")
	<-c
	os.WriteFile(os.Getenv("FILE"), nil, 0o600)
	os.Exit(3)
}

func TestProcessGroupSessionAndTerminal(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	cmd := m.run("sleep", "300")
	startTerminal(t, cmd)
	app := m.processNamed(t, "sleep 300")
	ours, err := statOf(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	apps, err := statOf(app)
	if err != nil {
		t.Fatal(err)
	}
	if apps.pgrp != ours.pgrp || apps.session != ours.session || apps.tty != ours.tty || apps.tpgid != ours.tpgid || apps.tty == 0 {
		t.Errorf("the app: %+v; the process that was started: %+v", apps, ours)
	}
	if apps.ppid != cmd.Process.Pid {
		t.Errorf("the app's parent is %d, not what was started, %d", apps.ppid, cmd.Process.Pid)
	}
	cmd.Process.Signal(unix.SIGTERM)
	await(t, cmd)
}

func TestTerminalSizeInside(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	cmd := m.run("stty", "size")
	term := startTerminal(t, cmd)
	await(t, cmd)
	if got := term.rest(); !regexp.MustCompile(`24 80`).MatchString(got) {
		t.Errorf("stty size says %q", got)
	}
}
