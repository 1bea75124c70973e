package native

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A semaphore (E. W. Dijkstra's) for locked threads: who must wait sleeps in the
// kernel (eventfd(2)), who need not makes no system call. A sync.Mutex would have the
// Go scheduler move its processors from thread to thread.
type semaphore struct {
	count atomic.Int32 // less than zero: so many wait
	fd    int
}

func newSemaphore(count int32) (*semaphore, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_SEMAPHORE)
	if err != nil {
		return nil, fmt.Errorf("make event descriptor: %w", err)
	}
	s := &semaphore{fd: fd}
	s.count.Store(count)
	return s, nil
}

func (s *semaphore) acquire() {
	if s.count.Add(-1) >= 0 {
		return
	}
	var b [8]byte
	for {
		if _, err := unix.Read(s.fd, b[:]); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

func (s *semaphore) release() {
	if s.count.Add(1) <= 0 {
		var b [8]byte
		binary.NativeEndian.PutUint64(b[:], 1)
		_, _ = unix.Write(s.fd, b[:])
	}
}

func (s *semaphore) close() { _ = unix.Close(s.fd) }
