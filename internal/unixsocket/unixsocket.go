// Package unixsocket makes the sockets that a tunnel has at paths.
package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Listener is a stream socket at a path. Its Close removes the socket if it is
// still ours there.
type Listener struct {
	*net.UnixListener
	path  string
	inode uint64
}

// Listen makes the socket at path with mode 0600. A socket at path on which nobody
// listens any more is replaced; anything else there is an error (EADDRINUSE,
// EEXIST). A process that is killed meanwhile leaves nothing but the socket.
func Listen(path string) (*Listener, error) {
	l, err := listen(path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

func listen(path string) (*Listener, error) {
	socket, err := bind(path)
	if errors.Is(err, unix.EADDRINUSE) {
		if err := stale(path); err != nil {
			return nil, err
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
		socket, err = bind(path)
	}
	if err != nil {
		return nil, err
	}
	l := &Listener{UnixListener: socket, path: path}
	if l.inode, err = inodeOf(path); err != nil {
		_ = socket.Close()
		return nil, err
	}
	return l, nil
}

// Close implements net.Listener.
func (l *Listener) Close() error {
	err := l.UnixListener.Close()
	if inode, statErr := inodeOf(l.path); statErr == nil && inode == l.inode {
		err = errors.Join(err, os.Remove(l.path))
	}
	return err
}

// bind goes through a descriptor of the directory: a socket's address holds
// 108 bytes, a path may be longer (unix(7)).
func bind(path string) (*net.UnixListener, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	name := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + filepath.Base(path)
	listener, err := (&net.ListenConfig{Control: makePrivate}).Listen(context.Background(), "unix", name)
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err // the name is of no use to anybody
	}
	if err != nil {
		return nil, err
	}
	socket := listener.(*net.UnixListener)
	socket.SetUnlinkOnClose(false) // Close looks first whose it is
	return socket, nil
}

// makePrivate sets the mode that the socket's file has from its first moment: that
// of the socket before bind.
func makePrivate(_, _ string, conn syscall.RawConn) error {
	var err error
	if controlErr := conn.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); controlErr != nil {
		return controlErr
	}
	return err
}

// stale returns nil when path is a socket on which nobody listens.
func stale(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return unix.EEXIST
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	conn, err := net.Dial("unix", "/proc/self/fd/"+strconv.Itoa(int(dir.Fd()))+"/"+filepath.Base(path))
	if err == nil {
		_ = conn.Close()
		return unix.EADDRINUSE
	}
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil
	}
	return err
}

func inodeOf(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	return st.Ino, nil
}
