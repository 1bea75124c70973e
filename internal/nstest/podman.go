package nstest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

const containerImage = "localhost/w4n-test:1"

// StartContainer runs a container with busybox in it by rootless Podman on
// the real machine, with the given `podman run` flags (--network=none), and
// returns its name and the PID of its first process.
func StartContainer(t testing.TB, flags ...string) (name string, pid int) {
	t.Helper()
	if err := importImage(); err != nil {
		t.Fatalf("import container image: %v", err)
	}
	name = fmt.Sprintf("w4n-%d-%s", os.Getpid(), strings.NewReplacer("/", "-", "=", "-").Replace(t.Name()))
	args := append([]string{"run", "--detach", "--name", name}, flags...)
	t.Cleanup(func() { podman("rm", "--force", "--time=0", name).Run() })
	// Its output is not a pipe: conmon would keep that open.
	run := podman(append(args, containerImage, "sleep", "1000")...)
	stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	run.Stderr = stderr
	if err := run.Run(); err != nil {
		text, _ := os.ReadFile(stderr.Name())
		t.Fatalf("podman run: %v\n%s", err, text)
	}
	text := output(t, podman("inspect", "--format", "{{.State.Pid}}", name))
	if pid, err = strconv.Atoi(strings.TrimSpace(text)); err != nil {
		t.Fatal(err)
	}
	return name, pid
}

// podman is a podman command with what works on machines without systemd and
// with cgroups of both versions, which crun refuses.
func podman(args ...string) *exec.Cmd {
	return exec.Command("podman", append([]string{"--runtime=runc", "--cgroup-manager=cgroupfs"}, args...)...)
}

// importImage makes the image for this user, once.
func importImage() error {
	// Test processes of several packages may do this at the same time.
	lock, err := os.OpenFile(filepath.Join(CacheDir(), "container-image.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return os.NewSyscallError("flock", err)
	}
	if podman("image", "exists", containerImage).Run() == nil {
		return nil
	}
	archive, err := busyboxArchive()
	if err != nil {
		return err
	}
	cmd := podman("import", "-", containerImage)
	cmd.Stdin = bytes.NewReader(archive)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, text)
	}
	return nil
}

// busyboxArchive is a root file system with busybox and a link for each of
// its commands, as tar.
func busyboxArchive() ([]byte, error) {
	const program = "/bin/busybox"
	busybox, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	applets, err := exec.Command(program, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list busybox commands: %w", err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, dir := range []string{"bin/", "dev/", "etc/", "proc/", "sys/", "tmp/"} {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755})
	}
	w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(busybox))})
	w.Write(busybox)
	for _, applet := range strings.Fields(string(applets)) {
		if applet != "busybox" {
			w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox"})
		}
	}
	err = w.Close()
	return archive.Bytes(), err
}
