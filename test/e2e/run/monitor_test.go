package run_test

import (
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/nstest"
)

// Escape sequences that a full-screen program owes to the terminal.
const (
	screenTaken = `\x1b\[\?1049h\x1b\[\?25l`
	screenGiven = `\x1b\[m\x1b\[\?25h\x1b\[\?1049l`
)

// evilName is the name that a process in the tunnel gives itself.
const evilName = `\033]0;x\007`

// connected is a machine whose configuration has a peer that answers.
func connected(t *testing.T) (m *machine, peer netip.Addr) {
	t.Helper()
	m = newMachine(t)
	p := nstest.StartUpstream(t, m.Host)
	m.conf = p.NewAccount(t, netip.MustParseAddr("127.0.0.1"), nstest.AccountOptions{}).WriteConf(t)
	return m, p.Addr4
}

// busyTunnel starts a tunnel with traffic in it that lasts as long as its input.
func (m *machine) busyTunnel(t *testing.T, name string, peer netip.Addr) io.Closer {
	t.Helper()
	script := fmt.Sprintf(`printf '%[1]s' >/proc/$$/comm; ping -c 1 -w 15 %[2]s >/dev/null; ping -q -i 0.1 -s 1000 %[2]s >/dev/null & echo ready; read -r _; kill $!`, evilName, peer)
	cmd := m.run("--name", name, "--", "bash", "-c", script)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	nstest.Start(t, cmd)
	t.Cleanup(func() {
		in.Close()
		await(t, cmd)
	})
	if _, err := io.ReadFull(out, make([]byte, len("ready"))); err != nil {
		t.Fatal(err)
	}
	return in
}

// monitor is the command line with an environment of its own.
func (m *machine) monitor(env []string, args ...string) *exec.Cmd {
	cmd := m.w4n(append([]string{"monitor"}, args...)...)
	cmd.Env = append(cmd.Env, append([]string{"TERM=xterm", "LC_ALL=C.UTF-8", "NO_COLOR=1"}, env...)...)
	return cmd
}

func termiosOf(t *testing.T, term *terminal) unix.Termios {
	t.Helper()
	mode, err := unix.IoctlGetTermios(term.fd(), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *mode
}

func TestMonitor(t *testing.T) {
	t.Parallel()
	m, peer := connected(t)
	m.busyTunnel(t, "home", peer)
	cmd := m.monitor(nil, "--interval", "200ms")
	term := startTerminal(t, cmd)
	term.expect(screenTaken)
	term.expect(`received   [1-9][0-9.]* (KiB|B)/s +peak [1-9]`)
	term.expect(`[▂-█]`)
	term.typed("\x0c")
	term.expect(`\x1b\[1;1H\x1b\[K\[1 home\]`)
	term.expect(`state      up`)
	term.expect(`127\.0\.0\.1:`)
	term.expect(`[0-9] ping`)
	term.resize(40, 120)
	term.expect(`\x1b\[40;1H\x1b\[K\? help`)
	term.typed("?")
	term.expect(`suspend`)

	lab := m.busyTunnel(t, "lab", peer)
	term.expect(`\[1 home\]  2 lab`)
	term.typed("2")
	term.expect(` 1 home  \[2 lab\]`)
	lab.Close()
	term.expect(`\[lab\]  1 home`)
	term.expect(`does not stand`)
	term.typed("\t")
	term.expect(`\[1 home\]`)
	term.expect(`[0-9] \?\]0;x\?`) // the evil name, made harmless

	// A supervisor that hangs is said to, and holds nothing up, not even the end.
	supervisor := m.processNamed(t, "wireguard4netns-supervisor")
	stop := func(signal unix.Signal) {
		t.Helper()
		if err := unix.Kill(supervisor, signal); err != nil {
			t.Fatal(err)
		}
	}
	stop(unix.SIGSTOP)
	t.Cleanup(func() { unix.Kill(supervisor, unix.SIGCONT) })
	term.expect(`state      no-answer: the supervisor has not answered for`)
	term.expect(`received   - `)
	stop(unix.SIGCONT)
	term.expect(`state      up`)
	term.expect(`received   [1-9]`)
	stop(unix.SIGSTOP)
	term.expect(`state      no-answer`)
	term.typed("q")
	if code := await(t, cmd); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if rest := term.rest(); !regexp.MustCompile(screenGiven + `$`).MatchString(rest) {
		t.Errorf("the last that was written: %q", rest)
	}
}

// However the monitor ends or stops, the shell finds its terminal as it was.
func TestMonitorRestoresTerminal(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	term := m.shell(t)
	before := termiosOf(t, term)
	given := func() {
		t.Helper()
		term.expect(screenGiven)
		term.expect(prompt)
		if after := termiosOf(t, term); after != before {
			t.Errorf("termios %+v, before %+v", after, before)
		}
	}
	start := func() {
		t.Helper()
		term.typed(m.program + " top\r")
		term.expect(screenTaken)
		term.expect(`no tunnel stands`)
	}
	for _, key := range []string{"q", "\x1b", ctrlC} {
		start()
		term.typed(key)
		given()
		term.typed("echo code=$?\r")
		term.expect("code=0")
	}
	start()
	term.typed(ctrlZ)
	term.expect(screenGiven)
	term.expect(`Stopped`)
	term.expect(prompt)
	if after := termiosOf(t, term); after != before {
		t.Errorf("suspended: termios %+v, before %+v", after, before)
	}
	term.typed("fg\r")
	term.expect(screenTaken)
	term.expect(`no tunnel stands`)
	if err := unix.Kill(m.processNamed(t, m.program+" top"), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	given()
	term.typed("echo code=$?\r")
	term.expect("code=143")
	term.typed("exit\r")
	term.rest()
}

func TestMonitorOnce(t *testing.T) {
	t.Parallel()
	m, peer := connected(t)
	if r := finish(t, m.monitor(nil, "--once", "--interval", "0")); r.code != 0 || strings.Count(r.stdout, "\n") != 1 {
		t.Errorf("without a tunnel: %+v", r)
	}
	m.busyTunnel(t, "home", peer)
	row := regexp.MustCompile(`(?m)^home +up +\d+s +([0-9.]+(?:Ki)?B/s) +[0-9.]+(Ki)?B/s +[0-9.]+[KM]iB +[0-9.]+[KM]iB +1 +2 +0 +`)
	r := finish(t, m.monitor([]string{"LC_ALL=C"}, "--once", "home"))
	if found := row.FindStringSubmatch(r.stdout); r.code != 0 || r.stderr != "" || found == nil || found[1] == "0B/s" {
		t.Errorf("%+v", r)
	}
	// Not a terminal: the same, and said so.
	for _, env := range []string{"TERM=xterm", "TERM=dumb"} {
		r := finish(t, m.monitor([]string{env}))
		if r.code != 0 || !row.MatchString(r.stdout) || !strings.Contains(r.stderr, "as with --once") || strings.Contains(r.stdout, "\x1b") {
			t.Errorf("%+v", r)
		}
	}
	term := startTerminal(t, m.monitor([]string{"TERM=dumb"}))
	if text := term.rest(); strings.Contains(text, "\x1b") || !row.MatchString(text) {
		t.Errorf("on a dumb terminal: %q", text)
	}
	for _, args := range [][]string{{"--once", "nobody"}, {"nobody"}, {"--interval", "1ms"}, {"home", "home"}} {
		if r := finish(t, m.monitor(nil, args...)); r.code != 125 || r.stdout != "" || strings.Count(r.stderr, "hint: ") != 1 && strings.Count(r.stderr, "\n") > 3 {
			t.Errorf("%q: %+v", args, r)
		}
	}
}
