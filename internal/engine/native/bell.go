package native

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A bell wakes the thread that waits for a file (eventfd(2)).
type bell struct {
	fd    int
	rung  atomic.Bool
	count [8]byte
	heard chan struct{} // tells that the thread is awake
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
	return nil
}

// answer has who rang know that nobody waits for the file as it was then. It costs
// nothing unless the bell has rung.
func (b *bell) answer() {
	if !b.rung.Load() {
		return
	}
	b.rung.Store(false)
	_, _ = unix.Read(b.fd, b.count[:])
	select {
	case b.heard <- struct{}{}:
	default:
	}
}

func (b *bell) ring() {
	_, _ = unix.Write(b.fd, binary.NativeEndian.AppendUint64(nil, 1))
	b.rung.Store(true)
}

func (b *bell) close() { _ = unix.Close(b.fd) }
