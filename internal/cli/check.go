package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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

// optional refuses more arguments than those.
func optional(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) <= len(names) {
			return nil
		}
		return usage(names...)(cmd, args)
	}
}

// flagError says of a flag's value what it is to be, in the place of how Go says it.
func flagError(cmd *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		want := map[string]string{"bool": "true or false", "int": "a number", "duration": "a time such as 10s"}[invalid.GetFlag().Value.Type()]
		if want != "" {
			err = fmt.Errorf("--%s %q: not %s", invalid.GetFlag().Name, invalid.GetValue(), want)
		}
	}
	return &usageError{err: err, hint: "see " + cmd.CommandPath() + " --help"}
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
