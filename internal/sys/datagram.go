package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Datagram is what sendmsg(2) and recvmsg(2) are given, kept from call to call
// so that none allocates. Name is a socket address and control are ancillary
// messages, both as the kernel has them; either may be empty. It must not be
// used by two at a time.
type Datagram struct {
	header unix.Msghdr
	vector unix.Iovec
}

// Send sends one message without waiting. It must not block: the caller's
// socket is non-blocking.
func (d *Datagram) Send(fd int, name, control, payload []byte) error {
	d.set(name, control, payload)
	_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&d.header)), unix.MSG_NOSIGNAL)
	d.forget()
	if errno != 0 {
		return errno
	}
	return nil
}

// Receive receives one message into the three slices, without waiting: EAGAIN
// when there is none. It returns how much of payload and of control is used, and
// the flags of msghdr.
func (d *Datagram) Receive(fd int, name, control, payload []byte) (n, controlled, flags int, err error) {
	d.set(name, control, payload)
	size, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&d.header)), unix.MSG_DONTWAIT)
	controlled, flags = int(d.header.Controllen), int(d.header.Flags)
	d.forget()
	if errno != 0 {
		return 0, 0, 0, errno
	}
	return int(size), controlled, flags, nil
}

func (d *Datagram) set(name, control, payload []byte) {
	d.header.Name, d.header.Namelen = unsafe.SliceData(name), uint32(len(name))
	d.header.Control = unsafe.SliceData(control)
	d.header.SetControllen(len(control))
	d.vector.Base = unsafe.SliceData(payload)
	d.vector.SetLen(len(payload))
	d.header.Iov = &d.vector
	d.header.SetIovlen(1)
}

// forget lets go of the slices, which are borrowed for the call.
func (d *Datagram) forget() {
	d.header = unix.Msghdr{}
	d.vector = unix.Iovec{}
}

// A Gather is a list of pieces that writev(2) writes as one. It holds on to them
// until Reset.
type Gather struct{ vectors []unix.Iovec }

// NewGather returns a list with room for so many pieces.
func NewGather(pieces int) Gather { return Gather{make([]unix.Iovec, 0, pieces)} }

// Add appends a piece; the list must have room.
func (g *Gather) Add(piece []byte) {
	g.vectors = g.vectors[:len(g.vectors)+1]
	v := &g.vectors[len(g.vectors)-1]
	v.Base = unsafe.SliceData(piece)
	v.SetLen(len(piece))
}

// Reset empties the list.
func (g *Gather) Reset() { g.vectors = g.vectors[:0] }

// Write writes the pieces without waiting: the file is non-blocking.
func (g *Gather) Write(fd int) error {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(g.vectors))), uintptr(len(g.vectors)))
	if errno != 0 {
		return errno
	}
	return nil
}

// ReadNow is read(2) on a non-blocking file, without telling the Go scheduler,
// which would take its processor away from a thread that is longer in the kernel
// than a few microseconds.
func ReadNow(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
