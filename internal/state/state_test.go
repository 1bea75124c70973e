package state

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func claim(t *testing.T, root, name string) *Dir {
	t.Helper()
	d, err := Claim(root, name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestClaimPublishRemove(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "run", "w4n")
	d := claim(t, root, "home")
	if _, err := os.Stat(d.PublishedPath()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("visible before Publish: %v", err)
	}
	if err := os.WriteFile(filepath.Join(d.Path(), "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Publish(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(d.PublishedPath(), "x")); err != nil || d.Path() != d.PublishedPath() {
		t.Errorf("not visible after Publish: %v", err)
	}
	for _, dir := range []string{root, d.Path()} {
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v, %v", dir, st.Mode(), err)
		}
	}
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("root is left: %v", err)
	}
}

func TestNameIsTaken(t *testing.T) {
	t.Parallel()
	root := t.TempDir() + "/w4n"
	d := claim(t, root, "home")
	if _, err := Claim(root, "home"); !errors.Is(err, ErrInUse) {
		t.Errorf("claimed before Publish: got %v", err)
	}
	if err := d.Publish(); err != nil {
		t.Fatal(err)
	}
	if _, err := Claim(root, "home"); !errors.Is(err, ErrInUse) {
		t.Errorf("claimed after Publish: got %v", err)
	}
	if _, err := Claim(root, "home"); err == nil || !strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) {
		t.Errorf("the error does not say who has it: %v", err)
	}
	other := claim(t, root, "work")
	if names, err := List(root); err != nil || len(names) != 1 || names[0] != "home" {
		t.Errorf("list: %v, %v", names, err)
	}
	if err := errors.Join(d.Remove(), other.Remove()); err != nil {
		t.Fatal(err)
	}
	claim(t, root, "home").Remove()
}

// Who asked for a tunnel was killed, and its start is given up a little later: the
// next has the name.
func TestAStartIsGivenUp(t *testing.T) {
	t.Parallel()
	root := t.TempDir() + "/w4n"
	first := claim(t, root, "home")
	began := time.Now()
	gone := make(chan error)
	time.AfterFunc(4*soonTime, func() { gone <- first.Remove() })
	second, err := Claim(root, "home")
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 4*soonTime {
		t.Errorf("claimed after %v, while another had it", took)
	}
	if err := errors.Join(<-gone, second.Remove()); err != nil {
		t.Error(err)
	}
}

func TestOneOfManyWins(t *testing.T) {
	t.Parallel()
	root := t.TempDir() + "/w4n"
	won := make(chan *Dir, 32)
	var all sync.WaitGroup
	for range cap(won) {
		all.Go(func() {
			d, err := Claim(root, "home")
			if err == nil {
				won <- d
			} else if !errors.Is(err, ErrInUse) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(won) != 1 {
		t.Fatalf("%d claims succeeded", len(won))
	}
}

// Tunnels that come and go must not take the root from under each other.
func TestRootComesAndGoes(t *testing.T) {
	t.Parallel()
	root := t.TempDir() + "/w4n"
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 20 {
				d, err := Claim(root, fmt.Sprint("t", i))
				if err != nil {
					t.Error(err)
					return
				}
				if err := errors.Join(d.Publish(), d.Remove()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if _, err := os.Stat(root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("root is left: %v", err)
	}
}

func TestBadNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", ".", "..", ".hidden", "a/b", "ä", "a b", string(make([]byte, 65))} {
		if _, err := Claim(t.TempDir()+"/w4n", name); !errors.Is(err, ErrBadName) {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

func TestRootOfSomebodyElse(t *testing.T) {
	t.Parallel()
	open := t.TempDir()
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	link := t.TempDir() + "/link"
	private := t.TempDir()
	if err := errors.Join(os.Chmod(private, 0o700), os.Symlink(private, link)); err != nil {
		t.Fatal(err)
	}
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{open, link, file} {
		if _, err := Claim(root, "home"); !errors.Is(err, ErrUnsafe) {
			t.Errorf("%s: got %v", root, err)
		}
	}
}

func TestRootThatCannotBe(t *testing.T) {
	t.Parallel()
	for _, root := range []string{"/proc/w4n/x", "/dev/null/x"} {
		if _, err := Claim(root, "home"); err == nil {
			t.Errorf("%s was made", root)
		}
	}
}

// What a killed process left is taken away by the next Claim of any name, and by
// RemoveStale; what a living one has is not.
func TestKilledOwner(t *testing.T) {
	if root := os.Getenv("STATE_TEST_ROOT"); root != "" {
		claim(t, root, "half")
		if err := claim(t, root, "whole").Publish(); err != nil {
			t.Fatal(err)
		}
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	t.Parallel()
	for _, tidy := range []func(root string) error{
		RemoveStale,
		func(root string) error {
			d, err := Claim(root, "next")
			if err != nil {
				return err
			}
			return d.Remove()
		},
	} {
		root := t.TempDir() + "/w4n"
		alive := claim(t, root, "alive")
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestKilledOwner$")
		cmd.Env = append(os.Environ(), "STATE_TEST_ROOT="+root)
		if err := cmd.Run(); err == nil {
			t.Fatal("the process was not killed")
		}
		if names := list(t, root); len(names) != 3 {
			t.Fatalf("the killed process left %v", names)
		}
		if err := tidy(root); err != nil {
			t.Fatal(err)
		}
		if names := list(t, root); len(names) != 1 || names[0] != ".alive" {
			t.Errorf("after tidying there is %v", names)
		}
		if err := alive.Remove(); err != nil {
			t.Error(err)
		}
	}
	if err := RemoveStale(t.TempDir() + "/none"); err != nil {
		t.Errorf("no root: %v", err)
	}
}

// A process that is killed this very moment does not keep its name.
func TestDyingOwner(t *testing.T) {
	if root := os.Getenv("STATE_TEST_DYING"); root != "" {
		if err := claim(t, root, "home").Publish(); err != nil {
			t.Fatal(err)
		}
		// What takes the kernel time to let go of.
		if _, err := unix.Mmap(-1, 0, 256<<20, unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE); err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("claimed\n")
		unix.Pause()
	}
	t.Parallel()
	root := t.TempDir() + "/w4n"
	tidy := false
	for range 10 {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestDyingOwner$")
		cmd.Env = append(os.Environ(), "STATE_TEST_DYING="+root)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if _, err := Claim(root, "home"); !errors.Is(err, ErrInUse) {
			t.Errorf("of a process that lives: %v", err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if tidy = !tidy; tidy {
			// As soon as its sockets are closed, which is after it has begun to end.
			for deadline := time.Now().Add(10 * time.Second); !ending(cmd.Process.Pid) && time.Now().Before(deadline); {
			}
			if err := RemoveStale(root); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(root); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("root is left: %v", err)
			}
			cmd.Wait()
			continue
		}
		d, err := Claim(root, "home")
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Remove(); err != nil {
			t.Error(err)
		}
		cmd.Wait()
	}
}

// A socket elsewhere goes with the directory of a killed process that has a link
// to it, unless somebody listens there by now.
func TestSocketElsewhere(t *testing.T) {
	t.Parallel()
	root, elsewhere := t.TempDir()+"/w4n", t.TempDir()
	alive := claim(t, root, "alive")
	for _, name := range []string{"silent", "taken", "file"} {
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(elsewhere, name), filepath.Join(dir, "wg0.sock")); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"silent", "taken"} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(elsewhere, name), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if name == "silent" {
			l.SetUnlinkOnClose(false)
			l.Close()
		}
	}
	if err := os.WriteFile(filepath.Join(elsewhere, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := RemoveStale(root); err != nil {
		t.Fatal(err)
	}
	if names := list(t, root); len(names) != 1 {
		t.Errorf("directories left: %v", names)
	}
	if names := list(t, elsewhere); !slices.Equal(names, []string{"file", "taken"}) {
		t.Errorf("elsewhere there is %v", names)
	}
	if err := alive.Remove(); err != nil {
		t.Error(err)
	}
}

func list(t *testing.T, dir string) (names []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
