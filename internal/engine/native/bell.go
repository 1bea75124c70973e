package native

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// A bell wakes the one thread that waits for a file (eventfd(2)).
type bell struct {
	fd    int
	count [8]byte
	heard chan struct{} // tells of a wait that the bell has ended
}

func newBell() (*bell, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make event descriptor: %w", err)
	}
	return &bell{fd: fd, heard: make(chan struct{}, 1)}, nil
}

// wait returns when fd has something to read, or the bell has rung.
func (b *bell) wait(fd int) error {
	files := [2]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(b.fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(files[:], -1); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("poll: %w", err)
	}
	if files[1].Revents != 0 {
		_, _ = unix.Read(b.fd, b.count[:])
		select {
		case b.heard <- struct{}{}:
		default:
		}
	}
	return nil
}

func (b *bell) ring() {
	_, _ = unix.Write(b.fd, binary.NativeEndian.AppendUint64(nil, 1))
}

func (b *bell) close() { _ = unix.Close(b.fd) }
