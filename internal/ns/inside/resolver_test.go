package inside

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Only the daemons of the made-up host know this name, by a hosts file that
// nobody else sees.
const (
	hostName    = "only.on.host.example"
	hostAddress = "192.0.2.77"
)

// daemons is where testdata/getnss.sh put the real ones.
func daemons(t *testing.T) string {
	t.Helper()
	cache := os.Getenv("W4N_TEST_CACHE")
	if cache == "" {
		cache = "/var/tmp/w4n-test-cache"
	}
	root := filepath.Join(cache, "nss")
	if _, err := os.Stat(root); err != nil {
		t.Fatalf("no nscd and systemd-resolved to test with: %v; run internal/ns/inside/testdata/getnss.sh %s", err, cache)
	}
	return root
}

func find(t *testing.T, root string, patterns ...string) string {
	t.Helper()
	for _, pattern := range patterns {
		if matches, _ := filepath.Glob(filepath.Join(root, pattern)); len(matches) > 0 {
			return matches[0]
		}
	}
	t.Fatalf("none of %q is in %s", patterns, root)
	return ""
}

// resolverHost makes the made-up host's files, and lets this process and those
// it starts find the unpacked modules.
func resolverHost(t *testing.T, nsswitch string) (root string) {
	t.Helper()
	root = daemons(t)
	fakeDir(t, "/etc", true)
	fakeDir(t, "/run", false)
	fakeDir(t, "/var/cache", false)
	fakeDir(t, "/srv", false)
	write(t, "/srv/hosts", hostAddress+" "+hostName+"\n")
	write(t, "/etc/hosts", "127.0.0.1 localhost\n")
	write(t, "/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: "+nsswitch+"\n")
	// resolved wants its user, and one user only is mapped here.
	host(t, `ip link set lo up
		mkdir -p /run/nscd /run/systemd/resolve /var/cache/nscd
		for file in passwd group; do
			{ grep -v '^systemd-resolve:' /etc/$file; echo 'systemd-resolve:x:0:0::/:/bin/false'; } > /etc/$file.new && mv /etc/$file.new /etc/$file
		done`)
	write(t, "/etc/nscd.conf", "enable-cache hosts yes\n")
	library := filepath.Dir(find(t, root, "usr/lib/*/libnss_resolve.so.2", "lib/*/libnss_resolve.so.2"))
	t.Setenv("LD_LIBRARY_PATH", strings.Join([]string{
		library, library + "/systemd", root + "/lib/" + filepath.Base(library), root + "/lib/systemd",
	}, ":"))
	return root
}

// startDaemon runs command, with a hosts file of its own, until the test ends,
// and waits until somebody listens on socket.
func startDaemon(t *testing.T, socket string, command ...string) {
	t.Helper()
	script := `mount --bind /srv/hosts /etc/hosts && exec "$@"`
	cmd := exec.Command("unshare", append([]string{"--mount", "--propagation=private", "sh", "-c", script, "sh"}, command...)...)
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	deadline := time.After(20 * time.Second)
	for {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket})
		_ = unix.Close(fd)
		if err == nil {
			return
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case err := <-ended:
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("%s ended: %v\n%s", command[0], err, text)
		case <-deadline:
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("%s does not listen on %s: %v\n%s", command[0], socket, err, text)
		}
	}
}

// lookUp asks for the host's name as the app does, and returns the address or
// "".
func (in inner) lookUp(t *testing.T) string {
	t.Helper()
	out, code := in.app(t, "getent", "hosts", hostName)
	if code != 0 {
		return ""
	}
	address, _, _ := strings.Cut(out, " ")
	return address
}

// Each way to a resolver of the host is shown to be open first, and then that
// one measure is what closes it.
func TestNscd(t *testing.T) {
	asHost(t, 0, func(t *testing.T) {
		root := resolverHost(t, "files dns")
		nscd := []string{find(t, root, "usr/sbin/nscd"), "-F", "-f", "/etc/nscd.conf"}
		own := ownConfig()
		own.Keep = nil
		early := startInside(t, own)
		startDaemon(t, "/run/nscd/socket", nscd...)

		equal(t, "nothing masked", startInside(t, Config{}).lookUp(t), hostAddress)
		equal(t, "own files only", startInside(t, Config{Etc: own.Etc}).lookUp(t), hostAddress)
		equal(t, "/run masked only", startInside(t, Config{Run: own.Run}).lookUp(t), "")
		equal(t, "all", startInside(t, own).lookUp(t), "")
		equal(t, "nscd started later", early.lookUp(t), "")
	})
}

func TestResolved(t *testing.T) {
	asHost(t, 0, func(t *testing.T) {
		root := resolverHost(t, "resolve [!UNAVAIL=return] dns")
		own := ownConfig()
		early := startInside(t, own)
		earlyRun := startInside(t, Config{Run: own.Run})
		startDaemon(t, "/run/systemd/resolve/io.systemd.Resolve", find(t, root, "lib/systemd/systemd-resolved", "usr/lib/systemd/systemd-resolved"))

		equal(t, "nothing masked", startInside(t, Config{}).lookUp(t), hostAddress)
		resolvOnly := Config{Etc: map[string][]byte{"resolv.conf": own.Etc["resolv.conf"]}}
		equal(t, "own resolv.conf only", startInside(t, resolvOnly).lookUp(t), hostAddress)
		equal(t, "own files only", startInside(t, Config{Etc: own.Etc}).lookUp(t), "")
		equal(t, "/run masked only", startInside(t, Config{Run: own.Run}).lookUp(t), "")
		equal(t, "all", startInside(t, own).lookUp(t), "")
		equal(t, "resolved started later", early.lookUp(t), "")
		equal(t, "resolved started later, /run masked only", earlyRun.lookUp(t), "")
	})
}

// An exposed socket is the user's own wish, and shows that the mask is what
// closed it.
func TestExposedResolver(t *testing.T) {
	asHost(t, 0, func(t *testing.T) {
		root := resolverHost(t, "files dns")
		startDaemon(t, "/run/nscd/socket", find(t, root, "usr/sbin/nscd"), "-F", "-f", "/etc/nscd.conf")
		cfg := ownConfig()
		cfg.Expose = []string{"/run/nscd/socket"}
		equal(t, "exposed", startInside(t, cfg).lookUp(t), hostAddress)
	})
}
