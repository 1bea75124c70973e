package e2e_test

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/nstest"
)

// A fdStore is what systemd keeps of a service between two of its processes.
type fdStore struct {
	address string
	mu      sync.Mutex
	files   map[string]*os.File
	main    string // MAINPID
	removed int    // how often something was to be let go of
}

func newFDStore(t *testing.T) *fdStore {
	t.Helper()
	s := &fdStore{address: filepath.Join(t.TempDir(), "notify"), files: map[string]*os.File{}}
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: s.address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		s.set("", nil)
	})
	go func() {
		text, rights := make([]byte, 4096), make([]byte, 1024)
		for {
			n, nr, _, _, err := l.ReadMsgUnix(text, rights)
			if err != nil {
				return
			}
			s.read(string(text[:n]), rights[:nr])
		}
	}()
	return s
}

func (s *fdStore) read(text string, rights []byte) {
	said := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		key, value, _ := strings.Cut(line, "=")
		said[key] = value
	}
	switch {
	case said["FDSTORE"] == "1":
		messages, err := unix.ParseSocketControlMessage(rights)
		if err != nil || len(messages) != 1 {
			return
		}
		if fds, err := unix.ParseUnixRights(&messages[0]); err == nil && len(fds) == 1 {
			unix.CloseOnExec(fds[0])
			s.set(said["FDNAME"], os.NewFile(uintptr(fds[0]), said["FDNAME"]))
		}
	case said["FDSTOREREMOVE"] == "1":
		s.set(said["FDNAME"], nil)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.removed++
	case said["MAINPID"] != "":
		s.mu.Lock()
		defer s.mu.Unlock()
		s.main = said["MAINPID"]
	}
}

// set keeps a file, or with nil none; of an empty name all go.
func (s *fdStore) set(name string, f *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, old := range s.files {
		if n == name || name == "" {
			old.Close()
			delete(s.files, n)
		}
	}
	if f != nil {
		s.files[name] = f
	}
}

func (s *fdStore) count() (kept, removed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.files), s.removed
}

func (s *fdStore) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.files))
}

// start returns a command that is started as systemd starts a service.
func (s *fdStore) start(w *world, args ...string) *exec.Cmd {
	cmd := w.user.command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, w.program}, args...)...)
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+s.address)
	names := s.names()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		cmd.ExtraFiles = append(cmd.ExtraFiles, s.files[name])
	}
	if len(names) > 0 {
		cmd.Env = append(cmd.Env, fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	return cmd
}

// A supervisor that is killed, and that a service manager starts anew with what it
// kept: programs inside have the same link, and their connections go on.
func TestFDStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conf := w.account(t, "DNS = 10.77.0.1")
	store := newFDStore(t)
	before := w.snapshot(t)
	succeed(t, store.start(w, "up", "--name", "home", conf))
	want := []string{"etc", "mntns", "netlink", "netns", "state", "tun", "userns"}
	nstest.Eventually(t, waiting, func() error {
		if s := w.status(t, "home"); !slices.Equal(store.names(), want) || store.main != fmt.Sprint(s.SupervisorPID) {
			return fmt.Errorf("kept are %q, the main process is %s, not %d", store.names(), store.main, s.SupervisorPID)
		}
		return nil
	})
	stream := startStream(t, w, "home", 9000)
	app := w.tool("exec", "home", "--", "sh", "-c", `while read -r line; do eval "$line" 2>&1; echo; echo END; done; exit 7`)
	input, see := ask(t, app)
	link := see("cat /sys/class/net/wg0/ifindex; readlink /proc/self/ns/net")

	old := w.status(t, "home")
	if err := syscall.Kill(old.SupervisorPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	nstest.Eventually(t, waiting, func() error {
		if out := w.mustRun(t, "list"); strings.Contains(out, "home") {
			return fmt.Errorf("list: %s", out)
		}
		return nil
	})
	// The file has changed meanwhile.
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.NewReplacer("DNS = 10.77.0.1", "DNS = 10.77.0.1, example.com", "10.77.0.2/32", "10.77.0.2/32, 10.77.0.22/32").Replace(string(text))
	if err := os.WriteFile(conf, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	succeed(t, store.start(w, "up", "--name", "home", conf))
	if s := w.status(t, "home"); s.SupervisorPID == old.SupervisorPID || !s.Since.Equal(old.Since) || len(s.Processes) != 2 {
		t.Errorf("before %+v\nafter %+v", old, s)
	}
	if got := see("cat /sys/class/net/wg0/ifindex; readlink /proc/self/ns/net"); got != link {
		t.Errorf("another link or namespace: %s, before %s", got, link)
	}
	contains(t, see("cat /etc/resolv.conf"), "search example.com")
	contains(t, see("ip addr show wg0"), "10.77.0.2/32", "10.77.0.22/32")
	stream.check(t, waiting)
	contains(t, see("ping -c 1 -w 15 "+w.peer.Addr4.String()), " bytes from ")
	input.Close()
	if code := exitCode(t, app, waiting); code != 7 {
		t.Errorf("the program's exit code is %d", code)
	}
	stream.stop(t)

	// What is kept is of this process, too.
	w.mustRun(t, "up", "--replace", "--name", "home", conf)
	if got := store.names(); !slices.Equal(got, want) {
		t.Errorf("kept are %q", got)
	}
	w.mustRun(t, "down", "home")
	nstest.Eventually(t, waiting, func() error {
		if got := store.names(); len(got) > 0 {
			return fmt.Errorf("after down %q are kept", got)
		}
		return nil
	})
	before.Check(t)
}

// What was kept does not fit the file any more: the tunnel is made anew, and that
// is said.
func TestFDStoreOfAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conf := w.account(t)
	store := newFDStore(t)
	succeed(t, store.start(w, "up", "--name", "home", conf))
	nstest.Eventually(t, waiting, func() error {
		if got := store.names(); !slices.Contains(got, "userns") {
			return fmt.Errorf("kept are %q", got)
		}
		return nil
	})
	if err := syscall.Kill(w.status(t, "home").SupervisorPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	cmd := store.start(w, "up", "--name", "home", "--ifname", "wg7", conf)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "not taken over: link wg0: it was kept of another tunnel") {
		t.Errorf("%v: %s", err, out)
	}
	contains(t, w.mustRun(t, "exec", "home", "--", "ping", "-c", "1", "-w", "15", w.peer.Addr4.String()), " bytes from ")
	// systemd keeps what has the same name beside each other.
	nstest.Eventually(t, waiting, func() error {
		if kept, removed := store.count(); kept < 6 || removed < 7 {
			return fmt.Errorf("%d descriptors are kept, %d were let go of", kept, removed)
		}
		return nil
	})
	w.mustRun(t, "down", "home")
}

// What was kept is not what it was: the tunnel is made anew, and that is said.
func TestFDStoreOfAnything(t *testing.T) {
	t.Parallel()
	w := newLinkedHosts(t)
	conf := writeConf(t, "[Interface]\nPrivateKey = QGh5nzF/zPD0mzLn7HSUNpVkt1vZeNQW0jX+C4kVL3k=\nAddress = 10.77.0.2/32\nDNS = 10.77.0.1\n")
	before := w.snapshot(t)
	state := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(state, []byte(`{"Link":{"Name":"wg0"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	const all = "mntns:netlink:netns:state:tun:userns"
	for _, test := range []struct {
		promised int // LISTEN_FDS
		names    string
		files    []string
		said     string
	}{
		{6, all, []string{state, state, state, state, state, state}, "not one of such a namespace; the tunnel is made anew"},
		{6, all, []string{"/proc/self/ns/mnt", state, "/proc/self/ns/net", state, "/dev/null", "/proc/self/ns/user"}, "descriptor netlink: not a netlink socket; the tunnel is made anew"},
		{6, all, []string{state, state}, "is not open; the tunnel is made anew"},
		{6, "tun", []string{state, state, state, state, state, state}, "6 descriptors, 1 names; the tunnel is made anew"},
		{2, "tun:tun", []string{state, state}, "is missing of"},
		{99, "tun", nil, "99 descriptors"},
	} {
		cmd := w.user.command("sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, w.program, "up", "--name", "home", "--ifname", "wg0", conf)
		cmd.Env = append(cmd.Env, fmt.Sprintf("LISTEN_FDS=%d", test.promised), "LISTEN_FDNAMES="+test.names)
		for _, name := range test.files {
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), test.said) {
			t.Errorf("%v: %v: %s", test, err, out)
		}
		w.mustRun(t, "exec", "home", "--", "true")
		w.mustRun(t, "down", "home")
	}
	before.Check(t)
}
