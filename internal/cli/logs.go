package cli

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"wireguard4netns"
)

func newLogs(env *Env) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs [-f] NAME",
		Short: "Print what a tunnel has logged",
		Long: `Logs prints the log of a tunnel: ends of its engine and, if it was made with
--verbose, what WireGuard does. The last 256 KiB are kept, as long as the tunnel
stands. No key is in it.`,
		Example:           `  wireguard4netns logs home`,
		Args:              usage("NAME"),
		ValidArgsFunction: env.completeTunnels,
		RunE: func(cmd *cobra.Command, args []string) error {
			return logs(cmd, env, args[0], follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "print what comes, until the tunnel ends")
	return cmd
}

func logs(cmd *cobra.Command, env *Env, name string, follow bool) error {
	t, err := wireguard4netns.Open(env.stateRoot(), name)
	if err != nil {
		return err
	}
	s, err := t.Status()
	if err != nil {
		return err
	}
	file, err := os.Open(filepath.Join(s.Directory, "log"))
	if err != nil {
		return err
	}
	defer file.Close()
	if !follow {
		_, err := io.Copy(env.Stdout, file)
		return err
	}
	changes, err := watch(file.Name())
	if err != nil {
		return err
	}
	over := make(chan error, 1)
	go func() {
		over <- t.Wait(cmd.Context())
		changes.Close()
	}()
	err = followFile(env.Stdout, file, changes)
	changes.Close()
	if err != nil {
		return err
	}
	return <-over
}

// watch returns a file from which something can be read whenever the one at path
// was written to or cut off (inotify(7)).
func watch(path string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY); err != nil {
		f.Close()
		return nil, os.NewSyscallError("inotify_add_watch", err)
	}
	return f, nil
}

// followFile copies file, and what is added to it, until changes is closed.
func followFile(w io.Writer, file, changes *os.File) error {
	events := make([]byte, 4<<10)
	for ended := false; ; {
		if err := again(file); err != nil {
			return err
		}
		if _, err := io.Copy(w, file); err != nil || ended {
			return err
		}
		if _, err := changes.Read(events); errors.Is(err, os.ErrClosed) {
			ended = true // and a last look
		} else if err != nil {
			return err
		}
	}
}

// again goes back to the start of a file that has become shorter.
func again(file *os.File) error {
	at, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil && info.Size() < at {
		_, err = file.Seek(0, io.SeekStart)
	}
	return err
}
