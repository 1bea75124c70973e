package waiter

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/ns"
	"wireguard4netns/internal/sys"
)

// Become turns the process into a waiter. It returns only with an error, of which
// the app knows nothing.
func Become(c Config) error {
	keep := []*os.File{c.Socket}
	if c.NS != nil {
		keep = append(keep, c.NS.Files()...)
	}
	fds := make([]string, len(keep))
	for i, f := range keep {
		fds[i] = strconv.Itoa(int(f.Fd()))
		if err := setInherited(int(f.Fd())); err != nil {
			return err
		}
	}
	for fd := 3; fd < 3+c.App.PreserveFDs; fd++ {
		if err := setInherited(fd); err != nil {
			return err
		}
	}
	// All can see the arguments (ps): nothing secret is among them.
	args := []string{Argv0,
		"--fds=" + strings.Join(fds, ","),
		"--supervisor=" + strconv.Itoa(c.Supervisor),
		"--root=" + c.Root,
		"--dir=" + c.App.Dir,
		"--preserve-fds=" + strconv.Itoa(c.App.PreserveFDs),
		"--map-root=" + strconv.FormatBool(c.App.MapRoot),
		"--kill-on-exit=" + strconv.FormatBool(c.KillAfter),
		"--"}
	args = append(args, c.App.Args...)
	if err := sys.ResetSignals(passed()); err != nil {
		return err
	}
	return &os.PathError{Op: "exec", Path: "/proc/self/exe", Err: syscall.Exec("/proc/self/exe", args, c.App.Env)}
}

// setInherited has the next program find fd open.
func setInherited(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
	return os.NewSyscallError("fcntl", err)
}

// parse reads what Become wrote, and makes the descriptors ours alone.
func parse(args []string) (c Config, err error) {
	var fds string
	f := flag.NewFlagSet(Argv0, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&fds, "fds", "", "")
	f.IntVar(&c.Supervisor, "supervisor", 0, "")
	f.StringVar(&c.Root, "root", "", "")
	f.StringVar(&c.App.Dir, "dir", "", "")
	f.IntVar(&c.App.PreserveFDs, "preserve-fds", 0, "")
	f.BoolVar(&c.App.MapRoot, "map-root", false, "")
	f.BoolVar(&c.KillAfter, "kill-on-exit", false, "")
	if err := f.Parse(args[1:]); err != nil {
		return c, fmt.Errorf("%s is started by wireguard4netns run: %w", Argv0, err)
	}
	c.App.Args, c.App.Env = f.Args(), os.Environ()
	var files []*os.File
	for _, text := range strings.Split(fds, ",") {
		fd, err := strconv.Atoi(text)
		if err != nil {
			return c, fmt.Errorf("%s is started by wireguard4netns run: %w", Argv0, err)
		}
		unix.CloseOnExec(fd)
		files = append(files, os.NewFile(uintptr(fd), "inherited"))
	}
	c.Socket = files[0]
	if len(c.App.Args) > 0 {
		c.NS, err = ns.FromFiles(files[1:])
	}
	return c, err
}
