package ns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/link"
	"wireguard4netns/internal/ns/inside"
	"wireguard4netns/internal/nstest"
	"wireguard4netns/internal/sys"
)

func TestMain(m *testing.M) {
	if os.Args[0] == inside.Argv0 {
		os.Exit(inside.Main(os.NewFile(inside.ConnFD, "supervisor")))
	}
	nstest.Main(m)
}

// newTarget is a process in a new user and network namespace of the test's uid.
func newTarget(t *testing.T) (pid int, end func()) {
	t.Helper()
	cmd := exec.Command("unshare", "-Urn", "sh", "-c", "echo ready; read -r _")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		in.Close()
		cmd.Wait()
	})
	t.Cleanup(end)
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid, end
}

func open(t *testing.T, target Target) *Set {
	t.Helper()
	s, err := Open(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func created(t *testing.T) *Set {
	t.Helper()
	s, notes, err := Create(t.Context(), inside.Config{UID: os.Getuid()})
	if err != nil {
		t.Fatalf("%v %v", err, notes)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func within(pid int, command string) (string, error) {
	out, err := exec.Command("nsenter", "--preserve-credentials", "-U", "-n", "-t", strconv.Itoa(pid), "sh", "-c", command).CombinedOutput()
	return string(out), err
}

// Facts 1 and 2 of the design, which sys.Join and package link rely on: a bare
// clone may join a user namespace from a Go program, the descriptors it opens
// are ours at once, and a netlink socket made inside configures from outside.
func TestInterfaceFromOutside(t *testing.T) {
	t.Parallel()
	pid, _ := newTarget(t)
	s := open(t, Target{PID: pid})
	tun, netlink, err := s.Interface("wg0")
	if err != nil {
		t.Fatal(err)
	}
	defer tun.Close()
	defer netlink.Close()
	if name, err := sys.TUNName(int(tun.Fd())); err != nil || name != "wg0" {
		t.Errorf("the TUN is called %q, %v", name, err)
	}
	conn, err := link.NewConn(int(netlink.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	err = conn.Configure(link.Config{
		Name: "wg0", MTU: 1380, Addresses: prefixes("10.1.2.3/24", "fd00::3/64"),
		Routes: prefixes("0.0.0.0/0", "::/0", "10.9.0.0/16"), Up: true, Loopback: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := within(pid, "ip -o addr; ip -o link; ip route; ip -6 route; cat /proc/net/if_inet6")
	for _, want := range []string{
		"wg0    inet 10.1.2.3/24", "wg0    inet6 fd00::3/64 scope global", "mtu 1380",
		"lo    inet 127.0.0.1/8", "default dev wg0", "10.9.0.0/16 dev wg0",
	} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("inside there is no %q: %v\n%s", want, err, out)
		}
	}
	// Neither a link-local address nor one that is still tentative.
	if strings.Contains(out, "fe80") || strings.Contains(out, "tentative") {
		t.Errorf("link-local or tentative:\n%s", out)
	}
	if _, _, err := s.Interface("wg0"); !errors.Is(err, ErrLinkExists) {
		t.Errorf("a second wg0: got %v", err)
	}
	if _, _, err := s.Interface(strings.Repeat("x", 16)); err == nil {
		t.Error("a name of 16 letters was taken")
	}
}

// Fact 1 again: right every time, also while the garbage collector works and
// other goroutines start processes.
func TestJoinUnderLoad(t *testing.T) {
	t.Parallel()
	pid, _ := newTarget(t)
	s := open(t, Target{PID: pid})
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	load.Go(func() {
		var keep [64][]byte
		for i := 0; ctx.Err() == nil; i++ {
			keep[i%len(keep)] = make([]byte, 1<<16)
		}
	})
	load.Go(func() {
		for ctx.Err() == nil {
			exec.Command("/bin/true").Run()
		}
	})
	for i := range 200 {
		tun, netlink, err := s.Interface(fmt.Sprint("wg", i))
		if err != nil {
			t.Errorf("join %d: %v", i, err)
			break
		}
		tun.Close()
		netlink.Close()
	}
	cancel()
	load.Wait()
}

// Fact 3: a TUN descriptor keeps a network namespace whose last process ended, so
// that end has to be looked for.
func TestWaitEmpty(t *testing.T) {
	t.Parallel()
	pid, end := newTarget(t)
	s := open(t, Target{PID: pid})
	ended := make(chan error, 1)
	go func() { ended <- Target{PID: pid}.Wait(t.Context(), s) }()

	// A second process stays when the first one ends.
	second := exec.Command("nsenter", "--preserve-credentials", "-U", "-n", "-t", strconv.Itoa(pid), "sh", "-c", "echo; exec cat")
	in, err := second.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := second.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	end()
	if pids, err := s.Members(); err != nil || len(pids) != 1 || pids[0] != second.Process.Pid {
		t.Errorf("members %v, %v", pids, err)
	}
	select {
	case err := <-ended:
		t.Fatalf("over while a process is inside: %v", err)
	default:
	}
	in.Close()
	if err := second.Wait(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the end was not seen")
	}
}

func TestWaitIsCancelled(t *testing.T) {
	t.Parallel()
	pid, _ := newTarget(t)
	s := open(t, Target{PID: pid})
	cause := errors.New("told")
	for _, target := range []Target{{PID: pid}, {Path: "/proc/self/fd/" + strconv.Itoa(int(s.Net.Fd()))}, {FD: 9}} {
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- target.Wait(ctx, s) }()
		cancel(cause)
		select {
		case err := <-ended:
			if !errors.Is(err, cause) {
				t.Errorf("%s: got %v", target, err)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%s: still waits", target)
		}
	}
}

func TestWaitForPath(t *testing.T) {
	t.Parallel()
	pid, _ := newTarget(t)
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.Symlink(fmt.Sprintf("/proc/%d/ns/net", pid), path); err != nil {
		t.Fatal(err)
	}
	s := open(t, Target{Path: path})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := (Target{Path: path}).Wait(t.Context(), s); err != nil {
		t.Error(err)
	}
}

func TestKillAll(t *testing.T) {
	t.Parallel()
	s := created(t)
	cmd := App{Args: []string{"sh", "-c", "while :; do sleep 100 & sleep 100 & wait; done"}, Env: os.Environ(), Dir: "/"}
	pid, err := s.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	nstest.Eventually(t, 5*time.Second, func() error {
		if pids, err := s.Members(); err != nil || len(pids) < 3 {
			return fmt.Errorf("members %v, %v", pids, err)
		}
		return nil
	})
	go unix.Wait4(pid, nil, 0, nil)
	if err := s.KillAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if pids, err := s.Members(); err != nil || len(pids) != 0 {
		t.Errorf("left %v, %v", pids, err)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	gone := exec.Command("/bin/true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		target Target
		want   error
	}{
		{Target{PID: gone.ProcessState.Pid()}, ErrTargetGone},
		{Target{Path: file}, ErrNotNetNS},
		{Target{Path: "/proc/self/ns/mnt"}, ErrNotNetNS},
		{Target{Path: "/nonexistent"}, os.ErrNotExist},
		{Target{FD: 999}, unix.EBADF},
	} {
		if s, err := Open(test.target); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, %v", test.target, s, err)
		}
	}
	if os.Getuid() != 0 {
		if _, err := Open(Target{PID: 1}); !errors.Is(err, ErrTargetDenied) {
			t.Errorf("another user's process: got %v", err)
		}
	}
}

func TestParseTarget(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Target{
		"42": {PID: 42}, "/proc/42/ns/net": {PID: 42}, "fd:3": {FD: 3}, "fd:0": {},
		"/run/netns/x": {Path: "/run/netns/x"}, "netns": {Path: "netns"}, "/proc/self/ns/net": {Path: "/proc/self/ns/net"},
	} {
		if got, err := ParseTarget(text); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "fd:", "fd:x", "fd:-1", "/proc/99999999999999999999/ns/net"} {
		if got, err := ParseTarget(text); err == nil {
			t.Errorf("%q: got %+v", text, got)
		}
	}
}

// What holds the app: two layers of user namespace (DESIGN, "Processes"). The
// positive control is the same command with capabilities over the outer layer.
func TestAppIsHeld(t *testing.T) {
	t.Parallel()
	s := created(t)
	if _, _, err := s.Interface("wg0"); err != nil {
		t.Fatal(err)
	}
	for name, command := range map[string]string{
		"a route":         "ip route add 10.0.0.0/8 dev lo",
		"a link up":       "ip link set lo up",
		"a TUN":           "ip tuntap add mode tun name tun9",
		"a sysctl":        "echo 1 >/proc/sys/net/ipv4/ip_forward",
		"an unmount":      "umount /sys",
		"the outer netns": "nsenter -t $$ --net=/proc/1/ns/net true",
	} {
		t.Run(name, func(t *testing.T) {
			if out, code := app(t, s, App{Args: []string{"sh", "-c", command}}); code == 0 {
				t.Errorf("an app may: %s", out)
			}
		})
	}
	if out, code := app(t, s, App{Args: []string{"sh", "-c", "id -u; id -g; grep -E 'Cap(Eff|Prm|Amb)|NoNewPrivs' /proc/self/status"}}); code != 0 ||
		strings.Count(out, "0000000000000000") != 3 || !strings.Contains(out, "NoNewPrivs:\t1") ||
		!strings.HasPrefix(out, fmt.Sprintf("%d\n%d\n", os.Getuid(), os.Getgid())) {
		t.Errorf("identity and capabilities: %s", out)
	}
	if out, _ := app(t, s, App{Args: []string{"id", "-u"}, MapRoot: true}); strings.TrimSpace(out) != "0" {
		t.Errorf("--map-root: %s", out)
	}
	for _, command := range []string{"ip link set lo up", "umount /sys"} {
		if out, code := app(t, s, App{Args: []string{"sh", "-c", command}, MapRoot: true}); code == 0 {
			t.Errorf("root inside may: %s: %s", command, out)
		}
	}
	if out, code := privileged(t, s, "ip link set lo up && ip route add 10.0.0.0/8 dev lo"); code != 0 {
		t.Errorf("a hook may not: %s", out)
	}
}

func TestStartErrors(t *testing.T) {
	t.Parallel()
	s := created(t)
	plain := filepath.Join(t.TempDir(), "plain")
	script := filepath.Join(t.TempDir(), "script")
	if err := errors.Join(os.WriteFile(plain, nil, 0o644), os.WriteFile(script, []byte("exit 3\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		app  App
		want error
	}{
		{App{Args: []string{"no-such-program"}, Dir: "/"}, ErrNotFound},
		{App{Args: []string{"/no/such/program"}, Dir: "/"}, ErrNotFound},
		{App{Args: []string{plain}, Dir: "/"}, ErrNotExecutable},
		{App{Args: []string{"/"}, Dir: "/"}, ErrNotExecutable},
		{App{Args: []string{"true"}, Dir: "/no/such/directory"}, os.ErrNotExist},
	} {
		test.app.Env = os.Environ()
		if pid, err := s.Start(test.app); !errors.Is(err, test.want) {
			t.Errorf("%v: got %d, %v", test.app.Args, pid, err)
		}
	}
	// As execvp(3) has it, a file without #! is the shell's.
	if out, code := app(t, s, App{Args: []string{script}}); code != 3 {
		t.Errorf("script without #!: exit code %d: %s", code, out)
	}
}

func TestCreateIsCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, _, err := Create(ctx, inside.Config{UID: os.Getuid()}); err == nil {
		s.Close()
		t.Error("Create went on")
	}
}

// app runs an app to its end and returns what it wrote.
func app(t *testing.T, s *Set, a App) (output string, code int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "out")
	if a.Env == nil {
		a.Env = os.Environ()
	}
	a.Dir = "/"
	a.Args = append([]string{"sh", "-c", `exec "$@" >` + file + ` 2>&1`, "sh"}, a.Args...)
	pid, err := s.Start(a)
	if err != nil {
		t.Fatal(err)
	}
	code = exitCode(t, pid)
	out, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(out), code
}

func privileged(t *testing.T, s *Set, command string) (output string, code int) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	pid, err := s.StartPrivileged([]string{"/bin/sh", "-c", command}, os.Environ(), int(w.Fd()))
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	out.ReadFrom(r)
	return out.String(), exitCode(t, pid)
}

func exitCode(t *testing.T, pid int) int {
	t.Helper()
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
		t.Fatal(err)
	}
	return status.ExitStatus()
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}
