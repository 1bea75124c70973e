package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"wireguard4netns"
)

// noArgs refuses arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return &usageError{err: fmt.Errorf("%s: unexpected argument %q", cmd.Name(), args[0]), hint: "usage: " + cmd.UseLine()}
}

// checkWait refuses a time that was before the start.
func (f *tunnelFlags) checkWait() error {
	if f.wait < 0 {
		return &usageError{err: fmt.Errorf("--wait %s: negative", f.wait), hint: "a time such as 10s; without one it is 30s"}
	}
	return nil
}

// checkInside refuses what would be passed over without a word.
func (f *runFlags) checkInside() error {
	for _, path := range f.expose {
		if !filepath.IsAbs(path) {
			return &usageError{err: fmt.Errorf("--expose %s: not an absolute path", path), hint: "such as /run/user/1000/pulse"}
		}
		if _, err := os.Lstat(path); err != nil {
			return fmt.Errorf("--expose: %w", err)
		}
	}
	return nil
}

// checkTarget sees to it that a target that is a descriptor is open.
func checkTarget(t wireguard4netns.Target) error {
	if t.PID != 0 || t.Path != "" {
		return nil
	}
	if _, err := unix.FcntlInt(uintptr(t.FD), unix.F_GETFD, 0); err != nil {
		return &usageError{err: fmt.Errorf("%s: the descriptor is not open", t), hint: "open it in the shell, as in: 3</proc/PID/ns/net"}
	}
	return nil
}

// errCount is the mistake of asking for fewer descriptors than none.
var errCount = &usageError{err: errors.New("--preserve-fds: negative"), hint: "the number of descriptors after standard error, from 3 on"}
