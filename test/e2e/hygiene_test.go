package e2e_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/nstest"
)

// What is done to a tunnel again and again leaves nothing in its supervisor, and no
// process has a descriptor that it does not need.
func TestSupervisorDoesNotGrow(t *testing.T) {
	t.Parallel()
	w := newLinkedHosts(t)
	text := `[Interface]
PrivateKey = QGh5nzF/zPD0mzLn7HSUNpVkt1vZeNQW0jX+C4kVL3k=
Address = 10.77.0.2/32
DNS = 10.77.0.1
[Peer]
PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=
Endpoint = 192.0.2.1:51820
AllowedIPs = 0.0.0.0/0
`
	conf, other := writeConf(t, text), writeConf(t, strings.NewReplacer("10.77.0.2/32", "10.77.0.2/32, 10.77.0.3/32", "51820", "51821").Replace(text))
	store := newFDStore(t)
	before := w.snapshot(t)
	address := fmt.Sprintf("unix:/run/user/%d/home.metrics", nstest.User)
	succeed(t, store.start(w, "up", "--name", "home", "--metrics", address, conf))
	app := w.tool("exec", "home", "--", "sh", "-c", "echo $$; read -r _; exit 0")
	input, err := app.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	appPID := hold(t, app)

	holder := func() int {
		m := regexp.MustCompile(`W4N_PID=(\d+)`).FindStringSubmatch(w.mustRun(t, "env", "home"))
		pid, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	replace := func(times int) {
		for range times {
			succeed(t, w.tool("up", "--replace", "--name", "home", conf))
		}
	}
	use := func(times int) {
		for range times {
			for _, args := range [][]string{{"reload", "home", other}, {"reload", "home", conf}, {"exec", "home", "--", "true"}, {"exec", "home", "--", "true"}, {"status", "home"}} {
				w.mustRun(t, args...)
			}
			for range 5 {
				if _, err := scrape.Call(w.user.command, address); err != nil {
					t.Fatal(err)
				}
			}
			holder()
		}
	}
	supervisor := w.status(t, "home").SupervisorPID
	use(1)
	replace(1)
	use(1)
	start := look(t, supervisor)
	use(9)
	look(t, supervisor).check(t, "after use", start)
	replace(4)
	use(1)
	look(t, supervisor).check(t, "after replacing", start)

	// Who has what.
	s := w.status(t, "home")
	allowed := map[string]struct {
		pid   int
		kinds []string
	}{
		"supervisor": {supervisor, []string{"/dev/null", "/dev/net/tun", "anon_inode", "socket", "pipe", "user", "net", "mnt", "layer", "lock", "log", "memfd:state", "cgroup"}},
		"engine":     {s.EnginePID, []string{"/dev/null", "/dev/net/tun", "anon_inode", "socket", "pipe", "cgroup"}},
		"holder":     {holder(), []string{"/dev/null", "cgroup"}},
		"program":    {appPID, []string{"pipe"}},
	}
	for role, a := range allowed {
		files := openKinds(t, a.pid)
		for kind := range files {
			if !slices.Contains(a.kinds, kind) {
				t.Errorf("%s has open: %v", role, files)
			}
		}
	}

	// What a service manager keeps holds no key.
	store.mu.Lock()
	state, err := io.ReadAll(io.NewSectionReader(store.files["state"], 0, 1<<20))
	store.mu.Unlock()
	if err != nil || !strings.Contains(string(state), "10.77.0.2") {
		t.Errorf("kept state: %q, %v", state, err)
	}
	lacks(t, string(state), w.secrets(t, conf)...)
	input.Close()
	if code := exitCode(t, app, waiting); code != 0 {
		t.Errorf("the program's exit code is %d", code)
	}
	w.mustRun(t, "down", "home")
	before.Check(t)
}

// use is what a process has of what there could be ever more.
type use struct {
	files   map[string]int // by kind
	threads int
	rss     int // KiB
}

func look(t *testing.T, pid int) use {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	u := use{files: openKinds(t, pid), rss: rss(t, pid)}
	if m := regexp.MustCompile(`Threads:\s+(\d+)`).FindSubmatch(text); m != nil {
		u.threads, _ = strconv.Atoi(string(m[1]))
	}
	return u
}

// check fails the test if there is more of anything than at the start.
func (u use) check(t *testing.T, when string, start use) {
	t.Helper()
	for kind, n := range u.files {
		// Connections that their other end has just closed may be there still.
		if most := start.files[kind]; n > most && (kind != "socket" || n > most+2) {
			t.Errorf("%s %d descriptors are of %s, before %d", when, n, kind, start.files[kind])
		}
	}
	// The Go runtime makes threads for what blocks, and keeps them.
	if u.threads > start.threads+4 || u.rss > start.rss+8<<10 {
		t.Errorf("%s %d threads, %d KiB; before %d, %d KiB", when, u.threads, u.rss, start.threads, start.rss)
	}
	t.Logf("%s %d threads, %d KiB, %v", when, u.threads, u.rss, u.files)
}

// openKinds counts the open files of a process by kind. In the directory of those of
// our processes nobody may look.
func openKinds(t *testing.T, pid int) map[string]int {
	t.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	kinds := map[string]int{}
	all := openFiles(t, pid)
	for fd, found := 0, 0; found < all && fd < 1024; fd++ {
		file, err := unix.PidfdGetfd(pidfd, fd, 0)
		if err == unix.EBADF {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", file))
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(file)
		found++
		kinds[kindOf(target)]++
	}
	return kinds
}

// kindOf names the kind of what a link in /proc/PID/fd leads to.
func kindOf(target string) string {
	if kind, _, ok := strings.Cut(target, ":["); ok {
		return kind // socket, pipe, net, mnt, user
	}
	switch target {
	case "/dev/null", "/dev/net/tun", "/":
		return target
	}
	if strings.HasPrefix(filepath.Base(target), "cpu.") {
		return "cgroup" // the Go runtime looks there how many processors it may use
	}
	return filepath.Base(strings.TrimSuffix(target, " (deleted)"))
}
