package ns

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Create makes a user, a network and a mount namespace and has the program in
// the role argv0 prepare them from inside: it gets config on descriptor 3,
// answers one line ("ok" or what went wrong) and ends when the descriptor is
// closed. The namespaces stay, held by the Set.
//
//	supervisor                      inside
//	config, end of stream  ──▶      prepares
//	                       ◀──      "ok\n" or "<error>\n"
//	opens /proc/PID/ns/*
//	closes                 ──▶      exits
//
// The process that asks keeps its uid and gid inside; the process inside has
// the capabilities over the new namespaces by its ambient set.
func Create(ctx context.Context, argv0 string, config []byte) (*Set, error) {
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	uid, gid := os.Getuid(), os.Getgid()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{argv0}
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
		return nil, startError(err)
	}
	defer cmd.Wait()
	defer ours.Close() // before Wait: it is what the process waits for

	if _, err := ours.Write(config); err != nil {
		return nil, fmt.Errorf("prepare namespaces: %w", err)
	}
	if err := unix.Shutdown(int(ours.Fd()), unix.SHUT_WR); err != nil {
		return nil, fmt.Errorf("prepare namespaces: %w", err)
	}
	reply, err := bufio.NewReader(ours).ReadString('\n')
	if err == io.EOF {
		err = errors.New("the process inside ended without a word")
	}
	if err != nil {
		return nil, fmt.Errorf("prepare namespaces: %w", err)
	}
	if reply = strings.TrimSpace(reply); reply != "ok" {
		return nil, fmt.Errorf("prepare namespaces: %s", reply)
	}
	return openSet(cmd.Process.Pid)
}

// openSet holds the namespaces that process pid is in.
func openSet(pid int) (*Set, error) {
	s := new(Set)
	for name, f := range map[string]**os.File{"user": &s.User, "net": &s.Net, "mnt": &s.Mount} {
		var err error
		if *f, err = os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, name)); err != nil {
			s.Close()
			return nil, err
		}
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
