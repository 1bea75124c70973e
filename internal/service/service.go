// Package service tells a service manager how a service is, over the socket and in
// the words of sd_notify(3).
//
// Both processes of a named tunnel speak: the one that `up` is tells that the
// tunnel is ready and which process stays, and that process tells the rest.
package service

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sendTime bounds how long a manager that reads nothing is waited for.
const sendTime = 5 * time.Second

// Manager is who started this process as a service. Of the zero Manager there is
// none, and what it is told is lost.
type Manager struct {
	Socket   string        // NOTIFY_SOCKET: absolute, or abstract with a leading @
	Watchdog time.Duration // the manager ends a service that is silent for so long; 0: it does not
}

// FromEnvironment reads what the manager told process pid; get returns a variable,
// or nothing. A socket of a kind that unix(7) does not know is left out.
func FromEnvironment(get func(name string) string, pid int) Manager {
	var m Manager
	if s := get("NOTIFY_SOCKET"); len(s) > 1 && (s[0] == '/' || s[0] == '@') {
		m.Socket = s
	}
	usec, err := strconv.ParseInt(get("WATCHDOG_USEC"), 10, 64)
	if whose := get("WATCHDOG_PID"); m.Socket != "" && err == nil && usec > 0 && (whose == "" || whose == strconv.Itoa(pid)) {
		m.Watchdog = time.Duration(usec) * time.Microsecond
	}
	return m
}

// Stored returns the descriptors that the manager kept for the service and gives to
// its next process pid, by their names (sd_listen_fds_with_names(3)). They are the
// caller's, and not inherited further. It is to be called before anything else has
// descriptors marked close-on-exec, or not: by that those of the manager are told from
// those that the Go runtime has opened. An error is that the manager has promised
// others than there are.
func Stored(get func(name string) string, pid int) (map[string]*os.File, error) {
	n, err := strconv.Atoi(get("LISTEN_FDS"))
	if err != nil || n <= 0 || get("LISTEN_PID") != strconv.Itoa(pid) {
		return nil, nil
	}
	names := strings.Split(get("LISTEN_FDNAMES"), ":")
	if n > maxStored || len(names) != n {
		return nil, fmt.Errorf("take what the service manager kept: %d descriptors, %d names", n, len(names))
	}
	for i, name := range names {
		flags, err := unix.FcntlInt(uintptr(firstStored+i), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			return nil, fmt.Errorf("take what the service manager kept: descriptor %d (%s) is not open", firstStored+i, name)
		}
	}
	files := map[string]*os.File{}
	for i, name := range names {
		unix.CloseOnExec(firstStored + i)
		if files[name] != nil {
			files[name].Close()
		}
		files[name] = os.NewFile(uintptr(firstStored+i), name)
	}
	return files, nil
}

const (
	firstStored = 3 // SD_LISTEN_FDS_START
	maxStored   = 16
)

// What a manager can be told.
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
	Alive    = "WATCHDOG=1"
)

// Reloading begins a reload, which Ready ends.
func Reloading() string {
	var now unix.Timespec
	// It cannot fail: the clock is always there.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000)
}

// MainPID names the process that the service is from now on.
func MainPID(pid int) string { return "MAINPID=" + strconv.Itoa(pid) }

// Status is a line for people.
func Status(text string) string {
	return "STATUS=" + strings.ReplaceAll(text, "\n", "; ")
}

// Tell sends lines, all in one message. It is safe for concurrent use.
func (m Manager) Tell(lines ...string) error { return m.Send(nil, lines...) }

// Send is Tell with descriptors, which stay the caller's.
func (m Manager) Send(files []*os.File, lines ...string) error {
	if m.Socket == "" {
		return nil
	}
	if err := m.send(files, strings.Join(lines, "\n")); err != nil {
		return fmt.Errorf("tell the service manager at %s: %w", m.Socket, err)
	}
	return nil
}

// send uses a socket for each message: the manager may be another by then. Package
// net sends no descriptors over a datagram socket that is connected.
func (m Manager) send(files []*os.File, text string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(sendTime.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	for {
		err := unix.Sendmsg(fd, []byte(text), rights, &unix.SockaddrUnix{Name: m.Socket}, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}
