package savefile_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"wireguard4netns/internal/nstest"
	"wireguard4netns/internal/savefile"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func write(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
}

// check demands this one file, and nothing else, in a directory.
func check(t *testing.T, dir, name, text string, mode fs.FileMode) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 1 || list[0].Name() != name {
		t.Errorf("%s holds %v, %v", dir, list, err)
	}
	got, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil || string(got) != text {
		t.Errorf("%s: %q, %v; want %q", name, got, err, text)
	}
	if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != mode {
		t.Errorf("mode %v, %v; want %v", info.Mode(), err, mode)
	}
}

func TestReplace(t *testing.T) {
	t.Parallel()
	dir, links := t.TempDir(), t.TempDir()
	path, link := filepath.Join(dir, "wg0.conf"), filepath.Join(links, "link")
	write(t, path, "before", 0o644)
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := savefile.Replace(link, []byte("before"), []byte("after")); err != nil {
		t.Fatal(err)
	}
	check(t, dir, "wg0.conf", "after", 0o600)
	if target, err := os.Readlink(link); err != nil || target != path {
		t.Errorf("the link is %q, %v", target, err)
	}
}

func TestWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, text := range []string{"one", "two"} {
		if err := savefile.Write(filepath.Join(dir, "f"), []byte(text)); err != nil {
			t.Fatal(err)
		}
		check(t, dir, "f", text, 0o600)
	}
}

// Whatever is in the way: the file is as it was, and there is nothing beside it.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		prepare func(dir, path string) error
		now     string
		mode    fs.FileMode
		want    error
	}{
		{"longer meanwhile", func(_, path string) error { return os.WriteFile(path, []byte("before and"), 0) }, "before and", 0o644, savefile.ErrChanged},
		{"shorter meanwhile", func(_, path string) error { return os.WriteFile(path, []byte("bef"), 0) }, "bef", 0o644, savefile.ErrChanged},
		{"read-only file", func(_, path string) error { return os.Chmod(path, 0o444) }, "before", 0o444, syscall.EACCES},
		{"read-only directory", func(dir, _ string) error { return os.Chmod(dir, 0o555) }, "before", 0o644, syscall.EACCES},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "wg0.conf")
		write(t, path, "before", 0o644)
		if err := test.prepare(dir, path); err != nil {
			t.Fatal(err)
		}
		if err := savefile.Replace(path, []byte("before"), []byte("after")); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
		check(t, dir, "wg0.conf", test.now, test.mode)
		os.Chmod(dir, 0o700)
	}
	dir := t.TempDir()
	if err := savefile.Replace(filepath.Join(dir, "none"), nil, []byte("x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := savefile.Replace(dir, nil, []byte("x")); err == nil {
		t.Error("a directory was replaced")
	}
}

// fillDisk replaces a file on a file system that has no room for a second one, and
// tells how that went and what is there then.
var fillDisk = nstest.NewFunc("fill disk", func(text string) (string, error) {
	const dir, path = "/mnt", "/mnt/wg0.conf"
	if err := errors.Join(
		exec.Command("mount", "-t", "tmpfs", "-o", "size=16k", "disk", dir).Run(),
		os.WriteFile(path, []byte("before"), 0o600)); err != nil {
		return "", err
	}
	err := savefile.Replace(path, []byte("before"), []byte(text))
	list, _ := os.ReadDir(dir)
	now, _ := os.ReadFile(path)
	return fmt.Sprintf("%t %v %s", errors.Is(err, syscall.ENOSPC), list, now), nil
})

func TestFullDisk(t *testing.T) {
	t.Parallel()
	h := nstest.NewHost(t)
	got, err := fillDisk.Call(h.Command, strings.Repeat("x", 20<<10))
	if err != nil || got != "true [- wg0.conf] before" {
		t.Errorf("%q, %v", got, err)
	}
}
