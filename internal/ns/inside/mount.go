package inside

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// device is what /proc/mounts shows as the source of mounts of our own.
const device = "wireguard4netns"

// sealed are the flags of what only has to be there and to be empty.
const sealed = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

func mount(fstype, target string, flags uintptr, options string) error {
	if err := unix.Mount(device, target, fstype, flags, options); err != nil {
		return fmt.Errorf("mount %s on %s: %w", fstype, target, err)
	}
	return nil
}

// bind shows source, with the mounts below it, also at target. Without
// MS_REC the kernel refuses a source below which it locked mounts, as it does
// with all that a less privileged mount namespace inherits
// (mount_namespaces(7)).
func bind(source, target string) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s on %s: %w", source, target, err)
	}
	return nil
}

// bindReadOnly is bind of what lies in a tmpfs of our own.
func bindReadOnly(source, target string) error {
	if err := bind(source, target); err != nil {
		return err
	}
	return remountReadOnly(target)
}

// remountReadOnly makes the one mount at target, not those below it, read-only.
// The flags that it has already are repeated: they may be locked, and then
// leaving one out is EPERM.
func remountReadOnly(target string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(target, &st); err != nil {
		return fmt.Errorf("stat file system of %s: %w", target, err)
	}
	flags := unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | mountFlags(int64(st.Flags))
	if err := unix.Mount("", target, "", flags, ""); err != nil {
		return fmt.Errorf("remount %s read-only: %w", target, err)
	}
	return nil
}

// mountFlags translates the f_flags of statfs(2) to the flags of mount(2):
// the same words in other bits.
func mountFlags(statfs int64) uintptr {
	table := []struct {
		st int64
		ms uintptr
	}{
		{unix.ST_RDONLY, unix.MS_RDONLY},
		{unix.ST_NOSUID, unix.MS_NOSUID},
		{unix.ST_NODEV, unix.MS_NODEV},
		{unix.ST_NOEXEC, unix.MS_NOEXEC},
		{unix.ST_NOATIME, unix.MS_NOATIME},
		{unix.ST_NODIRATIME, unix.MS_NODIRATIME},
		{unix.ST_RELATIME, unix.MS_RELATIME},
		{unix.ST_SYNCHRONOUS, unix.MS_SYNCHRONOUS},
		{unix.ST_MANDLOCK, unix.MS_MANDLOCK},
	}
	var flags uintptr
	for _, row := range table {
		if statfs&row.st != 0 {
			flags |= row.ms
		}
	}
	return flags
}

// A place holds a file or directory of the mount tree by descriptor, so that it
// can be reached when something is mounted over it.
type place struct{ *os.File }

func hold(path string) (place, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return place{}, fmt.Errorf("open %s: %w", path, err)
	}
	return place{os.NewFile(uintptr(fd), path)}, nil
}

// path names p for system calls, past all that is mounted over it.
func (p place) path() string { return "/proc/self/fd/" + strconv.Itoa(int(p.Fd())) }

// cloneTree copies the mount at path, with those below it, as bind does, but
// holds it without a place in the tree; attach gives it one. Linux 5.2.
func cloneTree(path string) (place, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return place{}, fmt.Errorf("clone mounts at %s: %w", path, err)
	}
	return place{os.NewFile(uintptr(fd), path)}, nil
}

func (p place) attach(target string) error {
	err := unix.MoveMount(int(p.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("attach %s at %s: %w", p.Name(), target, err)
	}
	return nil
}
