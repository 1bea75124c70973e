package nstest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Build builds the program of this module and returns its path. It is built
// once for a test process and removed at its end.
func Build(t testing.TB) string {
	t.Helper()
	mustBeTest()
	path, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var buildOnce = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "w4n-build")
	if err != nil {
		return "", err
	}
	processUndo = append(processUndo, func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "wireguard4netns")
	return path, goBuild(moduleRoot(), path, "wireguard4netns/cmd/wireguard4netns")
})

// goBuild builds pkg of the module in dir, as it is released: without cgo.
func goBuild(dir, output, pkg string) error {
	// git refuses to look at a checkout that is another user's.
	cmd := exec.Command(goTool(), "build", "-buildvcs=false", "-o", output, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, text)
	}
	return nil
}

// goTool is the go command, also where PATH does not have it.
func goTool() string {
	if path, err := exec.LookPath("go"); err == nil {
		return path
	}
	return "/usr/local/go/bin/go" // where go.dev/doc/install puts it
}

// moduleRoot is the directory of this module's go.mod. Tests run in their
// package's directory, which is below it.
func moduleRoot() string {
	dir := workingDir()
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil || dir == "/" {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// CacheDir keeps what takes long to make from one run of the tests to the
// next: $W4N_TEST_CACHE, or /var/tmp/w4n-test-cache.
func CacheDir() string {
	if dir := os.Getenv("W4N_TEST_CACHE"); dir != "" {
		return dir
	}
	return "/var/tmp/w4n-test-cache"
}

// cached returns the path of name in the cache, after make has made it there
// at the temporary path it is given. It appears by rename, so that test
// processes side by side never see it half made.
func cached(name string, make func(path string) error) (string, error) {
	path := filepath.Join(CacheDir(), name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("make test cache (set W4N_TEST_CACHE for another): %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(path), ".making-")
	if err != nil {
		return "", fmt.Errorf("make test cache (set W4N_TEST_CACHE for another): %w", err)
	}
	defer os.RemoveAll(tmp)
	made := filepath.Join(tmp, "made")
	if err := make(made); err != nil {
		return "", fmt.Errorf("make %s: %w", name, err)
	}
	err = os.Rename(made, path)
	if _, statErr := os.Stat(path); statErr == nil {
		return path, nil // ours, or another process was faster
	}
	return "", err
}

// moduleVersion is the version of a module that go.mod requires.
func moduleVersion(module string) (string, error) {
	text, err := os.ReadFile(filepath.Join(moduleRoot(), "go.mod"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(fields) >= 2 && fields[0] == module {
			return fields[1], nil
		}
	}
	return "", fmt.Errorf("go.mod requires no %s", module)
}
