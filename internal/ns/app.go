package ns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/sys"
)

// Errors of starting a program, after which env(1) exits with 127 and 126.
var (
	ErrNotFound      = errors.New("no such program")
	ErrNotExecutable = errors.New("the program cannot be executed")
	ErrNoDirectory   = errors.New("not there inside")
)

// App is a program to start in the namespaces.
type App struct {
	Args    []string // Args[0] is looked up in PATH of Env, inside
	Env     []string
	Dir     string // working directory, absolute
	MapRoot bool   // the app sees itself as root, with no more rights than otherwise

	Output *os.File // for standard output and error; nil: those of this process

	// PreserveFDs descriptors after standard error are passed on; 0 as a rule.
	PreserveFDs int
}

// Start starts the app as a child of this process, nested in a user namespace
// and a mount namespace of its own, and returns its pid once it runs. The app has
// no capability over the link, the routes or the mounts of the Set. See sys.Nest
// for what it inherits.
func (s *Set) Start(app App) (pid int, err error) {
	uid, gid := os.Getuid(), os.Getgid()
	innerUID, innerGID := uid, gid
	if app.MapRoot {
		innerUID, innerGID = 0, 0
	}
	n := sys.Nest{
		UserNS: int(s.User.Fd()), NetNS: int(s.Net.Fd()), MountNS: int(s.Mount.Fd()),
		UIDMap: fmt.Sprintf("%d %d 1", innerUID, uid), GIDMap: fmt.Sprintf("%d %d 1", innerGID, gid),
		Dir: app.Dir, Path: candidates(app.Args[0], app.Env), Args: app.Args, Env: app.Env,
		FirstClosed: 3 + app.PreserveFDs,
	}
	if app.Output != nil {
		n.Output = int(app.Output.Fd())
	}
	pid, err = n.Start()
	var step *sys.StepError
	if !errors.As(err, &step) {
		return pid, err
	}
	switch {
	case step.Step == sys.StepExec && errors.Is(step.Err, fs.ErrNotExist):
		return 0, fmt.Errorf("exec %s: %w", app.Args[0], ErrNotFound)
	case step.Step == sys.StepExec:
		return 0, fmt.Errorf("exec %s: %w: %w", app.Args[0], ErrNotExecutable, step.Err)
	case step.Step == sys.StepChdir && errors.Is(step.Err, fs.ErrNotExist):
		return 0, fmt.Errorf("change directory to %s: %w: %w", app.Dir, ErrNoDirectory, step.Err)
	case step.Step == sys.StepChdir:
		return 0, &fs.PathError{Op: "change directory to", Path: app.Dir, Err: step.Err}
	case step.Step == sys.StepNest:
		return 0, startError(step.Err)
	}
	return 0, fmt.Errorf("start %s: %w", app.Args[0], err)
}

// hookCapabilities is what a hook of wg-quick(8) may need: ip(8), sysctl(8),
// nft(8) and iptables(8).
var hookCapabilities = []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_SYS_ADMIN, unix.CAP_DAC_OVERRIDE}

// StartPrivileged starts a program that has capabilities over the namespaces.
// output is where it writes; it is borrowed.
func (s *Set) StartPrivileged(args, env []string, output int) (pid int, err error) {
	n := sys.Nest{
		UserNS: int(s.User.Fd()), NetNS: int(s.Net.Fd()), MountNS: int(s.Mount.Fd()),
		Joined: true, Capabilities: hookCapabilities, Output: output,
		Dir: "/", Path: []string{args[0]}, Args: args, Env: env, FirstClosed: 3,
	}
	return n.Start()
}

// candidates returns where execvp(3) looks for a program.
func candidates(name string, env []string) []string {
	if strings.Contains(name, "/") || name == "" {
		return []string{name}
	}
	path := "/usr/local/bin:/usr/bin:/bin"
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	var list []string
	for _, dir := range filepath.SplitList(path) {
		if dir == "" {
			dir = "."
		}
		list = append(list, dir+"/"+name)
	}
	return list
}

// Files returns the descriptors in the order user, network, mount; they stay the
// Set's.
func (s *Set) Files() []*os.File { return []*os.File{s.User, s.Net, s.Mount} }

// FromFiles makes a Set of what Files returned elsewhere, and owns them.
func FromFiles(files []*os.File) (*Set, error) {
	if len(files) != 3 {
		return nil, fmt.Errorf("namespaces: %d descriptors: %w", len(files), unix.EBADMSG)
	}
	return &Set{User: files[0], Net: files[1], Mount: files[2]}, nil
}
