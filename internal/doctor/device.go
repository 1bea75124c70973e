package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/ns"
)

const tunPath = "/dev/net/tun"

func (m *Machine) tun(context.Context) Finding {
	f, err := os.OpenFile(tunPath, os.O_RDWR, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return m.failure(fmt.Errorf("%w: %w", ns.ErrNoTUN, errors.Unwrap(err)))
	case errors.Is(err, fs.ErrPermission):
		return m.failure(fmt.Errorf("%w: %w", ns.ErrTUNDenied, errors.Unwrap(err)))
	case err != nil:
		return m.failure(err)
	}
	f.Close()
	return ok("%s can be opened", tunPath)
}

// Offloads of a TUN that hand over large packets whole.
const (
	tcpOffloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	udpOffloads = unix.TUN_F_USO4 | unix.TUN_F_USO6
)

func (m *Machine) tunOffload(ctx context.Context) Finding {
	s, err := m.Create(ctx)
	if err != nil {
		return m.failure(err)
	}
	defer s.Close()
	tun, netlink, err := s.Interface("doctor")
	if err != nil {
		return m.failure(err)
	}
	defer tun.Close()
	defer netlink.Close()
	if err := unix.IoctlSetInt(int(tun.Fd()), unix.TUNSETOFFLOAD, tcpOffloads); err != nil {
		return note(Advice{Why: "each packet costs a system call"}, "the TUN device has no offloads: %v", err)
	}
	if err := unix.IoctlSetInt(int(tun.Fd()), unix.TUNSETOFFLOAD, tcpOffloads|udpOffloads); err != nil {
		return ok("TCP segmentation; not that of UDP, which comes with Linux 6.2")
	}
	return ok("TCP and UDP segmentation")
}

// udpOffload: the host's sockets send and receive several datagrams in one.
func (m *Machine) udpOffload(context.Context) Finding {
	fd, err := udpSocket()
	if err != nil {
		return m.failure(err)
	}
	defer unix.Close(fd)
	_, errGSO := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
	errGRO := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
	if errGSO != nil || errGRO != nil {
		return note(Advice{Why: "each packet costs a system call"}, "UDP sockets lack offloads: GSO %s, GRO %s", word(errGSO), word(errGRO))
	}
	return ok("UDP sockets have GSO and GRO")
}

// wantedBuffer is what the engine asks for, in bytes.
const wantedBuffer = 7 << 20

func (m *Machine) receiveBuffer(context.Context) Finding {
	fd, err := udpSocket()
	if err != nil {
		return m.failure(err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, wantedBuffer); err != nil {
		return m.failure(os.NewSyscallError("setsockopt", err))
	}
	got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil {
		return m.failure(os.NewSyscallError("getsockopt", err))
	}
	got /= 2 // the kernel doubles it for its own account, socket(7)
	if got < wantedBuffer {
		a := allow("net.core.rmem_max", fmt.Sprint(got), fmt.Sprint(wantedBuffer))
		a.Why += ", and packets may be lost when many come at once"
		return note(a, "a socket buffers %d KiB at most", got>>10)
	}
	return ok("a socket buffers %d KiB", got>>10)
}

func word(err error) string {
	if err != nil {
		return err.Error()
	}
	return "is there"
}

func udpSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	return fd, os.NewSyscallError("socket", err)
}
