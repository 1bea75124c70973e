package e2e_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"

	"wireguard4netns/internal/nstest"
)

// A notified is a service manager: it hears what it is told, and by whom.
type notified struct {
	address string
	heard   chan notice
}

type notice struct {
	lines []string
	pid   int // of who said it, as the kernel has it
	uid   int
	at    time.Time
}

func (n notice) has(line string) bool { return slices.Contains(n.lines, line) }

// value returns what follows key and "=".
func (n notice) value(key string) string {
	for _, line := range n.lines {
		if v, ok := strings.CutPrefix(line, key+"="); ok {
			return v
		}
	}
	return ""
}

func newNotified(t *testing.T) *notified {
	t.Helper()
	m := &notified{address: filepath.Join(t.TempDir(), "notify"), heard: make(chan notice, 1000)}
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: m.address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	raw, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var optErr error
	if err := raw.Control(func(fd uintptr) { optErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) }); err != nil || optErr != nil {
		t.Fatal(err, optErr)
	}
	go func() {
		defer close(m.heard)
		text, oob := make([]byte, 4096), make([]byte, 1024)
		for {
			n, no, _, _, err := l.ReadMsgUnix(text, oob)
			if err != nil {
				return
			}
			one := notice{lines: strings.Split(string(text[:n]), "\n"), at: time.Now()}
			messages, _ := unix.ParseSocketControlMessage(oob[:no])
			for i := range messages {
				if cred, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
					one.pid, one.uid = int(cred.Pid), int(cred.Uid)
				} else if fds, err := unix.ParseUnixRights(&messages[i]); err == nil {
					for _, fd := range fds {
						unix.Close(fd)
					}
				}
			}
			m.heard <- one
		}
	}()
	return m
}

// start returns a command that the manager starts.
func (m *notified) start(w *world, watchdog time.Duration, args ...string) *exec.Cmd {
	cmd := w.tool(args...)
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.address)
	if watchdog > 0 {
		cmd.Env = append(cmd.Env, fmt.Sprintf("WATCHDOG_USEC=%d", watchdog.Microseconds()))
	}
	return cmd
}

// await returns the next notice that is meant; those before are passed over.
func (m *notified) await(t *testing.T, what string, meant func(notice) bool) notice {
	t.Helper()
	limit := time.After(waiting)
	var others []string
	for {
		select {
		case n := <-m.heard:
			if meant(n) {
				return n
			}
			others = append(others, strings.Join(n.lines, " "))
		case <-limit:
			t.Fatalf("no %s; heard %q", what, others)
		}
	}
}

func isAlive(n notice) bool { return n.has("WATCHDOG=1") }

// silent fails if a sign of life comes within d, but for those on their way.
func (m *notified) silent(t *testing.T, d time.Duration) {
	t.Helper()
	for begun := time.Now(); ; {
		select {
		case n := <-m.heard:
			if isAlive(n) && n.at.Sub(begun) > d/4 {
				t.Fatalf("a sign of life after %v", n.at.Sub(begun))
			}
		case <-time.After(time.Until(begun.Add(d))):
			return
		}
	}
}

// A tunnel as a service: what its manager is told, in order, and by which process.
func TestNotify(t *testing.T) {
	t.Parallel()
	const watchdog = 400 * time.Millisecond
	w := newWorld(t)
	conf := w.account(t)
	m := newNotified(t)
	up := m.start(w, watchdog, "up", "--name", "home", conf)
	succeed(t, up)

	ready := m.await(t, "READY", func(n notice) bool { return n.has("READY=1") })
	s := w.status(t, "home")
	if ready.value("MAINPID") != strconv.Itoa(s.SupervisorPID) || ready.pid != up.Process.Pid {
		t.Errorf("%+v: want process %d to name %d", ready, up.Process.Pid, s.SupervisorPID)
	}
	bySupervisor := func(n notice) notice {
		t.Helper()
		if n.pid != s.SupervisorPID || n.uid != os.Getuid() {
			t.Errorf("%+v: not of the supervisor %d", n, s.SupervisorPID)
		}
		return n
	}
	w.mustRun(t, "exec", "home", "--", "ping", "-c", "1", "-w", "15", w.peer.Addr4.String())
	bySupervisor(m.await(t, "STATUS of a tunnel that is up", func(n notice) bool { return n.value("STATUS") == "wg0 up" }))
	if err := syscall.Kill(s.EnginePID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	bySupervisor(m.await(t, "STATUS after the engine", func(n notice) bool {
		return strings.HasSuffix(n.value("STATUS"), "engine restarted 1 times")
	}))

	// Twice in the time that the manager waits, neither more nor less.
	const beats = 10
	first := bySupervisor(m.await(t, "WATCHDOG", isAlive))
	var last notice
	for range beats {
		last = m.await(t, "WATCHDOG", isAlive)
	}
	if pace := last.at.Sub(first.at) / beats; pace < watchdog/2*8/10 || pace > watchdog {
		t.Errorf("a sign of life each %v, asked for one within %v", pace, watchdog)
	}
	for name, pid := range map[string]int{"supervisor": s.SupervisorPID, "engine": w.status(t, "home").EnginePID} {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		t.Log(name, "stopped")
		m.silent(t, 4*watchdog)
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		m.await(t, "WATCHDOG when the "+name+" goes on", isAlive)
	}

	w.mustRun(t, "reload", "home")
	n := bySupervisor(m.await(t, "RELOADING", func(n notice) bool { return n.has("RELOADING=1") }))
	if usec, err := strconv.ParseInt(n.value("MONOTONIC_USEC"), 10, 64); err != nil || usec <= 0 {
		t.Errorf("%+v: %v", n, err)
	}
	bySupervisor(m.await(t, "READY after the reload", func(n notice) bool { return n.has("READY=1") }))
	w.mustRun(t, "down", "home")
	bySupervisor(m.await(t, "STOPPING", func(n notice) bool { return n.has("STOPPING=1") }))
}

// terminated starts a tunnel by a command, ends its supervisor by SIGTERM, as a
// service manager does, and returns the supervisor's exit code.
var terminated = nstest.NewFunc("terminated", func(up []string) (code int, err error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, err
	}
	if out, err := exec.Command(up[0], up[1:]...).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(children)))
	if err != nil {
		return 0, err
	}
	var status unix.WaitStatus
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		return 0, err
	}
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil || !status.Exited() {
		return 0, fmt.Errorf("%v, %x", err, status)
	}
	return status.ExitStatus(), nil
})

func TestTerminatedAsService(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.snapshot(t)
	code, err := terminated.Call(w.user.command, []string{w.program, "up", "--name", "home", w.account(t)})
	if err != nil || code != 0 {
		t.Errorf("exit code %d, %v", code, err)
	}
	before.Check(t)
}

const units = "../../dist/systemd/user"

// readUnit returns a shipped unit as it is after an installation of the program.
func readUnit(t *testing.T, name, program string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(units, name))
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`(?m)^(Exec\w+=)wireguard4netns `).ReplaceAllString(string(text), "${1}"+program+" ")
}

// analyze returns what systemd-analyze prints.
func analyze(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("systemd-analyze", args...)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+t.TempDir(), "SYSTEMD_PAGER=", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if len(out) == 0 && err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return string(out)
}

// systemd itself has nothing to say of the units, and rates them as they claim.
func TestUnits(t *testing.T) {
	t.Parallel()
	program := nstest.Build(t)
	names, err := os.ReadDir(units)
	if err != nil || len(names) != 2 {
		t.Fatalf("%d units, %v", len(names), err)
	}
	verify := func(change func(string) string) string {
		dir := t.TempDir()
		paths := []string{"verify", "--user"}
		for _, n := range names {
			path := filepath.Join(dir, n.Name())
			if err := os.WriteFile(path, []byte(change(readUnit(t, n.Name(), program))), 0o644); err != nil {
				t.Fatal(err)
			}
			paths = append(paths, path)
		}
		return analyze(t, paths...)
	}
	if out := verify(func(unit string) string { return unit }); out != "" {
		t.Errorf("systemd-analyze verify says:\n%s", out)
	}
	for _, broken := range [][2]string{{"KillMode=mixed", "KillMode=mostly"}, {"WatchdogSec", "WatchDogSec"}, {"@system-service", "@no-service"}, {program + " exec", "/nowhere exec"}} {
		if out := verify(func(unit string) string { return strings.Replace(unit, broken[0], broken[1], 1) }); out == "" {
			t.Errorf("systemd-analyze verify says nothing of %s", broken[1])
		}
	}

	tunnel := readUnit(t, "wireguard4netns@.service", program)
	claim := regexp.MustCompile(`security --offline=true: (\d+\.\d)\.`).FindStringSubmatch(tunnel)
	if claim == nil {
		t.Fatal("the unit states no exposure")
	}
	path := filepath.Join(t.TempDir(), "wireguard4netns@.service")
	if err := os.WriteFile(path, []byte(tunnel), 0o644); err != nil {
		t.Fatal(err)
	}
	out := analyze(t, "security", "--offline=true", "--user", path)
	found := regexp.MustCompile(`Overall exposure level .*: (\d+\.\d) `).FindStringSubmatch(out)
	if found == nil {
		t.Fatalf("no exposure in:\n%s", out)
	}
	if found[1] > claim[1] || len(found[1]) != len(claim[1]) {
		t.Errorf("the exposure is %s, the unit says %s", found[1], claim[1])
	}
}

// A restriction is what a unit allows its processes.
type restriction struct {
	Calls    []string
	Families []string
	Command  []string
}

// restricted runs a command as systemd runs those of a unit with SystemCallFilter=,
// SystemCallErrorNumber=EPERM, RestrictAddressFamilies=, MemoryDenyWriteExecute= and
// NoNewPrivileges=, and returns its output.
var restricted = nstest.NewFunc("restricted", func(r restriction) (string, error) {
	known, err := arch.GetInfo("")
	if err != nil {
		return "", err
	}
	group := seccomp.SyscallGroup{Action: seccomp.ActionAllow}
	for _, call := range r.Calls {
		if _, ok := known.SyscallNames[call]; ok && call != "socket" {
			group.Names = append(group.Names, call)
		}
	}
	for _, name := range r.Families {
		family, ok := map[string]uint64{"AF_UNIX": unix.AF_UNIX, "AF_INET": unix.AF_INET, "AF_INET6": unix.AF_INET6, "AF_NETLINK": unix.AF_NETLINK}[name]
		if !ok {
			return "", errors.New(name + ": not known to this test")
		}
		group.NamesWithCondtions = append(group.NamesWithCondtions, seccomp.NameWithConditions{
			Name:       "socket",
			Conditions: []seccomp.Condition{{Argument: 0, Operation: seccomp.Equal, Value: family}},
		})
	}
	const setMDWE, refuseExecGain = 65, 1 // PR_SET_MDWE, Linux 6.3
	if err := unix.Prctl(setMDWE, refuseExecGain, 0, 0, 0); err != nil {
		return "", fmt.Errorf("deny memory to write and execute: %w", err)
	}
	err = seccomp.LoadFilter(seccomp.Filter{
		NoNewPrivs: true, Flag: seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{DefaultAction: seccomp.ActionErrno, Syscalls: []seccomp.SyscallGroup{group}},
	})
	if err != nil {
		return "", err
	}
	if len(r.Command) == 0 {
		return forbidden(), nil
	}
	cmd := exec.Command(r.Command[0], r.Command[1:]...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out.String())
	}
	return out.String(), nil
})

// forbidden tries what the unit forbids: a system call, a family of sockets, memory
// that can be written and executed.
func forbidden() (outcome string) {
	_, trace := unix.PtracePeekData(0, 0, make([]byte, 8)) // of no process: ESRCH
	fd, socket := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if socket == nil {
		unix.Close(fd)
	}
	memory, write := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
	if write == nil {
		unix.Munmap(memory)
	}
	for _, err := range []error{trace, socket, write} {
		if err == unix.EPERM || err == unix.EACCES {
			outcome += "refused "
		} else {
			outcome += fmt.Sprint(err, " ")
		}
	}
	return outcome
}

// What the unit forbids is nothing that a tunnel needs, from start to end, nor one
// whose engine is killed.
func TestTunnelUnderUnit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	unit := readUnit(t, "wireguard4netns@.service", w.program)
	setting := func(name string) []string {
		line := regexp.MustCompile(`(?m)^` + name + `=(.*)$`).FindStringSubmatch(unit)
		if line == nil {
			t.Fatalf("the unit has no %s", name)
		}
		return strings.Fields(line[1])
	}
	r := restriction{Calls: systemCalls(t, append(setting("SystemCallFilter"), "@default")), Families: setting("RestrictAddressFamilies")}
	under := func(command ...string) (string, error) {
		r.Command = command
		return restricted.Call(w.user.command, r)
	}
	if free, bound := forbidden(), strings.Repeat("refused ", 3); strings.Contains(free, "refused") {
		t.Errorf("without the unit: %s", free)
	} else if out, err := under(); err != nil || out != bound {
		t.Errorf("the restrictions do not hold: %s, %v", out, err)
	}
	conf := w.account(t, "DNS = 10.77.0.1")
	if out, err := under(w.program, "up", "--sandbox=strict", "--name", "home", conf); err != nil {
		t.Fatalf("up: %v: %s", err, out)
	}
	ping := func() {
		t.Helper()
		// One answer is enough: what an engine that is killed has read is lost.
		w.mustRun(t, "exec", "home", "--", "ping", "-c", "5", "-i", "0.3", "-w", "15", w.peer.Addr4.String())
	}
	ping()
	if err := syscall.Kill(w.status(t, "home").EnginePID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ping()
	for _, args := range [][]string{{"reload", "home"}, {"up", "--replace", "--name", "home", conf}} {
		if out, err := under(append([]string{w.program}, args...)...); err != nil {
			t.Errorf("%s: %v: %s", args, err, out)
		}
	}
	ping()
	if out, err := under(w.program, "down", "home"); err != nil {
		t.Errorf("down: %v: %s", err, out)
	}
	if log := w.mustRun(t, "list"); strings.Contains(log, "home") {
		t.Errorf("list: %s", log)
	}
}

// systemCalls expands the groups of SystemCallFilter=.
func systemCalls(t *testing.T, names []string) (calls []string) {
	t.Helper()
	for _, name := range names {
		if !strings.HasPrefix(name, "@") {
			calls = append(calls, name)
			continue
		}
		var inside []string
		for line := range strings.Lines(analyze(t, "syscall-filter", name)) {
			if f := strings.Fields(line); len(f) == 1 && f[0] != name && f[0] != "#" {
				inside = append(inside, f[0])
			}
		}
		if len(inside) < 2 {
			t.Fatalf("%s has %q", name, inside)
		}
		calls = append(calls, systemCalls(t, inside)...)
	}
	slices.Sort(calls)
	return slices.Compact(calls)
}

// What --on-up, --on-handshake and --on-down find: the tunnel's facts, the caller's
// environment and directory, and no way to a key.
func TestHooksOutside(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conf := w.account(t, "DNS = 10.77.0.1")
	dir := t.TempDir()
	before := w.snapshot(t)
	record := `{ env; echo CWD=$PWD; echo FDS=$(ls /proc/self/fd); cat /proc/$W4N_SUPERVISOR_PID/maps >/dev/null && echo READABLE=1; echo NET=$(readlink /proc/self/ns/net); } >` + dir + `/new 2>&1; mv ` + dir + `/new ` + dir + `/$W4N_EVENT; echo $W4N_EVENT >>` + dir + `/order`
	cmd := w.user.commandIn(dir, w.program, "up", "--name", "home", "--on-up", record, "--on-handshake", record, "--on-down", record, conf)
	m := newNotified(t)
	cmd.Env = append(cmd.Env, "CALLER=me", "NOTIFY_SOCKET="+m.address)
	succeed(t, cmd)
	s := w.status(t, "home")
	read := func(event string) (facts map[string]string, text string) {
		t.Helper()
		nstest.Eventually(t, waiting, func() error {
			b, err := os.ReadFile(filepath.Join(dir, event))
			text = string(b)
			return err
		})
		facts = map[string]string{}
		for line := range strings.Lines(text) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			facts[key] = value
		}
		return facts, text
	}
	check := func(event string, more map[string]string) {
		t.Helper()
		facts, text := read(event)
		want := map[string]string{
			"W4N_EVENT": event, "W4N_NAME": "home", "W4N_INTERFACE": "wg0", "W4N_DNS": "10.77.0.1",
			"W4N_ADDRESSES": strings.Trim(strings.ReplaceAll(fmt.Sprint(s.Addresses), ",", ""), "[]"),
			"W4N_DIRECTORY": s.Directory, "W4N_UAPI_SOCKET": s.UAPISocket, "W4N_SUPERVISOR_PID": strconv.Itoa(s.SupervisorPID),
			"CALLER": "me", "CWD": dir, "FDS": "0 1 2 3" /* of ls itself */, "READABLE": "", "NOTIFY_SOCKET": "",
			"NET": succeed(t, w.user.command("readlink", "/proc/self/ns/net")),
		}
		for key, value := range more {
			want[key] = value
		}
		for key, value := range want {
			if facts[key] != value {
				t.Errorf("%s: %s is %q, not %q", event, key, facts[key], value)
			}
		}
		lacks(t, text, w.secrets(t, conf)...)
	}
	check("up", map[string]string{"W4N_PEER": ""})
	w.mustRun(t, "exec", "home", "--", "ping", "-c", "1", "-w", "15", w.peer.Addr4.String())
	check("handshake", map[string]string{"W4N_PEER": s.Peers[0].PublicKey, "W4N_ENDPOINT": s.Peers[0].Endpoint, "W4N_PEER_NAME": s.Peers[0].Name})
	w.mustRun(t, "down", "home")
	check("down", map[string]string{"W4N_PEER": ""})
	if order, err := os.ReadFile(filepath.Join(dir, "order")); err != nil || string(order) != "up\nhandshake\ndown\n" {
		t.Errorf("order %q, %v", order, err)
	}

	// One that fails says so in the log, and no more. In run they are waited for.
	cmd = w.tool("up", "--name", "home", "--on-up", "echo broken; exit 3", "--on-down", "echo $W4N_EVENT >"+dir+"/last", conf)
	succeed(t, cmd)
	nstest.Eventually(t, waiting, func() error {
		if log := w.mustRun(t, "logs", "home"); !strings.Contains(log, "broken") || !strings.Contains(log, `run --on-up "echo broken; exit 3": exit status 3`) {
			return fmt.Errorf("log:\n%s", log)
		}
		return nil
	})
	w.mustRun(t, "exec", "home", "--", "ping", "-c", "1", "-w", "15", w.peer.Addr4.String())
	w.mustRun(t, "down", "home")
	w.mustRun(t, "run", "--on-up", "echo $W4N_EVENT >"+dir+"/run", "--on-down", "cat "+dir+"/run >"+dir+"/last", conf, "true")
	if last, err := os.ReadFile(filepath.Join(dir, "last")); err != nil || string(last) != "up\n" {
		t.Errorf("%q, %v", last, err)
	}
	before.Check(t)
}

// secrets returns the private and preshared keys in a file.
func (w *world) secrets(t *testing.T, conf string) (keys []string) {
	t.Helper()
	f, err := os.Open(conf)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^(?:PrivateKey|PresharedKey) = (\S+)$`).FindAllStringSubmatch(string(text), -1) {
		keys = append(keys, m[1])
	}
	if len(keys) == 0 {
		t.Fatalf("%s has no key", conf)
	}
	return keys
}

// A NOTIFY_SOCKET on which nobody listens, left in the environment by who knows
// whom, is said and no hindrance.
func TestNotifyNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cmd := w.tool("up", "--name", "home", w.account(t))
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+filepath.Join(t.TempDir(), "gone"))
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "tell the service manager at ") {
		t.Errorf("%v: %s", err, out)
	}
	w.mustRun(t, "down", "home")
}
