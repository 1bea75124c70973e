package nstest

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Snapshot is what exists in a Host at one moment: its processes, the netns
// that they hold by living in them or by an open file, the mounts of its
// mntns, its links, and the files below some directories.
type Snapshot struct {
	host *Host
	dirs []string
	what map[string]bool
}

// TakeSnapshot looks at a Host and at the files below dirs, which are paths
// inside it.
func TakeSnapshot(t testing.TB, h *Host, dirs ...string) *Snapshot {
	t.Helper()
	s := &Snapshot{host: h, dirs: dirs}
	s.what = s.look(t)
	return s
}

// Check fails the test if something exists now that did not when the snapshot
// was taken, after giving it some seconds to go away.
func (s *Snapshot) Check(t testing.TB) {
	t.Helper()
	err := poll(15*time.Second, func() error {
		if more := s.Since(t); len(more) > 0 {
			return fmt.Errorf("left behind:\n\t%s", strings.Join(more, "\n\t"))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Since lists what exists now and did not when the snapshot was taken.
func (s *Snapshot) Since(t testing.TB) []string {
	t.Helper()
	now := s.look(t)
	maps.DeleteFunc(now, func(thing string, _ bool) bool { return s.what[thing] })
	return slices.Sorted(maps.Keys(now))
}

func (s *Snapshot) look(t testing.TB) map[string]bool {
	t.Helper()
	what := map[string]bool{}
	for _, p := range s.host.Processes() {
		what[fmt.Sprintf("process %s (%d)", p.Command, p.PID)] = true
		for _, netns := range netnsOf(p.PID) {
			what["netns "+netns] = true
		}
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", s.host.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		// proc_pid_mountinfo(5): field 5 is the mount point.
		what["mount "+strings.Fields(line)[4]+" ("+strings.TrimSpace(line)+")"] = true
	}
	for line := range strings.Lines(s.host.Run(t, "ip", "-oneline", "link")) {
		what["link "+strings.Fields(line)[1]] = true
	}
	for _, dir := range s.dirs {
		root := s.host.Path(dir)
		filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err == nil && path != root {
				what["file "+dir+strings.TrimPrefix(path, root)] = true
			}
			return nil
		})
	}
	return what
}

// netnsOf lists the netns that a process lives in or has open, as net:[inode].
func netnsOf(pid int) []string {
	var list []string
	names := []string{nsPath(pid, "net")}
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, name := range append(names, fds...) {
		if target, err := os.Readlink(name); err == nil && strings.HasPrefix(target, "net:[") {
			list = append(list, target)
		}
	}
	return list
}
