package inside

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const sys = "/sys"

// freshSysfs puts a sysfs of the new network namespace over the host's, with
// what is mounted below that (control groups and such) brought over. The
// host's would show the host's links, with their hardware addresses, in
// /sys/class/net. The kernel allows it only where the sysfs that is there
// already is a whole one (mount_too_revealing), so not in most containers.
func freshSysfs() error {
	var st unix.Statfs_t
	if err := unix.Statfs(sys, &st); err != nil || st.Type != unix.SYSFS_MAGIC {
		return nil
	}
	children, err := mountsBelow(sys)
	if err != nil {
		return fmt.Errorf("show links in /sys: %w", err)
	}
	host, err := hold(sys)
	if err != nil {
		return fmt.Errorf("show links in /sys: %w", err)
	}
	defer host.Close()
	flags := unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | mountFlags(int64(st.Flags))
	if err := mount("sysfs", sys, flags, ""); err != nil {
		return fmt.Errorf("show links in /sys: %w", err)
	}
	var errs []error
	for _, child := range children {
		if err := bind(filepath.Join(host.path(), child), filepath.Join(sys, child)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// mountsBelow lists, relative to dir, what is mounted below it, but not what
// is mounted below that. In mountinfo (proc_pid_mountinfo(5)) a mount comes
// after the one that it is mounted on.
func mountsBelow(dir string) ([]string, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var names []string
	inside := func(point string) bool {
		for _, name := range names {
			if point == name || strings.HasPrefix(point, name+"/") {
				return true
			}
		}
		return false
	}
	for line := range bytes.Lines(table) {
		const mountPoint = 4
		fields := strings.Fields(string(line))
		if len(fields) <= mountPoint {
			continue
		}
		name, ok := strings.CutPrefix(fields[mountPoint], dir+"/")
		if ok && !inside(name) {
			names = append(names, name)
		}
	}
	return names, nil
}
