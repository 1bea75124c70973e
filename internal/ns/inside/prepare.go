package inside

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Prepare makes the mounts and settings of cfg in the namespaces of the calling
// process, which must be new ones that belong to its user namespace, and in
// which it needs CAP_SYS_ADMIN and CAP_NET_ADMIN. It sets the umask to 022.
//
// It stops at the first error, and leaves what it did: the namespaces are to be
// dropped then. layer is what Rewrite takes, nil if cfg has no files of our own.
// notes are lines about what the app will miss without being less shut in.
//
// The mounts are in the order in which they are made:
//
//	/            slave of the host's: disks that the host mounts later appear,
//	             those that it unmounts are let go. Where the host mounts over
//	             a place that we mounted over, the kernel puts it beneath ours
//	             (mount_namespaces(7), propagation onto a mount point in use),
//	             so that nothing is uncovered. With private mounts an unmounted
//	             stick would stay in use, and not be written out, for as long
//	             as the tunnel lives.
//	/etc         see etc.go
//	/run         see run.go
//	hidden       empty directories and files, through the new /etc and /run
//	/sys         see sysfs.go
//
// They hold against an app in a user namespace below this one and a mount
// namespace of its own: there each of them is locked.
func Prepare(cfg Config) (layer *os.File, notes []string, err error) {
	unix.Umask(0o022)
	note := func(err error) {
		if err != nil {
			notes = append(notes, err.Error())
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return nil, nil, fmt.Errorf("make mounts slaves of the host's: %w", err)
	}
	hide := func(paths []string) []string {
		return slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return slices.Contains(cfg.Expose, p) })
	}
	files := hide(cfg.HideFiles)

	var empty place
	if cfg.Etc != nil || len(files) > 0 {
		s, err := newScratch(cfg.Etc)
		if err != nil {
			return nil, nil, err
		}
		defer s.close()
		if err := s.replaceEtc(cfg.Etc); err != nil {
			return nil, nil, err
		}
		if cfg.Etc != nil {
			layer = s.takeLayer()
		}
		empty = s.empty
	}
	for _, dir := range cfg.Run {
		missed, err := replaceRun(dir, cfg)
		if err != nil {
			return nil, nil, err
		}
		notes = append(notes, missed...)
	}
	for _, dir := range hide(cfg.HideDirs) {
		if err := hideDir(dir); err != nil {
			return nil, nil, err
		}
	}
	for _, file := range files {
		if err := hideFile(file, empty); err != nil {
			return nil, nil, err
		}
	}
	note(freshSysfs())
	note(allowPing())
	return layer, notes, nil
}
