package run_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/nstest"
)

// newMachineWithPeer makes a machine whose configuration leads to a peer that
// answers: to ping, and "home page" to HTTP.
func newMachineWithPeer(t *testing.T) (*machine, *nstest.Peer) {
	t.Helper()
	m := newMachine(t)
	internet := nstest.NewHost(t)
	nstest.Connect(t,
		nstest.End{Host: m.Host, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")}},
		nstest.End{Host: internet, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}})
	peer := nstest.StartUpstream(t, internet)
	internet.Serve(t, nstest.Services{Page: "home page"})
	account := peer.NewAccount(t, netip.MustParseAddr("192.0.2.1"), nstest.AccountOptions{PSK: true})
	m.conf = account.WriteConf(t, "DNS = "+peer.Addr4.String())
	m.private, m.psk = account.PrivateKey, account.PresharedKey
	return m, peer
}

// obey is an app that runs what it is told on a socket and answers with the exit
// code, until it is told "end". With $LEAVE it is a daemon: a process in a session
// of its own, while the app ends with exit code 9.
func obey() {
	if os.Getenv("LEAVE") != "" {
		cmd := exec.Command(testBinary())
		cmd.Env = append(os.Environ(), "LEAVE=")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		os.Exit(9)
	}
	l, err := net.Listen("unix", os.Getenv("SOCKET"))
	if err != nil {
		panic(err)
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			panic(err)
		}
		command, err := io.ReadAll(conn)
		if err != nil || string(command) == "end" {
			return
		}
		cmd := exec.Command("sh", "-c", string(command))
		cmd.Run()
		fmt.Fprint(conn, exitCode(cmd.ProcessState))
		conn.Close()
	}
}

// obedient is the user of obey.
type obedient struct {
	t      *testing.T
	socket string
}

// leaveBehind has the program return while obey goes on in the background.
func leaveBehind(t *testing.T, m *machine) obedient {
	t.Helper()
	o := obedient{t, filepath.Join(t.TempDir(), "socket")}
	if got := finish(t, m.run("env", appEnv+"=obey", "LEAVE=yes", "SOCKET="+o.socket, testBinary())); got.code != 9 {
		t.Fatalf("exit code %d, want 9\n%s", got.code, got.stderr)
	}
	return o
}

// do has it run a command, and returns the exit code.
func (o obedient) do(command string) string {
	o.t.Helper()
	var conn net.Conn
	nstest.Eventually(o.t, deadline, func() (err error) {
		conn, err = net.Dial("unix", o.socket)
		return err
	})
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(deadline))
	_, err := io.WriteString(conn, command)
	if err == nil {
		err = conn.(*net.UnixConn).CloseWrite()
	}
	code, readErr := io.ReadAll(conn)
	if err = errors.Join(err, readErr); err != nil {
		o.t.Fatal(err)
	}
	return string(code)
}

func (o obedient) end() { o.do("end") }

// fetch is a command that succeeds if the peer's page can be read.
func fetch(addr string) string {
	return `bash -c 'exec 3<>/dev/tcp/` + addr + `/80 && printf "GET / HTTP/1.0\r\n\r\n" >&3 && grep "home page" <&3'`
}

func TestDaemonKeepsTunnel(t *testing.T) {
	t.Parallel()
	m, peer := newMachineWithPeer(t)
	before := nstest.TakeSnapshot(t, m.Host, "/run")
	left := leaveBehind(t, m)
	if code := left.do("ping -c1 -w15 " + peer.Addr4.String()); code != "0" {
		t.Errorf("ping after the start had returned: exit code %s", code)
	}
	if code := left.do(fetch(peer.Addr4.String())); code != "0" {
		t.Errorf("fetch after the start had returned: exit code %s", code)
	}
	left.end()
	before.Check(t)
}

func TestKillOnExit(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	before := nstest.TakeSnapshot(t, m.Host, "/run")
	got := finish(t, m.run("--kill-on-exit", "--", "sh", "-c", `setsid sleep 300 & nohup sleep 300 >/dev/null 2>&1 & (sleep 300 &) ; exit 4`))
	if got.code != 4 {
		t.Errorf("exit code %d, want 4", got.code)
	}
	for _, p := range m.Processes() {
		if strings.HasPrefix(p.Command, "sleep") {
			t.Errorf("left behind: %v", p)
		}
	}
	before.Check(t)
}

func TestKilledWrapperEndsApp(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	before := nstest.TakeSnapshot(t, m.Host, "/run")
	cmd := m.run("sleep", "300")
	nstest.Start(t, cmd)
	m.processNamed(t, "sleep 300")
	cmd.Process.Kill()
	await(t, cmd)
	before.Check(t)
}

// Without a supervisor there is no link, and so no network, and nothing leaks.
func TestKilledSupervisorFailsClosed(t *testing.T) {
	t.Parallel()
	m, peer := newMachineWithPeer(t)
	before := nstest.TakeSnapshot(t, m.Host, "/run")
	capture := nstest.StartCapture(t, m.Host, "eth0")
	app := obedient{t, filepath.Join(t.TempDir(), "socket")}
	cmd := m.run("env", appEnv+"=obey", "SOCKET="+app.socket, testBinary())
	var stderr strings.Builder
	cmd.Stderr = &stderr
	nstest.Start(t, cmd)
	if code := app.do("ping -c1 -w15 " + peer.Addr4.String()); code != "0" {
		t.Errorf("ping: exit code %s", code)
	}
	unix.Kill(m.processNamed(t, "wireguard4netns-supervisor"), unix.SIGKILL)
	awaitNone(t, m, "wireguard4netns-engine")
	for _, command := range []string{
		"ping -c1 -W1 " + peer.Addr4.String(), "ping -c1 -W1 192.0.2.1", "ping -c1 -W1 fd77::1",
		fetch(peer.Addr4.String()), fetch("192.0.2.1"), "bash -c 'echo >/dev/udp/192.0.2.1/53'",
	} {
		if code := app.do(command); code == "0" {
			t.Errorf("%s succeeds without a supervisor", command)
		}
	}
	for _, p := range capture.Stop(t) {
		if !p.IsWireGuard() && !p.IsNeighbour() {
			t.Errorf("left the machine: %v", p)
		}
	}
	app.end()
	if code := await(t, cmd); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(stderr.String(), "no network until another takes the tunnel over") {
		t.Errorf("it did not say that the supervisor died: %s", stderr.String())
	}
	before.Check(t)
}

// awaitNone waits until no process of the machine has a command line that
// starts with prefix.
func awaitNone(t *testing.T, m *machine, prefix string) {
	t.Helper()
	nstest.Eventually(t, deadline, func() error {
		for _, p := range m.Processes() {
			if strings.HasPrefix(p.Command, prefix) {
				return fmt.Errorf("%v is left", p)
			}
		}
		return nil
	})
}

// A state directory whose supervisor was killed after its front had ended has
// nobody to remove it but the next start.
func TestNextStartTidiesUp(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	before := nstest.TakeSnapshot(t, m.Host, "/run")
	left := leaveBehind(t, m)
	unix.Kill(m.processNamed(t, "wireguard4netns-supervisor"), unix.SIGKILL)
	left.end()
	awaitNone(t, m, "")
	if len(before.Since(t)) == 0 {
		t.Error("nothing was left: this test has lost its point")
	}
	// A process may look dead, by its first thread, and still hold its lock.
	nstest.Eventually(t, deadline, func() error {
		if got := finish(t, m.run("true")); got.code != 0 || got.stderr != "" {
			t.Errorf("next start: exit code %d\n%s", got.code, got.stderr)
		}
		if len(before.Since(t)) > 0 {
			return fmt.Errorf("left behind: %v", before.Since(t))
		}
		return nil
	})
}
