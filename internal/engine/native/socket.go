package native

import (
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/sys"
)

// Buffers of the socket that are asked for; the kernel gives at most
// net.core.rmem_max and wmem_max.
const socketBuffer = 4 << 20

// Bounds of one send with UDP_SEGMENT (udp(7)): 64 datagrams, and what fits
// into the largest UDP packet.
const (
	maxSegments = 64
	maxDatagram = 1<<16 - 1 - 20 - 8
)

// The kernel sets DF on a datagram, but not on a run (__ip_make_skb: it is larger than
// the path's MTU): a router cuts a run's datagrams into fragments, and says nothing. So
// one datagram in so many runs goes by itself, for a router to answer if it is too large.
const runsToProbe = 64

// A socket is the UDP socket of a device, for IPv6 and IPv4. Many may send at
// a time, one receives.
//
// The descriptor stays the same when the port changes: the new socket takes its
// number (dup3(2)), at once for all threads.
type socket struct {
	fd    int
	port  uint16
	v4    bool        // this host has no IPv6
	whole atomic.Bool // UDP_SEGMENT does not work: one datagram a call

	log    func(format string, args ...any)
	narrow func() // called when a packet is larger than the path
	// sendmsg is (*sys.Datagram).Send, or a test's.
	sendmsg func(d *sys.Datagram, fd int, name, control, payload []byte) error
}

func newSocket() *socket { return &socket{fd: -1, sendmsg: (*sys.Datagram).Send} }

// openSocket binds to a port; zero: any. v4: this host has no IPv6, and the socket
// is for IPv4 alone.
func openSocket(port uint16, mark uint32) (fd int, bound uint16, v4 bool, err error) {
	fd, bound, err = openFamily(unix.AF_INET6, port, mark)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		fd, bound, err = openFamily(unix.AF_INET, port, mark)
		return fd, bound, true, err
	}
	return fd, bound, false, err
}

func openFamily(family int, port uint16, mark uint32) (fd int, bound uint16, err error) {
	fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, 0, fmt.Errorf("make UDP socket: %w", err)
	}
	if mark != 0 {
		err = markSocket(fd, mark)
	}
	if err == nil {
		bound, err = bind(fd, family, port)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, 0, err
	}
	return fd, bound, nil
}

func markSocket(fd int, mark uint32) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
		return fmt.Errorf("set fwmark: %w", err)
	}
	return nil
}

func bind(fd, family int, port uint16) (uint16, error) {
	var at unix.Sockaddr = &unix.SockaddrInet4{Port: int(port)}
	if family == unix.AF_INET6 {
		at = &unix.SockaddrInet6{Port: int(port)}
		err := unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 0)
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
		if err != nil {
			return 0, fmt.Errorf("set option of UDP socket: %w", err)
		}
	}
	// These the kernel may refuse, or give in part: they are for speed.
	_ = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, socketBuffer)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, socketBuffer)
	if err := unix.Bind(fd, at); err != nil {
		return 0, fmt.Errorf("bind UDP port: %w", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return 0, fmt.Errorf("ask for UDP port: %w", err)
	}
	if four, ok := name.(*unix.SockaddrInet4); ok {
		return uint16(four.Port), nil
	}
	return uint16(name.(*unix.SockaddrInet6).Port), nil
}

// probe looks for UDP_SEGMENT. It must be asked for: a kernel that does not know it
// sends a run as one datagram, without a word.
func (s *socket) probe() {
	if unix.SetsockoptInt(s.fd, unix.SOL_UDP, unix.UDP_SEGMENT, 0) != nil {
		s.forgo("kernel")
	}
}

// forgo goes on without UDP_SEGMENT.
func (s *socket) forgo(because string) {
	if !s.whole.Swap(true) {
		s.log("the host's %s takes no UDP_SEGMENT: going on without, slower", because)
	}
}

// send sends a run of datagrams: each of segment bytes, but the last, which may
// be shorter. What cannot be sent now is lost, as on any full link. An error
// tells that none of it can be sent to that endpoint.
func (s *socket) send(m *sender, to *endpoint, run []byte, segment int) error {
	if len(run) > segment {
		if m.runs++; m.runs%runsToProbe == 0 {
			if err := s.sendOnce(m, to, run[:segment], 0); err != nil {
				return err
			}
			run = run[segment:]
		}
	}
	if len(run) > segment && !s.whole.Load() {
		err := s.sendOnce(m, to, run, segment)
		switch {
		case errors.Is(err, unix.EIO):
			// The device below does no checksums (before Linux 6.11), or there is
			// IPsec on the way (udp_send_skb in the kernel).
			s.forgo("network device")
		case errors.Is(err, unix.EMSGSIZE), errors.Is(err, unix.EINVAL):
			// A datagram is larger than the path's MTU: the kernel cuts it into
			// fragments, but not segments.
			s.narrow()
		default:
			return err
		}
	}
	for len(run) > 0 {
		n := min(segment, len(run))
		if err := s.sendOnce(m, to, run[:n], 0); err != nil {
			return err
		}
		run = run[n:]
	}
	return nil
}

func (s *socket) sendOnce(m *sender, to *endpoint, payload []byte, segment int) error {
	name := to.name[:]
	if s.v4 {
		if !to.addr().Is4() {
			return unix.EAFNOSUPPORT
		}
		name = to.putName4(&m.name4)
	}
	control := to.control(&m.control, to.sticky && !s.v4, segment)
	err := s.sendmsg(&m.datagram, s.fd, name, control, payload)
	if errors.Is(err, unix.EMSGSIZE) {
		s.narrow()
	}
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOBUFS) {
		return nil
	}
	return err
}

// sender is what a thread needs to send.
type sender struct {
	datagram sys.Datagram
	runs     int // that were sent
	control  [controlSize]byte
	name4    [unix.SizeofSockaddrInet4]byte
}

// receiver is what a thread needs to receive.
type receiver struct {
	datagram sys.Datagram
	control  [256]byte
}

// receive takes one payload, which is several datagrams of segment bytes, the
// last of which may be shorter, if segment is not zero. EAGAIN: none is there.
func (s *socket) receive(r *receiver, from *origin, b []byte) (n, segment int, err error) {
	n, controlled, flags, err := r.datagram.Receive(s.fd, from.name[:], r.control[:], b)
	if err != nil {
		return 0, 0, err
	}
	if flags&unix.MSG_TRUNC != 0 {
		return 0, 0, nil
	}
	if s.v4 {
		from.widen()
	}
	return n, from.read(r.control[:controlled]), nil
}
