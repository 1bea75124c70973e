package tunnel

import (
	"errors"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestShell(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		command string
		lines   []string
		code    int
	}{
		"lines":   {"echo one; echo two >&2; printf three", []string{"one", "two", "three"}, 0},
		"fails":   {"echo why; exit 3", []string{"why"}, 3},
		"told":    {"echo $FACT; pwd", []string{"a fact", "/"}, 0},
		"no UTF8": {`printf 'a\377b\n'`, []string{"a?b"}, 0},
		"long":    {"printf %5000s x", []string{strings.Repeat(" ", outsideLine), strings.Repeat(" ", 5000-outsideLine-1) + "x"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var lines []string
			output := &logWriter{line: func(l string) { lines = append(lines, l) }}
			err := shell(c.command, []string{"PATH=/usr/bin:/bin", "FACT=a fact"}, t.TempDir()+"/gone", time.Minute, output)
			var exit *exec.ExitError
			if code := 0; errors.As(err, &exit) && exit.ExitCode() != c.code || err == nil && code != c.code {
				t.Errorf("%v, not exit code %d", err, c.code)
			}
			if !slices.Equal(lines, c.lines) {
				t.Errorf("%q, not %q", lines, c.lines)
			}
		})
	}
}

// A command that does not end is killed with what it has started; what one that
// ends leaves in the background is not.
func TestShellEnds(t *testing.T) {
	t.Parallel()
	child := func(command string, limit time.Duration) (pid int, err error) {
		output := &logWriter{line: func(l string) { pid, _ = strconv.Atoi(l) }}
		err = shell(command, []string{"PATH=/usr/bin:/bin"}, "/", limit, output)
		if pid == 0 {
			t.Fatalf("%s: no child, %v", command, err)
		}
		return pid, err
	}
	pid, err := child("sleep 1000 & echo $!; wait", 500*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "ended after 500ms") {
		t.Error(err)
	}
	if !gone(pid) {
		t.Errorf("process %d is left", pid)
	}
	pid, err = child("sleep 1000 & echo $!", time.Minute)
	if err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("what it left in the background: %v", err)
	}
}

// gone waits for the end of a process that was killed.
func gone(pid int) bool {
	for range 500 {
		stat, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
		if err != nil || strings.HasPrefix(string(stat), "Z") {
			return true
		}
	}
	return false
}
