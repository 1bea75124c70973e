package e2e_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"wireguard4netns/internal/nstest"
)

// goneWithin is how long a tunnel may outlive what it served.
const goneWithin = 15 * time.Second

// makers are programs that make a namespace for an ordinary user. Each command
// prints the PID of a process in it, which sleeps.
var makers = map[string][]string{
	"unshare":    {"unshare", "-Urn", "--", "sh", "-c", "echo $$; exec sleep 1000"},
	"bubblewrap": {"bwrap", "--unshare-user", "--unshare-net", "--dev-bind", "/", "/", "--", "sh", "-c", "echo $$; exec sleep 1000"},
}

// makeTarget makes a namespace and returns a process in it and how to end that.
func (w *world) makeTarget(t testing.TB, maker string) (pid int, end func()) {
	t.Helper()
	args := makers[maker]
	pid = hold(t, w.user.command(args[0], args[1:]...))
	return pid, func() { syscall.Kill(pid, syscall.SIGKILL) }
}

// attach starts `attach` in the foreground and returns when it says that it is
// ready.
func (w *world) attach(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	return startReady(t, func(flag string) *exec.Cmd {
		return w.tool(append([]string{"attach", flag}, args...)...)
	})
}

// startReady starts a command with --ready-fd as descriptor 3 and returns when
// it was told "1" there.
func startReady(t testing.TB, command func(flag string) *exec.Cmd, more ...*os.File) *exec.Cmd {
	t.Helper()
	ready, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	cmd := command("--ready-fd=3")
	cmd.ExtraFiles = append([]*os.File{theirs}, more...)
	nstest.Start(t, cmd)
	theirs.Close()
	ready.SetReadDeadline(time.Now().Add(20 * time.Second))
	if said, err := io.ReadAll(ready); err != nil || string(said) != "1" {
		t.Fatalf("%s: on --ready-fd came %q, %v", strings.Join(cmd.Args, " "), said, err)
	}
	return cmd
}

// TestAttachConfigured gives namespaces that real programs made a network.
func TestAttachConfigured(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for maker := range makers {
		t.Run(maker, func(t *testing.T) {
			before := w.snapshot(t)
			pid, end := w.makeTarget(t, maker)
			cmd := w.attach(t, "-c", strconv.Itoa(pid), "wg0", w.account(t))
			contains(t, succeed(t, enter(pid, "ip", "addr")), "lo: <LOOPBACK,UP", "wg0: <POINTOPOINT,MULTICAST,NOARP,UP", "mtu 1440", "inet 10.77.", "inet6 fd77::")
			lacks(t, succeed(t, enter(pid, "ip", "addr", "show", "wg0")), "tentative", "fe80:")
			contains(t, succeed(t, enter(pid, "ip", "route")), "default dev wg0")
			contains(t, succeed(t, enter(pid, "ip", "-6", "route")), "default dev wg0")
			checkTraffic(t, entering(pid), w.peer)
			end()
			if code := exitCode(t, cmd, goneWithin); code != 0 {
				t.Errorf("exit code %d after the namespace went", code)
			}
			before.Check(t)
		})
	}
}

// TestAttachPlain: without -c addresses, routes and the link's state are the
// caller's.
func TestAttachPlain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.snapshot(t)
	pid, end := w.makeTarget(t, "unshare")
	account := w.peer.NewAccount(t, internet4, nstest.AccountOptions{})
	cmd := w.attach(t, strconv.Itoa(pid), "wg0", account.WriteConf(t, "MTU = 1333"))
	untouched(t, pid)
	contains(t, succeed(t, enter(pid, "ip", "link", "show", "wg0")), "mtu 1333")

	// The tunnel runs: it is enough to set the link up.
	succeed(t, enter(pid, "sh", "-ec", "ip addr add "+account.Addr4.String()+" dev wg0; ip link set wg0 up; ip route add default dev wg0"))
	succeed(t, enter(pid, "ping", "-c1", "-w15", w.peer.Addr4.String()))

	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, cmd, goneWithin); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
	lacks(t, succeed(t, enter(pid, "ip", "link")), "wg0")
	end()
	before.Check(t)
}

// untouched fails the test unless the link wg0 is as it was made.
func untouched(t testing.TB, pid int) {
	t.Helper()
	links := succeed(t, enter(pid, "ip", "addr"))
	contains(t, links, "wg0: <POINTOPOINT,MULTICAST,NOARP> ", "lo: <LOOPBACK> ")
	lacks(t, links, "inet")
	if routes := succeed(t, enter(pid, "ip", "route", "show", "table", "all")); routes != "" {
		t.Errorf("routes:\n%s", routes)
	}
}

// TestAttachOutlivesFirstProcess: the tunnel serves the netns, not the process
// that named it.
func TestAttachOutlivesFirstProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.snapshot(t)
	pid, end := w.makeTarget(t, "unshare")
	other := hold(t, enter(pid, "sh", "-c", "echo $$; exec sleep 1000"))
	cmd := w.attach(t, "-c", "/proc/"+strconv.Itoa(pid)+"/ns/net", "wg0", w.account(t))
	end()
	nstest.Eventually(t, goneWithin, func() error { return expectGone(pid) })
	checkTraffic(t, entering(other), w.peer)
	syscall.Kill(other, syscall.SIGKILL)
	if code := exitCode(t, cmd, goneWithin); code != 0 {
		t.Errorf("exit code %d", code)
	}
	before.Check(t)
}

func expectGone(pid int) error {
	if _, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/ns/net"); err == nil {
		return &os.PathError{Op: "wait for end of process", Path: strconv.Itoa(pid), Err: os.ErrExist}
	}
	return nil
}

// TestAttachExitFD: the end of file, or a byte, on --exit-fd ends the tunnel.
func TestAttachExitFD(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, tell := range map[string]func(*os.File) error{
		"eof":  (*os.File).Close,
		"byte": func(f *os.File) error { _, err := f.WriteString("x"); return err },
	} {
		t.Run(name, func(t *testing.T) {
			before := w.snapshot(t)
			pid, end := w.makeTarget(t, "unshare")
			exit, ours, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer ours.Close()
			conf := w.account(t)
			cmd := startReady(t, func(flag string) *exec.Cmd {
				return w.tool("attach", flag, "--exit-fd=4", "-c", strconv.Itoa(pid), "wg0", conf)
			}, exit)
			exit.Close()
			succeed(t, enter(pid, "ping", "-c1", "-w15", w.peer.Addr4.String()))
			if err := tell(ours); err != nil {
				t.Fatal(err)
			}
			if code := exitCode(t, cmd, goneWithin); code != 0 {
				t.Errorf("exit code %d", code)
			}
			lacks(t, succeed(t, enter(pid, "ip", "link")), "wg0")
			end()
			before.Check(t)
		})
	}
}

// TestAttachDescriptor: a namespace that only a descriptor names is served
// until somebody says that it is enough, with or without a process in it.
func TestAttachDescriptor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.snapshot(t)
	pid, end := w.makeTarget(t, "unshare")
	netns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer netns.Close()
	exit, ours, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	account := w.peer.NewAccount(t, internet4, nstest.AccountOptions{})
	cmd := startReady(t, func(flag string) *exec.Cmd {
		return w.tool("attach", flag, "--exit-fd=4", "--configure", "fd:5", "wg0", account.WriteConf(t))
	}, exit, netns)
	exit.Close()
	checkTraffic(t, entering(pid), w.peer)
	end()
	nstest.Eventually(t, goneWithin, func() error { return expectGone(pid) })
	// The peer still has somebody at the other end.
	w.peer.Run(t, "ping -c1 -w15 "+account.Addr4.String())
	ours.Close()
	if code := exitCode(t, cmd, goneWithin); code != 0 {
		t.Errorf("exit code %d", code)
	}
	netns.Close()
	before.Check(t)
}

// TestAttachPath: a netns that a mount keeps, without a process, is served
// until it is unmounted.
func TestAttachPath(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Run("ip netns add", func(t *testing.T) {
		before := w.snapshot(t)
		w.machine.Run(t, "ip", "netns", "add", "blue")
		conf := w.account(t)
		cmd := startReady(t, func(flag string) *exec.Cmd {
			return w.machine.Command(w.program, "attach", flag, "-c", "/run/netns/blue", "wg0", conf)
		})
		checkTraffic(t, func(name string, args ...string) *exec.Cmd {
			return w.machine.Command("ip", append([]string{"netns", "exec", "blue", name}, args...)...)
		}, w.peer)
		w.machine.Run(t, "ip", "netns", "delete", "blue")
		if code := exitCode(t, cmd, goneWithin); code != 0 {
			t.Errorf("exit code %d", code)
		}
		w.machine.Run(t, "sh", "-c", "umount /run/netns && rmdir /run/netns")
		before.Check(t)
	})
	t.Run("a user's own", func(t *testing.T) {
		before := w.snapshot(t)
		dir := t.TempDir()
		// A userns and mntns to make mounts in; in it, a netns of a further userns.
		owner := hold(t, w.user.command("unshare", "-Urm", "--", "sh", "-ec", `cd "$1"
touch net user
mkfifo made
unshare -Urn sh -c 'echo; exec sleep 1000' >made &
read _ <made
mount --bind /proc/$!/ns/net net
mount --bind /proc/$!/ns/user user
kill $!
wait || true
echo $$
exec sleep 1000`, "sh", dir))
		inMounts := func(name string, args ...string) *exec.Cmd {
			return w.user.command("nsenter", append([]string{"--preserve-credentials", "--user", "--mount", "--target", strconv.Itoa(owner), "--", name}, args...)...)
		}
		conf := w.account(t)
		cmd := startReady(t, func(flag string) *exec.Cmd {
			return inMounts(w.program, "attach", flag, "-c", "--userns-path", filepath.Join(dir, "user"), filepath.Join(dir, "net"), "wg0", conf)
		})
		checkTraffic(t, func(name string, args ...string) *exec.Cmd {
			return inMounts("nsenter", append([]string{"--user=" + filepath.Join(dir, "user"), "--net=" + filepath.Join(dir, "net"), "--preserve-credentials", "--", name}, args...)...)
		}, w.peer)
		succeed(t, inMounts("umount", filepath.Join(dir, "net")))
		if code := exitCode(t, cmd, goneWithin); code != 0 {
			t.Errorf("exit code %d", code)
		}
		syscall.Kill(owner, syscall.SIGKILL)
		before.Check(t)
	})
}

// TestAttachDetached: --detach returns when the tunnel stands and leaves it
// standing, until the namespace goes.
func TestAttachDetached(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.snapshot(t)
	pid, end := w.makeTarget(t, "unshare")
	succeed(t, w.tool("attach", "-c", "--detach", strconv.Itoa(pid), "wg0", w.account(t)))
	checkTraffic(t, entering(pid), w.peer)
	end()
	before.Check(t)
}

// TestAttachOtherNetwork: a namespace that has a network already uses the tunnel
// as long as that is there, and then what it had before.
func TestAttachOtherNetwork(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pid, end := w.makeTarget(t, "unshare")
	succeed(t, enter(pid, "sh", "-ec", `ip link add eth0 type veth peer name far0
ip link set far0 up
ip link set eth0 up
ip addr add 203.0.113.2/24 dev eth0
ip addr add 2001:db8:9::2/64 dev eth0 nodad
ip route add default via 203.0.113.1
ip route add default via 2001:db8:9::1`))
	before := succeed(t, enter(pid, "sh", "-c", "ip route; ip -6 route show default"))
	cmd := w.attach(t, "-c", strconv.Itoa(pid), "wg0", w.account(t))
	checkTraffic(t, entering(pid), w.peer)
	for _, far := range []string{"198.51.100.1", "2001:db8:ffff::1"} {
		contains(t, succeed(t, enter(pid, "ip", "route", "get", far)), " dev wg0 ")
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	exitCode(t, cmd, goneWithin)
	if after := succeed(t, enter(pid, "sh", "-c", "ip route; ip -6 route show default")); after != before {
		t.Errorf("routes before:\n%s\nafter:\n%s", before, after)
	}
	end()
}

// TestAttachKilled: whichever process of a tunnel is killed, the link goes and
// nothing is left behind.
func TestAttachKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, role := range []string{"wireguard4netns-wait", "wireguard4netns-supervisor"} {
		t.Run(role, func(t *testing.T) {
			dir := t.TempDir()
			before := w.snapshot(t, dir)
			pid, end := w.makeTarget(t, "unshare")
			cmd := w.attach(t, "-c", "--tmpdir="+dir, strconv.Itoa(pid), "wg0", w.account(t))
			syscall.Kill(w.process(t, w.machine, role), syscall.SIGKILL)
			if code := exitCode(t, cmd, goneWithin); code == 0 {
				t.Error("exit code 0")
			}
			nstest.Eventually(t, goneWithin, func() error {
				links := succeed(t, enter(pid, "ip", "link"))
				if strings.Contains(links, "wg0") {
					return errors.New(links)
				}
				return nil
			})
			end()
			before.Check(t)
		})
	}
}

// TestOriginal: the command line of the Python program of this name.
func TestOriginal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, flags := range map[string]func(dir string) []string{
		"--tmpdir":          func(dir string) []string { return []string{"--tmpdir", dir} },
		"current directory": func(string) []string { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			before := w.snapshot(t, dir)
			pid, end := w.makeTarget(t, "unshare")
			conf := w.account(t)
			succeed(t, w.user.commandIn(dir, w.program, append(flags(dir), strconv.Itoa(pid), "interface0", conf)...))
			links := succeed(t, enter(pid, "ip", "addr"))
			contains(t, links, "interface0: <POINTOPOINT,MULTICAST,NOARP> ", "lo: <LOOPBACK> ")
			lacks(t, links, "inet")
			socket := filepath.Join(dir, "interface0.sock")
			if info, err := os.Stat(socket); err != nil || info.Mode().Type() != os.ModeSocket || info.Mode().Perm()&0o077 != 0 {
				t.Fatalf("UAPI socket: %v, %v", info, err)
			}
			contains(t, uapiGet(t, socket), "endpoint=192.0.2.1:51820", "errno=0")
			end()
			before.Check(t)
		})
	}
}

func uapiGet(t testing.TB, socket string) string {
	t.Helper()
	conn := dialUnix(t, socket)
	defer conn.Close()
	if _, err := io.WriteString(conn, "get=1\n\n"); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	var text strings.Builder
	for buf := make([]byte, 4096); !strings.HasSuffix(text.String(), "\n\n"); {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("read from %s: %v after %q", socket, err, text.String())
		}
		text.Write(buf[:n])
	}
	return text.String()
}
