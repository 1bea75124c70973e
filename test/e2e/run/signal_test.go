package run_test

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/nstest"
)

// apps are programs to run in a tunnel.
var apps = map[string]func(){
	"signals":     sayEachSignal,
	"hangup":      noteHangUp,
	"descriptors": sayDescriptors,
	"obey":        obey,
	"raw":         openRaw,
	"packet":      openPacket,
	"netfilter":   openNetfilter,
	"tun":         openTUN,
	"ping":        ping,
}

// caught are the signals that are sent to a wrapper and are to reach the app.
var caught = []os.Signal{
	unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGWINCH, unix.SIGTSTP,
	unix.SIGCONT, unix.SIGALRM, unix.SIGPIPE, unix.SIGIO, unix.Signal(40),
}

// sayEachSignal prints the number of each signal that it gets, and ends with
// exit code 42 at SIGUSR2.
func sayEachSignal() {
	c := make(chan os.Signal, 100)
	signal.Notify(c, append(caught, unix.SIGUSR2)...)
	fmt.Println("ready")
	for s := range c {
		fmt.Printf("<%d>\n", s)
		if s == unix.SIGUSR2 {
			os.Exit(42)
		}
	}
}

// signalApp makes sayEachSignal the app.
func signalApp(m *machine) []string {
	return []string{"env", appEnv + "=signals", testBinary()}
}

func testBinary() string {
	self, err := os.Executable()
	if err != nil {
		panic(err) // /proc is mounted
	}
	return self
}

func TestSignalToWrapperReachesApp(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	cmd := m.run(signalApp(m)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	nstest.Start(t, cmd)
	lines := bufio.NewScanner(out)
	next := func() string { lines.Scan(); return lines.Text() }
	if got := next(); got != "ready" {
		t.Fatalf("the app said %q", got)
	}
	for _, s := range append(caught, unix.SIGUSR2) {
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		if got, want := next(), fmt.Sprintf("<%d>", s); got != want {
			t.Fatalf("after %v the app got %q, want %s", s, got, want)
		}
	}
	if lines.Scan() {
		t.Errorf("the app got one more: %s", lines.Text())
	}
	if code := await(t, cmd); code != 42 {
		t.Errorf("exit code %d, want 42", code)
	}
}

func TestKeyReachesAppOnce(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]struct {
		text   string
		signal syscall.Signal
	}{
		"interrupt": {ctrlC, unix.SIGINT},
		"quit":      {ctrlBackslash, unix.SIGQUIT},
		"suspend":   {ctrlZ, unix.SIGTSTP},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			cmd := m.run(signalApp(m)...)
			term := startTerminal(t, cmd)
			term.expect("ready")
			for range 3 {
				term.typed(key.text)
				term.expect(fmt.Sprintf("<%d>", key.signal))
			}
			// The wrapper handles one signal after the other: had it passed a key
			// on, that would be here before this.
			cmd.Process.Signal(unix.SIGUSR2)
			if got := term.rest(); strings.Count(got, "<") != 1 {
				t.Errorf("the app got more than one signal for each key: %q", got)
			}
			if code := await(t, cmd); code != 42 {
				t.Errorf("exit code %d, want 42", code)
			}
		})
	}
}

func TestWindowSizeReachesAppOnce(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	cmd := m.run(signalApp(m)...)
	term := startTerminal(t, cmd)
	term.expect("ready")
	term.resize(50, 132)
	term.expect(fmt.Sprintf("<%d>", unix.SIGWINCH))
	cmd.Process.Signal(unix.SIGUSR2)
	if got := term.rest(); strings.Count(got, "<") != 1 {
		t.Errorf("the app got more than one signal: %q", got)
	}
	await(t, cmd)
}

func TestStopAndContinueTheWrapper(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	cmd := m.run("sleep", "300")
	nstest.Start(t, cmd)
	app := m.processNamed(t, "sleep 300")
	for range 3 {
		cmd.Process.Signal(unix.SIGTSTP)
		awaitState(t, "T", app, cmd.Process.Pid)
		cmd.Process.Signal(unix.SIGCONT)
		awaitState(t, "SR", app, cmd.Process.Pid)
	}
	cmd.Process.Signal(unix.SIGTERM)
	if code := await(t, cmd); code != 143 {
		t.Errorf("exit code %d, want 143", code)
	}
}

func TestIgnoredSignalsStayIgnored(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	const probe = `grep -E '^Sig(Ign|Blk|Cgt):' /proc/self/status`
	for name, before := range map[string]string{
		"none":  "",
		"nohup": "trap '' HUP",
		"async": "trap '' INT QUIT",
		"jobs":  "trap '' HUP INT QUIT TSTP TTIN TTOU",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			outside := finish(t, m.UserCommand("sh", "-c", before+"\n"+probe))
			shell := m.UserCommand("sh", "-c", before+"\n"+`exec "$@"`, "sh", m.program, "run", m.conf, "--", "sh", "-c", probe)
			inside := finish(t, shell)
			if inside.stdout != outside.stdout {
				t.Errorf("inside:\n%soutside:\n%s%s", inside.stdout, outside.stdout, inside.stderr)
			}
		})
	}
}

func TestNohupSurvivesHangUpDuringStart(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	file := filepath.Join(t.TempDir(), "made")
	// --wait holds the start until its time is over.
	cmd := m.UserCommand("sh", "-c", `trap '' HUP; exec "$@"`, "sh", m.program, "run", "--wait=1s", m.conf, "--", "touch", file)
	nstest.Start(t, cmd)
	m.processNamed(t, "wireguard4netns-engine")
	cmd.Process.Signal(unix.SIGHUP)
	if code := await(t, cmd); code != 125 {
		t.Errorf("exit code %d, want 125 for no handshake", code)
	}
}

func TestSignalDuringStartUndoesIt(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		t.Run(unix.SignalName(s), func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			before := nstest.TakeSnapshot(t, m.Host, "/run")
			cmd := m.run("--wait=1h", "--", "true")
			nstest.Start(t, cmd)
			m.processNamed(t, "wireguard4netns-engine")
			cmd.Process.Signal(s)
			if code := await(t, cmd); code != 128+int(s) {
				t.Errorf("exit code %d, want %d", code, 128+int(s))
			}
			// It waits for the undoing: at once nothing is left.
			if left := before.Since(t); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
