package nstest_test

import (
	"errors"
	"fmt"
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

func TestMain(m *testing.M) { nstest.Main(m) }

type credentials struct {
	UID  int
	Caps string
}

var whoami = nstest.NewFunc("whoami", func(struct{}) (credentials, error) {
	status, err := os.ReadFile("/proc/self/status")
	_, caps, _ := strings.Cut(string(status), "CapEff:\t")
	caps, _, _ = strings.Cut(caps, "\n")
	return credentials{os.Getuid(), caps}, err
})

var sethostname = nstest.NewFunc("sethostname", func(name string) (struct{}, error) {
	return struct{}{}, os.NewSyscallError("sethostname", syscall.Sethostname([]byte(name)))
})

func TestHostRootAndUser(t *testing.T) {
	t.Parallel()
	h := nstest.NewHost(t)
	root, err := whoami.Call(h.Command, struct{}{})
	if err != nil || root.UID != 0 || root.Caps == "0000000000000000" {
		t.Errorf("Command runs as %+v, %v", root, err)
	}
	user, err := whoami.Call(h.UserCommand, struct{}{})
	if err != nil || user != (credentials{nstest.User, "0000000000000000"}) {
		t.Errorf("UserCommand runs as %+v, %v", user, err)
	}
	if err := h.UserCommand("ip", "link", "set", "lo", "down").Run(); err == nil {
		t.Error("the ordinary user may change a link of the host")
	}
}

func TestFuncErrorKeepsErrno(t *testing.T) {
	t.Parallel()
	h := nstest.NewHost(t)
	if _, err := sethostname.Call(h.UserCommand, "x"); !errors.Is(err, syscall.EPERM) {
		t.Errorf("sethostname: %v, want EPERM", err)
	}
}

func TestHostFiles(t *testing.T) {
	t.Parallel()
	h := nstest.NewHost(t)
	h.PrivateEtc(t)
	h.WriteFile(t, "/etc/resolv.conf", "nameserver 192.0.2.53\n")
	if got := h.RunUser(t, "cat", "/etc/resolv.conf"); got != "nameserver 192.0.2.53\n" {
		t.Errorf("resolv.conf in the host: %q", got)
	}
	if seen, err := os.ReadFile(h.Path("/etc/resolv.conf")); err != nil || string(seen) != "nameserver 192.0.2.53\n" {
		t.Errorf("resolv.conf by Path: %q, %v", seen, err)
	}
	if _, err := os.Stat(h.Path("/run/user/1000")); err != nil {
		t.Error(err)
	}
}

func TestConnect(t *testing.T) {
	t.Parallel()
	a, b := nstest.NewHost(t), nstest.NewHost(t)
	nstest.Connect(t,
		nstest.End{Host: a, Name: "eth0", Addrs: prefixes("192.0.2.1/24", "2001:db8::1/64")},
		nstest.End{Host: b, Name: "up0", Addrs: prefixes("192.0.2.2/24", "2001:db8::2/64")})
	a.Run(t, "ping", "-c1", "-W2", "192.0.2.2")
	b.Run(t, "ping", "-c1", "-W2", "2001:db8::1")
}

// The device is the Host's, and what is written to it from outside arrives there.
func TestTUNOfHost(t *testing.T) {
	t.Parallel()
	h := nstest.NewHost(t)
	tap, rtnetlink := h.OpenTUN(t, "tap7", unix.IFF_TAP|unix.IFF_NO_PI)
	h.Run(t, "ip", "link", "set", "tap7", "up")
	if _, err := tap.Write(make([]byte, 60)); err != nil {
		t.Error(err)
	}
	_, counts, _ := strings.Cut(h.Run(t, "cat", "/proc/net/dev"), "tap7:")
	if f := strings.Fields(counts); len(f) < 2 || f[0] != "60" || f[1] != "1" {
		t.Errorf("bytes and packets received, and more: %q", f)
	}
	if _, err := net.InterfaceByName("tap7"); err == nil {
		t.Error("the device is on the real machine")
	}
	name, err := unix.Getsockname(int(rtnetlink.Fd()))
	if _, ok := name.(*unix.SockaddrNetlink); !ok {
		t.Errorf("rtnetlink: %T, %v", name, err)
	}
}

// A port that is taken is not given.
func TestFreePort(t *testing.T) {
	t.Parallel()
	port := nstest.FreePort(t)
	c, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port) + 1}); err == nil { // else it is taken, too
		defer c.Close()
	}
	if next := nstest.FreePort(t); next == port || next == port+1 {
		t.Errorf("port %d was given, which is taken", next)
	}
}

func TestProcessesOfHost(t *testing.T) {
	t.Parallel()
	h := nstest.NewHost(t)
	// A program that its user may not read is not dumpable, as a sandboxed
	// engine: /proc hides its namespaces from its own user: ptrace(2).
	program := filepath.Join(t.TempDir(), "hidden")
	copyFile(t, "/bin/sleep", program, 0o111)
	// One more userns and netns deep, as the tool under test puts it.
	inside := h.UserCommand("unshare", "--user", "--net", program, "1000")
	nstest.Start(t, inside)
	nstest.Start(t, exec.Command("sleep", "1000"))
	nstest.Eventually(t, 15*time.Second, func() error {
		list := h.Processes()
		if len(list) != 1 || list[0].PID != inside.Process.Pid || list[0].Command != program+" 1000" {
			return fmt.Errorf("processes in the host: %v", list)
		}
		return nil
	})
}

// A test process that is killed cannot clean up: what it started must end.
func TestKilledTestLeavesNothing(t *testing.T) {
	const env = "W4N_TEST_PIDS"
	if path := os.Getenv(env); path != "" {
		h := nstest.NewHost(t)
		cmd := h.UserCommand("sleep", "1000")
		nstest.Start(t, cmd)
		pids := fmt.Sprint(h.PID(), " ", cmd.Process.Pid)
		if err := os.WriteFile(path+"~", []byte(pids), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+"~", path); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pids")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), env+"="+path)
	nstest.Start(t, cmd)
	var host, started int
	nstest.Eventually(t, 10*time.Second, func() error {
		text, err := os.ReadFile(path)
		if err == nil {
			_, err = fmt.Sscan(string(text), &host, &started)
		}
		return err
	})
	cmd.Process.Kill()
	nstest.Eventually(t, 10*time.Second, func() error {
		for _, pid := range []int{host, started} {
			if syscall.Kill(pid, 0) == nil {
				return fmt.Errorf("process %d is left", pid)
			}
		}
		return nil
	})
}

func copyFile(t *testing.T, from, to string, mode os.FileMode) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, content, mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}
