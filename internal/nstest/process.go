package nstest

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Process is a process seen in /proc.
type Process struct {
	PID     int
	Command string
}

func (p Process) String() string { return fmt.Sprintf("%d %s", p.PID, p.Command) }

func (p Process) kill() { syscall.Kill(p.PID, syscall.SIGKILL) }

// Processes lists the processes in the Host: those whose userns is the Host's
// or is nested in it, in whatever netns, without the Host's own holder.
func (h *Host) Processes() []Process {
	host, err := inode(nsPath(h.PID(), "user"))
	if err != nil {
		return nil
	}
	return processes(func(pid int) bool { return pid != h.PID() && inUserns(pid, host) })
}

// processes lists the living processes for which want is true.
func processes(want func(pid int) bool) []Process {
	entries, _ := os.ReadDir("/proc")
	var list []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || zombie(pid) || !want(pid) {
			continue
		}
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		list = append(list, Process{pid, string(bytes.TrimSpace(bytes.ReplaceAll(args, []byte{0}, []byte{' '})))})
	}
	return list
}

// inUserns tells whether the userns of pid is the one with the given inode or
// descends from it.
func inUserns(pid int, ancestor uint64) bool {
	fd, err := unix.Open(nsPath(pid, "user"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	for err == nil {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Ino == ancestor {
			unix.Close(fd)
			return true
		}
		var parent int
		// EPERM above the userns that the test runs in: ioctl_ns(2).
		parent, err = unix.IoctlRetInt(fd, unix.NS_GET_PARENT)
		unix.Close(fd)
		fd = parent
	}
	return false
}

func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, ok := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " ")
	return !ok || strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}

// nsPath is the file of a process's namespace of the given kind.
func nsPath(pid int, kind string) string { return fmt.Sprintf("/proc/%d/ns/%s", pid, kind) }

func inode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}
