package nstest_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

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

func TestProcessesOfHost(t *testing.T) {
	t.Parallel()
	h := nstest.NewHost(t)
	// One more userns and netns deep, as the tool under test puts them.
	cmd := h.UserCommand("unshare", "--user", "--net", "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	other := exec.Command("sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, c := range []*exec.Cmd{cmd, other} {
			c.Process.Kill()
			c.Wait()
		}
	}()
	nstest.Eventually(t, 5*time.Second, func() error {
		list := h.Processes()
		if len(list) != 1 || list[0].PID != cmd.Process.Pid || !strings.HasPrefix(list[0].Command, "sleep") {
			return fmt.Errorf("processes in the host: %v", list)
		}
		return nil
	})
}

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}
