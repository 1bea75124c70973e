package sandbox

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// HideMemory keeps what is in the memory of the calling process, keys, from
// core files and from processes of the same user: no core is written, and
// nobody without rights over the process may trace it or read its files in
// /proc (PR_SET_DUMPABLE, proc(5)).
//
// Its files in /proc then belong to root, so that it cannot map the users of a
// child in a new user namespace: it makes such children in Exposed.
func HideMemory() error {
	// The limit alone does not do: a core_pattern that is a pipe is fed
	// whatever the limit, but never by a process that is not dumpable (core(5)).
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	return setDumpable(0)
}

// exposing guards the one dumpable attribute that the process has.
var exposing sync.Mutex

// Exposed calls do while the memory of the process is not hidden, if it was,
// and hides it again.
func Exposed(do func() error) error {
	exposing.Lock()
	defer exposing.Unlock()
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("get dumpable attribute: %w", err)
	}
	if dumpable != 0 {
		return do()
	}
	if err := setDumpable(1); err != nil {
		return err
	}
	return errors.Join(do(), setDumpable(0))
}

func setDumpable(value uintptr) error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, value, 0, 0, 0); err != nil {
		return fmt.Errorf("set dumpable attribute: %w", err)
	}
	return nil
}
