package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// HideMemory keeps what is in the memory of the calling process, keys, from
// core files and from processes of the same user: no core is written, and
// nobody else may trace it or read its files in /proc (PR_SET_DUMPABLE,
// proc(5)).
func HideMemory() error {
	// The limit alone does not do: the kernel asks a core_pattern that is a
	// pipe whatever the limit, and never one of a process that is not dumpable.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	return setDumpable(0)
}

func setDumpable(value uintptr) error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, value, 0, 0, 0); err != nil {
		return fmt.Errorf("set dumpable attribute: %w", err)
	}
	return nil
}
