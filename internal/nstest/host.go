package nstest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// User is the uid and gid that UserCommand has inside a Host.
const User = 1000

// Host is a machine made by a test: a userns, netns and mntns with lo up and
// an empty /run of its own (with /run/wireguard and /run/user/1000). The rest
// of the file system is the real one.
type Host struct {
	holder *holder
}

// hostSetup runs as root of the new Host and holds it open until it reads a
// line. If its input ends before, the test process was killed: then it kills
// what was started in the Host's netns, which nobody else would.
const hostSetup = `set -e
mount -t tmpfs -o mode=755 run /run
mkdir /run/wireguard /run/user
mkdir -m 700 /run/user/1000
ip link set lo up
echo ready
read -r _ && exit
netns=$(readlink /proc/$$/ns/net)
for dir in /proc/[0-9]*; do
	pid=${dir#/proc/}
	if [ $pid != $$ ] && [ "$(readlink $dir/ns/net)" = "$netns" ]; then
		kill -9 $pid
	fi
done`

// NewHost makes a machine. At the end of the test it fails the test if a
// process is left in it, and removes it.
func NewHost(t testing.TB) *Host {
	t.Helper()
	mustBeTest()
	labPID, err := lab()
	if err != nil {
		t.Fatal(err)
	}
	h, err := hold(exec.Command("nsenter", "--preserve-credentials", "--user", "--target", strconv.Itoa(labPID), "--",
		"unshare", "--user", "--map-root-user", "--net", "--mount", "--propagation", "private", "--",
		"sh", "-c", hostSetup))
	if err != nil {
		t.Fatalf("make host: %v", err)
	}
	host := &Host{holder: h}
	t.Cleanup(func() { host.close(t) })
	return host
}

// PID is a process inside the Host that lives as long as it does. Its
// /proc/PID/ns files name the Host's namespaces.
func (h *Host) PID() int { return h.holder.pid() }

// Path is where the real machine sees a path of the Host.
func (h *Host) Path(path string) string {
	return filepath.Join("/proc", strconv.Itoa(h.PID()), "root", path)
}

// Command is exec.Command as root of the Host, in the test's working
// directory. (exec.Cmd.Dir has no effect: see CommandIn.)
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	return h.CommandIn(workingDir(), name, args...)
}

// CommandIn is Command with another working directory.
func (h *Host) CommandIn(dir, name string, args ...string) *exec.Cmd {
	enter := []string{"--preserve-credentials", "--user", "--net", "--mount",
		"--target", strconv.Itoa(h.PID()), "--wdns=" + dir, "--", name}
	return exec.Command("nsenter", append(enter, args...)...)
}

// UserCommand is exec.Command as an ordinary user of the Host: uid and gid
// 1000 in a userns nested in the Host's, without any capability over it.
// XDG_RUNTIME_DIR is /run/user/1000. The environment is otherwise the test's.
func (h *Host) UserCommand(name string, args ...string) *exec.Cmd {
	return h.UserCommandIn(workingDir(), name, args...)
}

// UserCommandIn is UserCommand with another working directory.
func (h *Host) UserCommandIn(dir, name string, args ...string) *exec.Cmd {
	uid := strconv.Itoa(User)
	nest := []string{"--user", "--map-user=" + uid, "--map-group=" + uid, "--", name}
	cmd := h.CommandIn(dir, "unshare", append(nest, args...)...)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR=/run/user/"+uid)
	return cmd
}

// Run runs a command as root of the Host and returns what it printed on
// standard output. It fails the test if the command fails.
func (h *Host) Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	return output(t, h.Command(name, args...))
}

// RunUser is Run as the Host's ordinary user.
func (h *Host) RunUser(t testing.TB, name string, args ...string) string {
	t.Helper()
	return output(t, h.UserCommand(name, args...))
}

// PrivateEtc gives the Host a copy of /etc, in which it may write. The copy
// is a file system of its own, so files can be renamed over, as a host's
// network manager does.
func (h *Host) PrivateEtc(t testing.TB) {
	t.Helper()
	// cp cannot read /etc/shadow and its like: that is not an error here.
	h.Run(t, "sh", "-c", `mount -t tmpfs -o mode=755 etc /mnt
cp -r --preserve=mode,links /etc/. /mnt/ 2>/dev/null
mount --move /mnt /etc`)
}

// WriteFile writes a file as root of the Host, in the Host's mntns.
func (h *Host) WriteFile(t testing.TB, path, content string) {
	t.Helper()
	cmd := h.Command("tee", path)
	cmd.Stdin = strings.NewReader(content)
	output(t, cmd)
}

func (h *Host) close(t testing.TB) {
	t.Helper()
	poll(15*time.Second, func() error {
		if left := h.Processes(); len(left) > 0 {
			return fmt.Errorf("processes left: %v", left)
		}
		return nil
	})
	for _, p := range h.Processes() {
		t.Errorf("process left in host: %v", p)
		p.kill()
	}
	h.holder.close()
}

// lab is the userns in which all Hosts of this test process are made, so that
// one process has capabilities over two of them and can join them by a veth.
var lab = sync.OnceValues(func() (pid int, err error) {
	h, err := hold(exec.Command("unshare", "--user", "--map-root-user", "--", "sh", "-c", "echo ready; read -r _"))
	if err != nil {
		return 0, fmt.Errorf("make lab: %w", err)
	}
	processUndo = append(processUndo, h.close)
	return h.pid(), nil
})

// holder is a process that keeps namespaces open until it reads a line or its
// input ends.
type holder struct {
	cmd   *exec.Cmd
	input io.WriteCloser
}

// hold starts cmd and waits until it has printed a line.
func hold(cmd *exec.Cmd) (*holder, error) {
	var stderr strings.Builder
	cmd.Stderr = &stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	h := &holder{cmd: cmd, input: input}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		h.close()
		return nil, fmt.Errorf("%s: %w: %s", cmd.Args[0], err, strings.TrimSpace(stderr.String()))
	}
	return h, nil
}

func (h *holder) pid() int { return h.cmd.Process.Pid }

func (h *holder) close() {
	io.WriteString(h.input, "end\n")
	h.input.Close()
	h.cmd.Wait()
}

func workingDir() string {
	dir, err := os.Getwd()
	if err != nil {
		return "/"
	}
	return dir
}

func output(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, out, stderr.String())
	}
	return string(out)
}
