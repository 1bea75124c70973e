package e2e_test

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"wireguard4netns/internal/nstest"
)

// A world is a user's machine and, next to it, the Internet with a provider's
// peer in it. What the Internet offers is there at its own addresses and at
// those of the peer inside the tunnel.
//
//	machine                       internet
//	  eth0 192.0.2.2  ─────────── eth0 192.0.2.1
//	       2001:db8::2                 2001:db8::1
//	  app  10.77.0.n  ═══════════ wg0  10.77.0.1
//	       fd77::n                     fd77::1
type world struct {
	machine, internet *nstest.Host
	peer              *nstest.Peer
	user              *user // of the machine
	program           string
}

var (
	internet4 = netip.MustParseAddr("192.0.2.1")
	internet6 = netip.MustParseAddr("2001:db8::1")
	machine4  = netip.MustParseAddr("192.0.2.2")
)

// newWorld makes a world in which the peer runs.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := newLinkedHosts(t)
	w.peer = nstest.StartUpstream(t, w.internet)
	w.internet.Serve(t, nstest.Services{Page: "home page", Answers: []netip.Addr{w.peer.Addr4, w.peer.Addr6}})
	return w
}

// newLinkedHosts makes a world without a peer.
func newLinkedHosts(t testing.TB) *world {
	t.Helper()
	w := &world{machine: nstest.NewHost(t), internet: nstest.NewHost(t), program: nstest.Build(t)}
	prefixes := func(list ...string) (out []netip.Prefix) {
		for _, s := range list {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	nstest.Connect(t,
		nstest.End{Host: w.machine, Name: "eth0", Addrs: prefixes("192.0.2.2/24", "2001:db8::2/64")},
		nstest.End{Host: w.internet, Name: "eth0", Addrs: prefixes("192.0.2.1/24", "2001:db8::1/64")})
	w.user = login(t, w.machine)
	return w
}

// account opens a plain account and returns the path of its file.
func (w *world) account(t testing.TB, extra ...string) string {
	t.Helper()
	return w.peer.NewAccount(t, internet4, nstest.AccountOptions{}).WriteConf(t, extra...)
}

// tool is the program under test, as the user calls it.
func (w *world) tool(args ...string) *exec.Cmd { return w.user.command(w.program, args...) }

// A commander makes commands for some place, as exec.Command does for here.
type commander func(name string, args ...string) *exec.Cmd

// inTunnel returns what makes commands that `run` runs in a tunnel of their own.
func (w *world) inTunnel(runArgs ...string) commander {
	return func(name string, args ...string) *exec.Cmd {
		return w.tool(append(append(append([]string{"run"}, runArgs...), "--", name), args...)...)
	}
}

// inApp returns what makes commands in the netns and mntns of an app of `run`,
// as root of the machine: nobody else may enter there.
func (w *world) inApp(pid int) commander {
	return func(name string, args ...string) *exec.Cmd {
		flags := []string{"--net", "--mount", "--target", strconv.Itoa(pid), "--", name}
		return w.machine.Command("nsenter", append(flags, args...)...)
	}
}

// snapshot looks at the machine, to find what a tunnel leaves behind.
func (w *world) snapshot(t testing.TB, dirs ...string) *nstest.Snapshot {
	t.Helper()
	return nstest.TakeSnapshot(t, w.machine, append(dirs, "/run/user", "/run/wireguard")...)
}

// A user is one who is logged in to a Host: other than with UserCommand, all
// that one user starts is in one userns, as on a real machine, so one process
// may enter the namespaces that another made.
type user struct {
	host  *nstest.Host
	shell int // a process
}

func login(t testing.TB, h *nstest.Host) *user {
	t.Helper()
	return &user{host: h, shell: hold(t, h.UserCommand("sh", "-c", "echo $$; read -r _"))}
}

func (u *user) command(name string, args ...string) *exec.Cmd { return u.commandIn("", name, args...) }

// commandIn is command with another working directory.
func (u *user) commandIn(dir, name string, args ...string) *exec.Cmd {
	flags := []string{"--preserve-credentials", "--user", "--target", strconv.Itoa(u.shell), "--", name}
	cmd := u.host.Command("nsenter", append(flags, args...)...)
	if dir != "" {
		cmd = u.host.CommandIn(dir, "nsenter", append(flags, args...)...)
	}
	cmd.Env = append(os.Environ(), fmt.Sprintf("XDG_RUNTIME_DIR=/run/user/%d", nstest.User))
	return cmd
}

// enter is a command in the userns and netns of a process that owns both.
func enter(pid int, name string, args ...string) *exec.Cmd {
	flags := []string{"--preserve-credentials", "--user", "--net", "--target", strconv.Itoa(pid), "--", name}
	return exec.Command("nsenter", append(flags, args...)...)
}

// entering returns what makes commands for enter.
func entering(pid int) commander {
	return func(name string, args ...string) *exec.Cmd { return enter(pid, name, args...) }
}

// hold starts a command that prints a PID, which it returns, and lives until
// its input or the test ends.
func hold(t testing.TB, cmd *exec.Cmd) (pid int) {
	t.Helper()
	if cmd.Stdin == nil {
		input, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { input.Close() })
	}
	line := firstLine(t, cmd)
	pid, err := strconv.Atoi(line)
	if err != nil {
		t.Fatalf("%s printed %q, not a PID", cmd, line)
	}
	return pid
}

// firstLine starts a command and returns the first line of its output.
func firstLine(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	nstest.Start(t, cmd)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("read from %s: %v", cmd, err)
	}
	return strings.TrimSpace(line)
}

// succeed runs a command and returns its output without the last line end.
func succeed(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	var stderr strings.Builder
	if cmd.Stderr == nil {
		cmd.Stderr = &stderr
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, out, stderr.String())
	}
	return strings.TrimRight(string(out), "\n")
}

// exitCode waits for a started command and returns its exit code.
func exitCode(t testing.TB, cmd *exec.Cmd, limit time.Duration) int {
	t.Helper()
	timer := time.AfterFunc(limit, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	if !timer.Stop() {
		t.Fatalf("%s: still runs after %v", strings.Join(cmd.Args, " "), limit)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

// contains fails the test unless text has all of parts in it.
func contains(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in:\n%s", part, text)
		}
	}
}

// lacks fails the test if text has one of parts in it.
func lacks(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(text, part) {
			t.Errorf("%q is in:\n%s", part, text)
		}
	}
}

// A lockedBuffer can be read while a command writes to it.
type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
