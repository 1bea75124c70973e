package run_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/nstest"
)

// attempts are what an app must not be able to do, as commands that succeed for
// one who may.
var attempts = map[string][]string{
	"umount /run":      {"umount", "/run"},
	"umount /etc":      {"umount", "-l", "/etc"},
	"umount conf":      {"sh", "-c", `umount "$CONF"`},
	"move mount":       {"sh", "-c", `mount -n --move /run /mnt`},
	"remount writable": {"sh", "-c", `mount -o remount,bind,rw /etc && touch /etc/x`},
	"write resolv":     {"sh", "-c", "echo nameserver 192.0.2.53 >/etc/resolv.conf"},
	"add route":        {"ip", "route", "add", "198.51.100.0/24", "dev", "lo"},
	"delete route":     {"ip", "route", "del", "default"},
	"add address":      {"ip", "address", "add", "198.51.100.1/32", "dev", "lo"},
	"set link down":    {"ip", "link", "set", "lo", "down"},
	"add link":         {"ip", "link", "add", "dummy0", "type", "veth"},
	"set sysctl":       {"sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"},
	"firewall":         {"env", appEnv + "=netfilter", testBinary()},
	"raw socket":       {"env", appEnv + "=raw", testBinary()},
	"packet socket":    {"env", appEnv + "=packet", testBinary()},
	"second TUN":       {"env", appEnv + "=tun", testBinary()},
}

// No position of an app gives it power over the link, the routes or the masks.
func TestAppCannot(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	positions := map[string]struct{ flags, before []string }{
		"as it is":        {nil, nil},
		"as root":         {[]string{"--map-root"}, nil},
		"in a userns":     {nil, []string{"unshare", "-U", "--map-root-user"}},
		"in a mntns":      {nil, []string{"unshare", "-U", "--map-root-user", "--mount", "--propagation", "unchanged"}},
		"root in a mntns": {[]string{"--map-root"}, []string{"unshare", "--mount", "--propagation", "unchanged"}},
	}
	for what, command := range attempts {
		for where, p := range positions {
			t.Run(what+" "+where, func(t *testing.T) {
				t.Parallel()
				args := append(slices.Clone(p.flags), "--")
				args = append(args, "env", "CONF="+m.conf)
				args = append(append(args, p.before...), command...)
				if got := finish(t, m.run(args...)); got.code == 0 || got.code >= 125 {
					t.Errorf("exit code %d\n%s%s", got.code, got.stdout, got.stderr)
				}
			})
		}
	}
}

// The attempts themselves are sound: root of the namespaces may do all of it.
func TestAttemptsSucceedWithRights(t *testing.T) {
	t.Parallel()
	h := nstest.NewHost(t)
	const setup = `set -e
mount -t tmpfs tmpfs /etc
touch /etc/resolv.conf /etc/conf
mount --bind /etc/conf /etc/conf
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
ip link set lo up
ip route add default dev lo
exec "$@"`
	for what, command := range attempts {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"--net", "--mount", "sh", "-c", setup, "sh"}, command...)
			cmd := h.Command("unshare", args...)
			cmd.Env = append(os.Environ(), "CONF=/etc/conf")
			if got := finish(t, cmd); got.code != 0 {
				t.Errorf("exit code %d\n%s%s", got.code, got.stdout, got.stderr)
			}
		})
	}
}

// exitWith ends an app that tries one thing.
func exitWith(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func openRaw() {
	_, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
	exitWith(err)
}

func openPacket() {
	_, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	exitWith(err)
}

// openNetfilter makes a table with a message of nfnetlink.
func openNetfilter() {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER)
	exitWith(err)
	// A request for all tables: the kernel asks for CAP_NET_ADMIN for reading too.
	const nftGetTable = 10<<8 | 1
	message := make([]byte, 20)
	header := (*unix.NlMsghdr)(unsafe.Pointer(&message[0]))
	header.Len, header.Type, header.Flags = 20, nftGetTable, unix.NLM_F_REQUEST|unix.NLM_F_DUMP
	exitWith(unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	reply := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, reply, 0)
	exitWith(err)
	got := (*unix.NlMsghdr)(unsafe.Pointer(&reply[0]))
	if n >= 20 && got.Type == unix.NLMSG_ERROR {
		if code := *(*int32)(unsafe.Pointer(&reply[16])); code == -int32(unix.EPERM) {
			exitWith(unix.EPERM)
		}
	}
}

func openTUN() {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR, 0)
	exitWith(err)
	req, err := unix.NewIfreq("second0")
	exitWith(err)
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	exitWith(unix.IoctlIfreq(fd, unix.TUNSETIFF, req))
}

// escape tries each way from a process into another of the same user, and
// returns those that were open.
var escape = nstest.NewFunc("escape", func(pid int) (open []string, err error) {
	proc := fmt.Sprintf("/proc/%d/", pid)
	try := func(what string, err error) {
		if err == nil {
			open = append(open, what)
		}
	}
	for _, kind := range []string{"user", "net", "mnt"} {
		fd, err := unix.Open(proc+"ns/"+kind, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		try("open ns/"+kind, err)
		if err == nil {
			unix.Close(fd)
		}
	}
	for _, name := range []string{"mem", "environ", "maps", "root/", "cwd/"} {
		_, err := os.Open(proc + name)
		try("open "+name, err)
	}
	_, err = os.Readlink(proc + "exe")
	try("read exe", err)
	fds, _ := filepath.Glob(proc + "fd/*")
	for _, name := range fds {
		_, err := os.Open(name)
		try("open fd", err)
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return open, err
	}
	for fd := range 30 {
		_, err := unix.PidfdGetfd(pidfd, fd, 0)
		try("pidfd_getfd", err)
	}
	var word [8]byte
	_, err = unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &word[0], Len: 8}}, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}, 0)
	try("process_vm_readv", err)
	for _, flags := range []int{unix.CLONE_NEWNET, unix.CLONE_NEWUTS} {
		try("setns pidfd", unix.Setns(pidfd, flags))
	}
	try("ptrace", unix.PtraceSeize(pid))
	return slices.Compact(open), nil
})

func TestAppCannotReachProcessesOutside(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	app := m.run("sleep", "300")
	nstest.Start(t, app)
	m.processNamed(t, "sleep 300")
	supervisor := m.processNamed(t, "wireguard4netns-supervisor")
	engine := m.processNamed(t, "wireguard4netns-engine")
	// A process of the same user, in the same user namespace, as the program.
	beside := func(name string, args ...string) *exec.Cmd {
		return exec.Command("nsenter", append([]string{"--preserve-credentials", "--user",
			"--target", strconv.Itoa(app.Process.Pid), "--", name}, args...)...)
	}
	neighbour := beside("sleep", "400")
	nstest.Start(t, neighbour)
	m.processNamed(t, "sleep 400")

	inside := func(flags ...string) func(string, ...string) *exec.Cmd {
		return func(name string, args ...string) *exec.Cmd {
			return m.run(append(append(flags, "--", name), args...)...)
		}
	}
	for name, command := range map[string]func(string, ...string) *exec.Cmd{"app": inside(), "root": inside("--map-root")} {
		for _, pid := range []int{supervisor, engine, neighbour.Process.Pid, app.Process.Pid, m.PID()} {
			open, err := escape.Call(command, pid)
			if err != nil || len(open) > 0 {
				args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				t.Errorf("%s may, with %q: %v (%v)", name, args, open, err)
			}
		}
	}
	// The ways are open where they may be, and closed around the keys even there.
	// The ways are open where they may be, and closed around the keys even there.
	open, err := escape.Call(beside, neighbour.Process.Pid)
	if err != nil || !slices.Contains(open, "open ns/net") || !slices.Contains(open, "open root/") || !slices.Contains(open, "open mem") {
		t.Errorf("a user may only, with a process of the same user: %v (%v)", open, err)
	}
	if open, err := escape.Call(beside, supervisor); err != nil || len(open) > 0 {
		t.Errorf("a process of the same user may, with the supervisor: %v (%v)", open, err)
	}
	app.Process.Signal(unix.SIGTERM)
	await(t, app)
}

// parents tries to get at the user namespaces above by the relations between
// namespaces (ioctl_ns(2)).
var parents = nstest.NewFunc("parents", func(struct{}) (open []string, err error) {
	for _, way := range []struct {
		what, path string
		request    uint
	}{
		{"the parent of the user namespace", "/proc/self/ns/user", unix.NS_GET_PARENT},
		{"the owner of the network namespace", "/proc/self/ns/net", unix.NS_GET_USERNS},
	} {
		fd, err := unix.Open(way.path, unix.O_RDONLY, 0)
		if err != nil {
			return open, err
		}
		if _, err := unix.IoctlRetInt(fd, way.request); err == nil {
			open = append(open, way.what)
		}
	}
	return open, nil
})

func TestAppCannotGetUserNamespacesAbove(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	inside := func(name string, args ...string) *exec.Cmd { return m.run(append([]string{name}, args...)...) }
	if open, err := parents.Call(inside, struct{}{}); err != nil || len(open) > 0 {
		t.Errorf("the app gets at %v (%v)", open, err)
	}
	if open, err := parents.Call(m.Command, struct{}{}); err != nil || len(open) != 1 {
		t.Errorf("root of a host gets at %v (%v), want the owner of its network namespace", open, err)
	}
}

func TestNoNewPrivileges(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, flags := range [][]string{{"--"}, {"--map-root", "--"}} {
		got := finish(t, m.run(append(flags, "grep", "NoNewPrivs", "/proc/self/status")...))
		if got.stdout != "NoNewPrivs:\t1\n" {
			t.Errorf("%v: %q %s", flags, got.stdout, got.stderr)
		}
	}
	got := finish(t, m.run("grep", "-E", "^Cap(Inh|Prm|Eff|Amb)", "/proc/self/status"))
	if strings.Count(got.stdout, "\t0000000000000000\n") != 4 {
		t.Errorf("capabilities of the app: %s%s", got.stdout, got.stderr)
	}
}

func TestMapRoot(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.Chmod(filepath.Dir(file), 0o777); err != nil {
		t.Fatal(err)
	}
	got := finish(t, m.run("--map-root", "--", "sh", "-c", "id -u; id -g; touch "+file))
	if got.code != 0 || got.stdout != "0\n0\n" {
		t.Errorf("exit code %d, printed %q, %s", got.code, got.stdout, got.stderr)
	}
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil || int(st.Uid) != os.Getuid() {
		t.Errorf("the file it made is of uid %d, %v", st.Uid, err)
	}
}

func TestUnprivilegedPing(t *testing.T) {
	t.Parallel()
	m, peer := newMachineWithPeer(t)
	for _, addr := range []string{"127.0.0.1", "::1", peer.Addr4.String(), peer.Addr6.String()} {
		for _, flags := range [][]string{{"--"}, {"--map-root", "--"}} {
			// A ping that has no capability, whatever the file of the host has.
			args := append(flags, "env", appEnv+"=ping", testBinary(), addr)
			if got := finish(t, m.run(args...)); got.code != 0 {
				t.Errorf("%v ping %s: exit code %d\n%s", flags, addr, got.code, got.stderr)
			}
		}
	}
}

// ping asks the address of its argument over an ICMP datagram socket.
func ping() {
	network, request := "udp4", byte(8)
	ip := net.ParseIP(os.Args[1])
	domain, proto := unix.AF_INET, unix.IPPROTO_ICMP
	var to unix.Sockaddr
	if v4 := ip.To4(); v4 != nil {
		to = &unix.SockaddrInet4{Addr: [4]byte(v4)}
	} else {
		network, request = "udp6", 128
		domain, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
		to = &unix.SockaddrInet6{Addr: [16]byte(ip.To16())}
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM, proto)
	exitWith(err)
	exitWith(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
	exitWith(unix.Sendto(fd, []byte{request, 0, 0, 0, 0, 0, 0, 1}, 0, to))
	reply := make([]byte, 100)
	if _, _, err := unix.Recvfrom(fd, reply, 0); err != nil {
		exitWith(fmt.Errorf("%s: %w", network, err))
	}
}

// What is ours, and the file with the keys, is not there for the app.
func TestAppDoesNotSeeOurFiles(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	state := "/run/user/1000/wireguard4netns"
	link := filepath.Join(t.TempDir(), "link.conf")
	if err := os.Symlink(m.conf, link); err != nil {
		t.Fatal(err)
	}
	other := m.run("sleep", "300")
	nstest.Start(t, other)
	m.processNamed(t, "sleep 300")
	if sockets := m.RunUser(t, "find", state, "-name", "*.sock"); sockets == "" {
		t.Error("no UAPI socket outside: this test has lost its point")
	}
	for _, test := range []struct{ what, script string }{
		{"state directory", "ls -A " + state},
		{"sockets", "find /run -name '*.sock'"},
		{"conf", "cat " + m.conf},
		{"conf by a link", "cat " + link},
		{"conf by /proc", fmt.Sprintf("cat /proc/%d/root/%s 2>/dev/null", other.Process.Pid, m.conf)},
		{"conf in the mount table", "grep -c wg0.conf /proc/self/mountinfo >/dev/null; grep PrivateKey " + m.conf},
	} {
		for _, flags := range [][]string{{"--"}, {"--map-root", "--"}} {
			if got := finish(t, m.run(append(flags, "sh", "-c", test.script)...)); got.stdout != "" {
				t.Errorf("%s: %q", test.what, got.stdout)
			}
		}
	}
	other.Process.Signal(unix.SIGTERM)
	await(t, other)
}
