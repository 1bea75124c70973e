package ns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/ns/inside"
)

// Create makes a user, a network and a mount namespace and has a process of the
// role inside prepare them as config says. The process keeps the asker's uid and
// gid, and has capabilities over the new namespaces by its ambient set. It ends;
// the namespaces stay, held by the Set. notes is what an app will miss.
func Create(ctx context.Context, config inside.Config) (s *Set, notes []string, err error) {
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, nil, err
	}
	defer ours.Close()
	uid, gid := os.Getuid(), os.Getgid()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{inside.Argv0}
	cmd.Env = []string{"GOTRACEBACK=none"}
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}},
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_SYS_CHROOT},
		Pdeathsig:   unix.SIGKILL,
	}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return nil, nil, startError(err)
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	defer stop()
	layer, notes, err := inside.Ask(ours, config)
	if err == nil {
		s, err = openSet(cmd.Process.Pid, layer)
	}
	ours.Close() // it waits for that
	cmd.Wait()
	if err == nil && ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), s.Close())
		s = nil
	}
	return s, notes, err
}

// openSet holds the namespaces that process pid is in, and the layer of its /etc
// that it has as descriptor layer, if that is not negative.
func openSet(pid, layer int) (*Set, error) {
	s := new(Set)
	for name, f := range map[string]**os.File{"user": &s.User, "net": &s.Net, "mnt": &s.Mount} {
		var err error
		if *f, err = os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, name)); err != nil {
			s.Close()
			return nil, err
		}
	}
	if layer >= 0 {
		path := fmt.Sprintf("/proc/%d/fd/%d", pid, layer)
		fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			s.Close()
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
		s.Etc = os.NewFile(uintptr(fd), path)
	}
	return s, nil
}

// socketpair returns the two ends of a stream.
func socketpair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "socketpair"), os.NewFile(uintptr(fds[1]), "socketpair"), nil
}
