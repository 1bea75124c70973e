package run_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"wireguard4netns/internal/nstest"
)

// A mistake is answered by two lines, what and where it is, and what to do, by
// exit code 125, and by leaving nothing behind.
type mistake struct{ what, hint string }

// mistake runs a command that is one.
func (m *machine) mistake(t testing.TB, cmd *exec.Cmd) mistake {
	t.Helper()
	before := nstest.TakeSnapshot(t, m.Host, "/run")
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	started := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(deadline, func() { cmd.Process.Kill() })
	cmd.Wait()
	late.Stop()
	if code := exitCode(cmd.ProcessState); code != 125 {
		t.Errorf("exit code %d, want 125\n%s", code, stderr.String())
	}
	if took := time.Since(started); took > deadline/2 {
		t.Errorf("it took %v", took)
	}
	if stdout.Len() > 0 {
		t.Errorf("it printed on standard output: %s", stdout.String())
	}
	for name, key := range map[string]string{"private key": m.private, "preshared key": m.psk} {
		if strings.Contains(stderr.String(), key[:20]) {
			t.Errorf("the %s is in the message: %s", name, stderr.String())
		}
	}
	before.Check(t)
	what, hint, ok := strings.Cut(stderr.String(), "\nhint: ")
	what, ok2 := strings.CutPrefix(what, "wireguard4netns: ")
	hint, ok3 := strings.CutSuffix(hint, "\n")
	if !ok || !ok2 || !ok3 || strings.Contains(what+hint, "\n") {
		t.Errorf("not two lines, what and a hint:\n%s", stderr.String())
	}
	return mistake{what, hint}
}

// checkMistake compares what a mistake is answered by; of the wanted hint the end
// may be left out (…).
func (m *machine) checkMistake(t *testing.T, cmd *exec.Cmd, want mistake) {
	t.Helper()
	got := m.mistake(t, cmd)
	if start, ok := strings.CutSuffix(want.hint, "…"); ok && strings.HasPrefix(got.hint, start) {
		got.hint = want.hint
	}
	if got != want {
		t.Errorf("%s\n  said %q\n       %q\n  want %q\n       %q", strings.Join(cmd.Args, " "), got.what, got.hint, want.what, want.hint)
	}
}

// TestMistakes runs the scripts in testdata. Beside testscript's own commands
// they have
//
//	mistake ARG…   runs the program, which is to fail as a mistake does
//	what TEXT      what it said
//	hint TEXT      and its hint
//	works ARG…     runs the program, which is to succeed
//
// A file good.conf is there.
func TestMistakes(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			t := env.T().(testing.TB)
			s := &script{machine: newMachine(t)}
			s.PrivateEtc(t)
			s.WriteFile(t, "/etc/nsswitch.conf", "hosts: files\n") // and no way to ask the real DNS
			env.Values[scriptKey{}] = s
			good, err := os.ReadFile(s.conf)
			if err == nil {
				err = os.WriteFile(filepath.Join(env.WorkDir, "good.conf"), good, 0o600)
			}
			return err
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"mistake": func(ts *testscript.TestScript, neg bool, args []string) {
				s := ts.Value(scriptKey{}).(*script)
				s.last = s.mistake(s.t, s.command(ts, args))
			},
			"works": func(ts *testscript.TestScript, neg bool, args []string) {
				s := ts.Value(scriptKey{}).(*script)
				if out, err := s.command(ts, args).CombinedOutput(); err != nil {
					ts.Fatalf("%v\n%s", err, out)
				}
			},
			"what": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Value(scriptKey{}).(*script).compare(ts, "what", args)
			},
			"hint": func(ts *testscript.TestScript, neg bool, args []string) {
				ts.Value(scriptKey{}).(*script).compare(ts, "hint", args)
			},
		},
	})
}

type scriptKey struct{}

type script struct {
	*machine
	last mistake
}

// command runs the program in the script's directory, with a home in it.
func (s *script) command(ts *testscript.TestScript, args []string) *exec.Cmd {
	dir := ts.Getenv("WORK")
	cmd := s.UserCommandIn(ts.MkAbs("."), s.program, args...)
	cmd.Env = append(cmd.Env, "HOME="+dir, "XDG_CONFIG_HOME="+dir+"/.config")
	return cmd
}

func (s *script) compare(ts *testscript.TestScript, part string, args []string) {
	got := s.last.what
	if part == "hint" {
		got = s.last.hint
	}
	// Whether the machine has the directory, and lets us in, is not our matter.
	got = strings.ReplaceAll(got, " (/etc/wireguard may not be read)", "")
	if want := strings.Join(args, " "); got != want {
		s.t.Errorf("%s is\n\t%s\nwant\n\t%s", part, got, want)
	}
}

func TestHelpOfEachCommand(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	root := finish(t, m.w4n("--help"))
	_, list, ok := strings.Cut(root.stdout, "Available Commands:\n")
	if root.code != 0 || !ok {
		t.Fatalf("--help: exit code %d\n%s%s", root.code, root.stdout, root.stderr)
	}
	list, _, _ = strings.Cut(list, "\n\n")
	if strings.Count(list, "\n") < 5 {
		t.Errorf("few commands: %s", list)
	}
	for line := range strings.Lines(list) {
		name := strings.Fields(line)[0]
		for _, args := range [][]string{{name, "--help"}, {"help", name}} {
			got := finish(t, m.w4n(args...))
			if got.code != 0 || !strings.Contains(got.stdout, "Usage:") || got.stderr != "" {
				t.Errorf("%v: exit code %d\n%s%s", args, got.code, got.stdout, got.stderr)
			}
		}
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	text, err := os.ReadFile(m.conf)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, m.conf, strings.Replace(string(text), "[Peer]", "ListenPort = 51999\n[Peer]", 1))
	first := m.run("sleep", "300")
	nstest.Start(t, first)
	m.processNamed(t, "sleep 300")
	m.checkMistake(t, m.run("true"), mistake{"listen on UDP port 51999: the ListenPort is in use", "remove ListenPort from the file (only a peer that is called needs one) or end the other program…"})
	first.Process.Signal(unix.SIGTERM)
	await(t, first)
}

func TestNameInUse(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	first := m.run("--name=work", "--", "sleep", "300")
	nstest.Start(t, first)
	m.processNamed(t, "sleep 300")
	m.checkMistake(t, m.run("--name=work", "--", "true"), mistake{fmt.Sprintf("claim tunnel work: a tunnel of this name exists: process %d has it", m.processNamed(t, "wireguard4netns-supervisor")), "choose another --name, or end that tunnel"})
	first.Process.Signal(unix.SIGTERM)
	await(t, first)
}

func TestLinkExists(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	pid := m.startTarget(t)
	m.Run(t, "nsenter", "--preserve-credentials", "-U", "-n", "-t", pid, "ip", "link", "add", "wg0", "type", "veth", "peer", "name", "wg1")
	m.checkMistake(t, m.attachTo(pid), mistake{"create link wg0: a link of this name exists there", "choose another name for the link"})
}

// startTarget starts a process in namespaces of its own.
func (m *machine) startTarget(t *testing.T) (pid string) {
	t.Helper()
	cmd := m.Command("unshare", "-Urn", "sleep", "500")
	nstest.Start(t, cmd)
	m.processNamed(t, "sleep 500")
	return strconv.Itoa(cmd.Process.Pid)
}

// attachTo attaches as the one who owns the target.
func (m *machine) attachTo(target string) *exec.Cmd {
	cmd := m.Command(m.program, "attach", target, "wg0", m.conf)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR=/run/user")
	return cmd
}

func TestTargetGone(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	gone := m.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	pid := strconv.Itoa(gone.Process.Pid)
	m.checkMistake(t, m.attachTo(pid), mistake{"process " + pid + ": no such process", "is the program still running? ps tells"})
	m.checkMistake(t, m.attachTo("/proc/"+pid+"/ns/net"), mistake{"process " + pid + ": no such process", "is the program still running? ps tells"})
}

func TestTargetOfAnotherUser(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	// Root of the host is another user for the host's user.
	pid := strconv.Itoa(m.PID())
	m.checkMistake(t, m.w4n("attach", pid, "wg0", m.conf), mistake{
		"process " + pid + ": the namespace belongs to another user: open /proc/" + pid + "/ns/net: permission denied", "run this as the user who started it"})
}

func TestNoTUNDevice(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Run(t, "mount", "-t", "tmpfs", "tmpfs", "/dev/net")
	m.checkMistake(t, m.run("true"), mistake{"open /dev/net/tun: no /dev/net/tun: no such file or directory", "as root: modprobe tun;…"})
}

func TestTUNDeviceOfRoot(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Run(t, "mount", "--bind", "/etc/shadow", "/dev/net/tun")
	m.checkMistake(t, m.run("true"), mistake{"open /dev/net/tun: /dev/net/tun may not be opened: permission denied", "only its owner may open it; as root: chmod 0666 /dev/net/tun,…"})
}

func TestUserNamespaceLimit(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, limit := range []string{"max_user_namespaces", "max_net_namespaces", "max_mnt_namespaces"} {
		cmd := m.Command("unshare", "-U", "--map-root-user", "sh", "-c", `echo 0 >/proc/sys/user/$0; exec "$@"`, limit, m.program, "run", m.conf, "true")
		cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR=/run/user")
		m.checkMistake(t, cmd, mistake{
			"create namespaces: the limit of user or network namespaces is reached: fork/exec /proc/self/exe: no space left on device",
			"user." + limit + " is 0; as root: echo user." + limit + "=15000 >>…"})
	}
}

func TestWorkingDirectoryRemoved(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	dir := filepath.Join(t.TempDir(), "gone")
	cmd := m.UserCommand("sh", "-c", `mkdir "$0" && cd "$0" && rmdir "$0" && exec "$@"`, dir, m.program, "run", m.conf, "true")
	m.checkMistake(t, cmd, mistake{"find working directory: getwd: no such file or directory", "it was removed: cd to another"})
}

func TestWorkingDirectoryHidden(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	const dir = "/run/user/1000/work"
	m.RunUser(t, "mkdir", dir)
	command := func(flag string) *exec.Cmd {
		return m.UserCommand("sh", "-c", "cd "+dir+` && exec "$@"`, "sh", m.program, "run", flag, m.conf, "pwd")
	}
	m.checkMistake(t, command("--verbose=false"), mistake{"change directory to " + dir + ": not there inside: no such file or directory", "cd to a directory that is not below /run, or --expose it"})
	if got := finish(t, command("--expose="+dir)); got.stdout != dir+"\n" {
		t.Errorf("with --expose: exit code %d\n%s%s", got.code, got.stdout, got.stderr)
	}
}

func TestTooManyOpenFiles(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for limit := 8; ; limit += 3 {
		limited := func() *exec.Cmd {
			return m.UserCommand("sh", "-c", `ulimit -n $0; exec "$@"`, strconv.Itoa(limit), m.program, "run", m.conf, "true")
		}
		cmd := limited()
		if cmd.Run(); exitCode(cmd.ProcessState) == 0 {
			return
		}
		got := m.mistake(t, limited())
		if !strings.HasSuffix(got.what, "too many open files") || got.hint != "raise the limit of open files: ulimit -n 64" || limit > 64 {
			t.Errorf("with %d: %q, %q", limit, got.what, got.hint)
		}
		if limit > 100 {
			return
		}
	}
}

// The state directory is on a disk with room for ever more files, until it is
// enough.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	const disk = "/run/user/1000"
	m.Run(t, "mount", "-t", "tmpfs", "-o", "nr_inodes=1,mode=1777", "tmpfs", disk)
	inodes := 1
	for ; inodes < 20; inodes++ {
		m.Run(t, "mount", "-t", "tmpfs", "-o", fmt.Sprintf("remount,nr_inodes=%d", inodes), "tmpfs", disk)
		cmd := m.run("true")
		if cmd.Run(); exitCode(cmd.ProcessState) == 0 {
			break
		}
		got := m.mistake(t, m.run("true"))
		if !strings.HasSuffix(got.what, ": no space left on device") || !strings.HasPrefix(got.hint, "the disk is full: df,") {
			t.Errorf("with room for %d: %q, %q", inodes-1, got.what, got.hint)
		}
	}
	if inodes < 4 || inodes == 20 {
		t.Errorf("it works with room for %d files", inodes-1)
	}
}

func TestUnsafeStateDirectory(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	root := "/run/user/1000/wireguard4netns"
	for how, command := range map[string]string{
		"others may write": "mkdir -m 777 " + root,
		"a file":           "touch " + root,
		"a link":           "ln -s /tmp " + root,
	} {
		m.RunUser(t, "sh", "-c", command)
		got := m.mistake(t, m.run("--name=one", "--", "true"))
		want := mistake{"claim tunnel one: " + root + ": not a private directory of this user", "remove it, or set XDG_RUNTIME_DIR to a directory of yours"}
		if got != want {
			t.Errorf("%s: %q, %q", how, got.what, got.hint)
		}
		m.RunUser(t, "rm", "-rf", root)
	}
}

func TestNoNameServer(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.PrivateEtc(t)
	m.WriteFile(t, "/etc/nsswitch.conf", "hosts: files dns\n")
	m.WriteFile(t, "/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
	text, err := os.ReadFile(m.conf)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, m.conf, strings.Replace(string(text), "127.0.0.1:51820", "vpn.example.com:51820", 1))
	got := m.mistake(t, m.run("true"))
	if !strings.HasPrefix(got.what, "resolve endpoint vpn.example.com:51820: endpoint does not resolve: ") ||
		got.hint != "is the name right, and is the host's own network up? getent hosts NAME tells" {
		t.Errorf("%q, %q", got.what, got.hint)
	}
}
