package inside

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The tests stand on three floors, each in namespaces of its own:
//
//	host     a made-up host: the test's body runs here, free to change its /etc,
//	         /run and daemons; first floor over the real machine
//	inside   the role under test, started as the supervisor does it
//	app      a command in one more user and mount namespace, as the app is
const hostEnv = "W4N_TEST_HOST"

// setUpEnv is a shell's command for the role's namespaces before it begins: no
// other program has capabilities there.
const setUpEnv = "W4N_TEST_SETUP"

func TestMain(m *testing.M) {
	if os.Args[0] == Argv0 {
		if script := os.Getenv(setUpEnv); script != "" {
			if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n%s", script, err, out)
				os.Exit(1)
			}
		}
		os.Exit(Main(os.NewFile(ConnFD, "conn")))
	}
	os.Exit(m.Run())
}

// asHost runs the calling test's body in a new process in user, network and
// mount namespaces of its own; id is the user there, with all capabilities.
func asHost(t *testing.T, id int, body func(t *testing.T)) {
	t.Helper()
	if os.Getenv(hostEnv) == t.Name() { // which a subtest's parent is not
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		body(t)
		return
	}
	t.Parallel()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v")
	cmd.Env = append(os.Environ(), hostEnv+"="+t.Name())
	cmd.SysProcAttr = newNamespaces(id)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS")) {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// newNamespaces maps the caller to id in a new user namespace, as the
// supervisor does, and keeps its capabilities there over exec.
func newNamespaces(id int) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: id, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: id, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   unix.SIGKILL,
	}
	for c := range unix.CAP_LAST_CAP + 1 {
		attr.AmbientCaps = append(attr.AmbientCaps, uintptr(c))
	}
	return attr
}

// An inner is what the supervisor has when the role has done its work:
// namespaces held by descriptors, and no process in them.
type inner struct {
	notes          []string
	user, net, mnt *os.File
	layer          *os.File // nil: none
}

// startInside runs the role with cfg, to its exit.
func startInside(t *testing.T, cfg Config) inner {
	t.Helper()
	in, err := tryInside(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func tryInside(t *testing.T, cfg Config) (inner, error) {
	t.Helper()
	conn, process := spawn(t)
	layer, notes, err := Ask(conn, cfg)
	in := inner{notes: notes}
	if layer >= 0 {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/fd/%d", process.Pid, layer), unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		in.layer = os.NewFile(uintptr(fd), "layer")
	}
	for name, file := range map[string]**os.File{"user": &in.user, "net": &in.net, "mnt": &in.mnt} {
		var errOpen error
		if *file, errOpen = os.Open(fmt.Sprintf("/proc/%d/ns/%s", process.Pid, name)); errOpen != nil {
			t.Fatal(errOpen)
		}
	}
	_ = conn.Close()
	state, errWait := process.Wait()
	if errWait != nil || state.ExitCode() != 0 {
		t.Errorf("role ended with %v, %v", state, errWait)
	}
	return in, err
}

// spawn starts the role and returns the supervisor's end of its socket.
func spawn(t *testing.T) (net.Conn, *os.Process) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	process, err := os.StartProcess("/proc/self/exe", []string{Argv0}, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, theirs},
		Sys:   newNamespaces(os.Getuid()),
	})
	if err != nil {
		t.Fatal(err)
	}
	return conn, process
}

// app runs a command as the app is run and returns what it wrote, together,
// and its exit code.
func (in inner) app(t *testing.T, command ...string) (string, int) {
	t.Helper()
	return in.appAs(t, fmt.Sprintf("--map-user=%d --map-group=%d", os.Getuid(), os.Getgid()), command...)
}

// nsenter joins the namespaces; without their root user the kernel drops the
// capabilities at exec.
func (in inner) nsenter(command ...string) *exec.Cmd {
	// Descriptors 3 to 5, in the order of ExtraFiles.
	cmd := exec.Command("nsenter", append([]string{"--user=/proc/self/fd/3", "--net=/proc/self/fd/4", "--mount=/proc/self/fd/5",
		"--preserve-credentials"}, command...)...)
	cmd.ExtraFiles = []*os.File{in.user, in.net, in.mnt}
	return cmd
}

// appAs is app with options of unshare(1) for the user namespace.
func (in inner) appAs(t *testing.T, options string, command ...string) (string, int) {
	t.Helper()
	argv := append([]string{"unshare", "--user", "--mount", "--propagation=unchanged"}, strings.Fields(options)...)
	cmd := in.nsenter(append(argv, command...)...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out)), cmd.ProcessState.ExitCode()
}

// sh is app with a shell's command, which must succeed.
func (in inner) sh(t *testing.T, script string) string {
	t.Helper()
	out, code := in.app(t, "sh", "-c", script)
	if code != 0 {
		t.Fatalf("app: %s: exit code %d\n%s", script, code, out)
	}
	return out
}

// fakeDir puts a tmpfs over dir of the made-up host, with a copy of what was
// there if copied.
func fakeDir(t *testing.T, dir string, copied bool) {
	t.Helper()
	script := "mount -t tmpfs fake " + dir
	if copied {
		// What this user may not read is not in the copy.
		script = "mount -t tmpfs fake /mnt && { cp -a " + dir + "/. /mnt/ 2>/dev/null; mount -n --move /mnt " + dir + "; }"
	}
	host(t, script)
}

// host runs a shell's command in the made-up host.
func host(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("host: %s: %v\n%s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
