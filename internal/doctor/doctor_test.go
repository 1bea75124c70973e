package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"

	"wireguard4netns/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

type command func(name string, args ...string) *exec.Cmd

// doctor runs the program as a user has it and returns what it found.
func doctor(t *testing.T, run command, args ...string) (list []Finding, code int) {
	t.Helper()
	var reply struct {
		Version int
		OK      bool
		Checks  []Finding
	}
	out, err := run(nstest.Build(t), append([]string{"doctor", "--json"}, args...)...).Output()
	exit := new(exec.ExitError)
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if err != nil {
		code = exit.ExitCode()
	}
	if err := json.Unmarshal(out, &reply); err != nil {
		t.Fatalf("%v\n%s%s", err, out, exit.Stderr)
	}
	if reply.Version != 1 || reply.OK != (code == 0) || reply.OK != Well(reply.Checks) {
		t.Errorf("exit code %d of %s", code, out)
	}
	return reply.Checks, code
}

// find returns the findings of a check.
func find(list []Finding, check string) (found []Finding) {
	for _, f := range list {
		if f.Check == check {
			found = append(found, f)
		}
	}
	return found
}

func TestMachine(t *testing.T) {
	t.Parallel()
	h := nstest.NewHost(t)
	before := nstest.TakeSnapshot(t, h, "/run")
	list, code := doctor(t, h.UserCommand)
	if code != 0 {
		t.Errorf("exit code %d: %+v", code, list)
	}
	for i, c := range checks {
		if i >= len(list) || list[i].Check != c.name || list[i].State == Fail {
			t.Errorf("check %s: %+v", c.name, list)
		}
	}
	for _, name := range []string{"tunnel", "overlay", "sandbox", "tun-offload", "udp-offload", "clock"} {
		if f := find(list, name); len(f) != 1 || f[0].State != OK {
			t.Errorf("%s: %+v", name, f)
		}
	}
	before.Check(t)
	text := h.RunUser(t, nstest.Build(t), "doctor")
	if !strings.Contains(text, "\nok    tunnel ") {
		t.Errorf("as text:\n%s", text)
	}
}

// The machine is made wrong for real, and run gives the same advice.
func TestWrongMachine(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		wrong  string // as root of the host
		asRoot bool   // the limits are the root's there
		check  string
		state  State
		want   string // in why or do
		other  string // a check that is not tried then
	}{
		{"user limit", "echo 0 > /proc/sys/user/max_user_namespaces", true, "namespaces", Fail, "user.max_user_namespaces is 0", "tunnel"},
		{"net limit", "echo 0 > /proc/sys/user/max_net_namespaces", true, "namespaces", Fail, "user.max_net_namespaces is 0", "tun-offload"},
		{"outer limit", "echo 1 > /proc/sys/user/max_user_namespaces", false, "namespaces", Fail, "or in the container around this one", "tunnel"},
		{"no TUN", "mount -t tmpfs none /dev/net", false, "tun", Fail, "modprobe tun", "tunnel"},
		{"TUN denied", "mount --bind /etc/shadow /dev/net/tun", false, "tun", Fail, "chmod 0666 /dev/net/tun", "tunnel"},
		{"full disk", "mount -t tmpfs -o size=32k,mode=700 none /run/user/1000", false, "state-directory", Fail, "the disk is full", "tunnel"},
		{"no inodes", "mount -t tmpfs -o nr_inodes=2,mode=700 none /run/user/1000", false, "state-directory", Fail, "df -i", "tunnel"},
		{"open directory", "mkdir -m 755 /run/user/1000/wireguard4netns", false, "state-directory", Fail, "XDG_RUNTIME_DIR", "tunnel"},
		{"mount in /etc", "mount --bind /etc/hostname /etc/hosts", false, "overlay", Note, "below /etc", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := nstest.NewHost(t)
			h.Run(t, "sh", "-ec", test.wrong)
			run := h.UserCommand
			if test.asRoot {
				run = h.Command
			}
			list, _ := doctor(t, run)
			f := find(list, test.check)
			if len(f) != 1 || f[0].State != test.state || !strings.Contains(f[0].Line(), test.want) {
				t.Fatalf("%s: %+v", test.check, list)
			}
			if test.other != "" {
				if o := find(list, test.other); len(o) != 1 || o[0].Seen != "not tried" || o[0].Why != test.check+" failed" {
					t.Errorf("%s: %+v", test.other, o)
				}
			}
			// 32 KiB are enough for run to start with, and the one user namespace
			// that is allowed may not be free again yet.
			if test.state == Fail && test.name != "full disk" && test.name != "outer limit" {
				sameHint(t, run, f[0])
			}
		})
	}
}

// sameHint sees that run fails with the advice of f in its hint line.
func sameHint(t *testing.T, run command, f Finding) {
	t.Helper()
	cmd := run(nstest.Build(t), "run", writeConf(t, ""), "--", "true")
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 125 {
		t.Errorf("run: %v", err)
	}
	if !strings.HasSuffix(string(out), "\nhint: "+f.Line()+"\n") {
		t.Errorf("run says\n%sdoctor says\n%s", out, f.Advice)
	}
}

// forbidNamespaces is what a container runtime's filter does, and then the
// program.
var forbidNamespaces = nstest.NewFunc("forbid namespaces", func(args []string) (string, error) {
	filter := seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls: []seccomp.SyscallGroup{{
			Action: seccomp.ActionErrno, // EPERM
			Names:  []string{"unshare", "setns", "mount"},
			NamesWithCondtions: []seccomp.NameWithConditions{{Name: "clone", Conditions: []seccomp.Condition{
				{Argument: 0, Operation: seccomp.BitsSet, Value: unix.CLONE_NEWUSER},
			}}},
		}},
	}}
	if err := seccomp.LoadFilter(filter); err != nil {
		return "", err
	}
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		err = nil
	}
	return string(out), err
})

func TestSeccomp(t *testing.T) {
	t.Parallel()
	h := nstest.NewHost(t)
	bin := nstest.Build(t)
	for _, args := range [][]string{{bin, "doctor"}, {bin, "run", writeConf(t, ""), "--", "true"}} {
		out, err := forbidNamespaces.Call(h.UserCommand, args)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out, "a seccomp filter, as container runtimes set one, forbids them") {
			t.Errorf("%v:\n%s", args[1:], out)
		}
	}
}

const goodPeer = `[Peer]
PublicKey = taGRcnZfz7Z/fEQaR1uW4DiWbiOtxsXGbgTYwyn1xHA=
AllowedIPs = 0.0.0.0/0
`

const goodInterface = `[Interface]
PrivateKey = SEms9XlYx5W4M4Vc4dRtPIdiSj1U9ylLQS3EnXAlc3U=
`

const goodConf = goodInterface + "Address = 10.9.0.2/32\nDNS = 10.9.0.1\n" + goodPeer + "Endpoint = 127.0.0.1:51820\n"

// writeConf writes a file that only its owner may read; empty text is a good one.
func writeConf(t *testing.T, text string) string {
	t.Helper()
	if text == "" {
		text = goodConf
	}
	path := t.TempDir() + "/wg0.conf"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFile(t *testing.T) {
	t.Parallel()
	h := nstest.NewHost(t)
	list, code := doctor(t, h.UserCommand, writeConf(t, ""))
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, name := range []string{"file", "file-rights", "endpoint", "plan", "mtu"} {
		if f := find(list, name); len(f) != 1 || f[0].State != OK {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func TestWrongFile(t *testing.T) {
	t.Parallel()
	h := nstest.NewHost(t)
	program := nstest.Build(t)
	port := takePort(t)
	for _, test := range []struct {
		name, text string
		check      string
		state      State
		want       string
	}{
		{"empty", " ", "file", Fail, ""},
		{"unknown key", goodInterface + "Adress = 10.0.0.1\n" + goodPeer, "file", Fail, "Address"},
		{"short key", "[Interface]\nPrivateKey = SEms9XlYx5W4M4Vc4dRtPIdiSj1U9ylLQS3EnXAlcw==\n", "file", Fail, "32 bytes"},
		{"no peer", goodInterface + "Address = 10.9.0.2\nDNS = 10.9.0.1\n", "file", Note, ""},
		{"no address", goodInterface + goodPeer, "plan", Fail, "Address ="},
		{"name", goodConf[:len(goodConf)-len("127.0.0.1:51820\n")] + "name.invalid:1\n", "endpoint", Fail, "getent hosts"},
		{"no route", strings.Replace(goodConf, "127.0.0.1", "198.51.100.1", 1), "endpoint", Fail, "ip route get 198.51.100.1"},
		{"port", strings.Replace(goodConf, "[Peer]", fmt.Sprintf("ListenPort = %d\n[Peer]", port), 1), "listen-port", Fail, "ListenPort"},
		{"DNS", strings.Replace(goodConf, "0.0.0.0/0", "10.8.0.0/16", 1), "plan", Note, "10.9.0.1"},
		{"no DNS", strings.Replace(goodConf, "DNS = 10.9.0.1\n", "", 1), "plan", Note, "--dns"},
		{"MTU", strings.NewReplacer("[Peer]", "MTU = 65470\n[Peer]", "127.0.0.1", "[::1]").Replace(goodConf), "mtu", Note, "no MTU line"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := This(program, t.TempDir(), nil, nil)
			list, err := checkFile.Call(h.UserCommand, writeConf(t, test.text))
			if test.name == "port" { // taken where this process is
				list, err = m.CheckFile(t.Context(), writeConf(t, test.text)), nil
			}
			if err != nil {
				t.Fatal(err)
			}
			f := find(list, test.check)
			if len(f) != 1 || f[0].State != test.state || !strings.Contains(f[0].Seen+f[0].Line(), test.want) {
				t.Errorf("%+v", list)
			}
			if Well(list) != (test.state != Fail) {
				t.Errorf("well or not: %+v", list)
			}
			if text := fmt.Sprint(list); strings.Contains(text, "SEms9") {
				t.Errorf("a key: %s", text)
			}
		})
	}
}

var checkFile = nstest.NewFunc("check file", func(path string) ([]Finding, error) {
	return This("/bin/wireguard4netns", os.TempDir(), nil, nil).CheckFile(context.Background(), path), nil
})

// takePort returns a UDP port that is in use.
func takePort(t *testing.T) int {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet6{}); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return sa.(*unix.SockaddrInet6).Port
}

func TestFileRights(t *testing.T) {
	t.Parallel()
	path := writeConf(t, "")
	m := This("/bin/wireguard4netns", t.TempDir(), nil, nil)
	for mode, state := range map[os.FileMode]State{0o600: OK, 0o400: OK, 0o640: Note, 0o604: Note, 0o622: Note} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		f := find(m.CheckFile(t.Context(), path), "file-rights")
		if len(f) != 1 || f[0].State != state || state == Note && f[0].Do != "chmod 600 "+path {
			t.Errorf("%v: %+v", mode, f)
		}
	}
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []string{path, t.TempDir(), "/none"} {
		list := m.CheckFile(t.Context(), wrong)
		if len(list) != 1 || list[0].Check != "file" || list[0].State != Fail {
			t.Errorf("%s: %+v", wrong, list)
		}
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	h := nstest.NewHost(t)
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"a", "b"}, 125, "\nhint: "},
		{[]string{"--no-such-flag"}, 125, "\nhint: "},
		{[]string{"no-such-name"}, 1, "\nFAIL  file "},
		{[]string{"/no/such.conf"}, 1, "\nFAIL  file "},
	} {
		args := test.args
		cmd := h.UserCommand(nstest.Build(t), append([]string{"doctor"}, args...)...)
		out, err := cmd.CombinedOutput()
		if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != test.code || !strings.Contains(string(out), test.want) {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
	cmd := h.UserCommand(nstest.Build(t), "doctor")
	nstest.Start(t, cmd)
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err == nil {
		t.Error("exit code 0 after SIGTERM")
	}
}
