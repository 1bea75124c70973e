package demo

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"wireguard4netns/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// Every step of the demo, in its order.
var everyStep = []string{"link", "routes", "DNS", "page", "host", "rights", "peer", "host", "undone"}

var stepLine = regexp.MustCompile(`(?m)^  (ok|FAIL) +(\S+) +(.*)$`)

// steps returns the names of the steps in a demo's output that ended with verdict.
func steps(output, verdict string) (names []string) {
	for _, m := range stepLine.FindAllStringSubmatch(output, -1) {
		if m[1] == verdict {
			names = append(names, m[2])
		}
	}
	return names
}

func TestDemo(t *testing.T) {
	t.Parallel()
	h := nstest.NewHost(t)
	before := nstest.TakeSnapshot(t, h, "/run")
	out := h.RunUser(t, nstest.Build(t), "demo")
	if got := steps(out, "ok"); !slices.Equal(got, everyStep) || !strings.HasSuffix(out, "\nEvery line was seen to be true.\n") {
		t.Errorf("steps %v, want %v:\n%s", got, everyStep, out)
	}
	before.Check(t)
}

func TestDemoAsRoot(t *testing.T) {
	t.Parallel()
	h := nstest.NewHost(t)
	out := h.Run(t, nstest.Build(t), "demo")
	if got := steps(out, "ok"); !slices.Equal(got, everyStep) {
		t.Errorf("steps %v, want %v:\n%s", got, everyStep, out)
	}
}

func TestDemoCommand(t *testing.T) {
	t.Parallel()
	h := nstest.NewHost(t)
	before := nstest.TakeSnapshot(t, h, "/run")
	out, err := h.UserCommand(nstest.Build(t), "demo", "--", "sh", "-c", "busybox wget -qO- http://192.0.2.1:8080/; exit 7").Output()
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("the exit code is not the command's: %v", err)
	}
	if !strings.Contains(string(out), greeting("192.0.2.2")) {
		t.Errorf("the command printed %q", out)
	}
	before.Check(t)
}

// Ended at any moment, the demo takes all with it.
func TestDemoEnded(t *testing.T) {
	t.Parallel()
	for _, command := range [][]string{nil, {"--", "sh", "-c", "echo; exec sleep 1000"}} {
		for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
			for lines := range 4 {
				if command != nil && lines > 1 {
					continue
				}
				t.Run(fmt.Sprint(len(command), signal, lines), func(t *testing.T) {
					t.Parallel()
					endDemo(t, signal, lines, command)
				})
			}
		}
	}
}

// endDemo sends the signal, as a terminal does to all that is in the foreground,
// after so many lines of output.
func endDemo(t *testing.T, signal syscall.Signal, lines int, command []string) {
	h := nstest.NewHost(t)
	before := nstest.TakeSnapshot(t, h, "/run")
	cmd := h.UserCommand(nstest.Build(t), append([]string{"demo"}, command...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	nstest.Start(t, cmd)
	output := bufio.NewReader(stdout)
	for range lines {
		if _, err := output.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Kill(-cmd.Process.Pid, signal); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the exit code is 0")
	}
	before.Check(t)
}

// What the machine lacks is said once, with a hint.
func TestDemoWithoutTUN(t *testing.T) {
	t.Parallel()
	h := nstest.NewHost(t)
	h.Run(t, "mount", "-t", "tmpfs", "none", "/dev/net")
	before := nstest.TakeSnapshot(t, h, "/run")
	for _, command := range [][]string{nil, {"--", "true"}} {
		out, err := h.UserCommand(nstest.Build(t), append([]string{"demo"}, command...)...).CombinedOutput()
		if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 125 {
			t.Errorf("%v: %v", command, err)
		}
		lines := strings.SplitAfter(string(out), "\n")
		if len(lines) != 3 || !strings.Contains(lines[0], "/dev/net/tun") || !strings.HasPrefix(lines[1], "hint: as root: modprobe tun") {
			t.Errorf("%v:\n%s", command, out)
		}
	}
	before.Check(t)
}

// Each thing that a program inside is to see can be missed.
func TestLookMisses(t *testing.T) {
	t.Parallel()
	bin := nstest.Build(t)
	right := View{IfName: appLink, Addresses: []netip.Prefix{appAddr4, appAddr6}, DNS: peerAddr, Page: page, Host: netip.MustParseAddrPort("127.0.0.1:9")}
	for _, test := range []struct {
		name  string
		wrong func(*View)
		fail  []string
	}{
		{"nothing", func(v *View) {}, nil},
		{"address", func(v *View) { v.Addresses = v.Addresses[:1] }, []string{"link"}},
		{"name", func(v *View) { v.IfName = "other" }, []string{"link", "routes", "rights"}},
		{"server", func(v *View) { v.DNS = v.DNS.Next() }, []string{"DNS"}},
		{"page", func(v *View) { v.Page = netip.AddrPortFrom(peerAddr, 1) }, []string{"page"}},
		{"host", func(v *View) { v.Host = page }, []string{"host"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := nstest.NewHost(t)
			view := right
			test.wrong(&view)
			out, err := h.UserCommand(bin, "demo", "--", bin, "demo-look", view.String()).Output()
			if got := steps(string(out), "FAIL"); !slices.Equal(got, test.fail) {
				t.Errorf("failed: %v, want %v:\n%s", got, test.fail, out)
			}
			if exit := new(exec.ExitError); (err != nil) != (test.fail != nil) || err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
				t.Errorf("exit: %v", err)
			}
		})
	}
}

// What must not work is not even tried where it would.
func TestLookOnHost(t *testing.T) {
	t.Parallel()
	h := nstest.NewHost(t)
	h.Run(t, "sh", "-ec", `mount --bind /etc /etc
ip link add other type dummy 2>/dev/null || ip tuntap add other mode tun
ip link set other up
ip route add 198.51.100.0/24 dev other`)
	view := View{IfName: appLink, DNS: peerAddr, Page: page, Addresses: []netip.Prefix{appAddr4}, Host: page}
	out, _ := h.Command("setpriv", "--no-new-privs", nstest.Build(t), "demo-look", view.String()).Output()
	if got, want := steps(string(out), "FAIL"), everyStep[:6]; !slices.Equal(got, want) {
		t.Errorf("failed: %v, want %v:\n%s", got, want, out)
	}
	if !strings.Contains(string(out), "the network namespace is its own") {
		t.Errorf("rights: %s", out)
	}
	if mounts := h.Run(t, "cat", "/proc/self/mounts"); !strings.Contains(mounts, " /etc ") {
		t.Error("/etc was unmounted")
	}
}
