package link

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// socket is a netlink.Socket over a descriptor made elsewhere. It blocks: the
// kernel has answered a route-netlink request by the time sendto returns.
type socket struct {
	fd  int
	buf []byte
}

// newSocket binds fd to a port of the kernel's choice and returns that.
func newSocket(fd int) (*socket, uint32, error) {
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil && err != unix.EINVAL {
		return nil, 0, fmt.Errorf("bind netlink socket: %w", err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return nil, 0, fmt.Errorf("bind netlink socket: %w", err)
	}
	addr, ok := sa.(*unix.SockaddrNetlink)
	if !ok {
		return nil, 0, fmt.Errorf("bind netlink socket: %w", unix.EPROTOTYPE)
	}
	return &socket{fd: fd, buf: make([]byte, 64<<10)}, addr.Pid, nil
}

func (s *socket) Close() error { return nil }

func (s *socket) Send(m netlink.Message) error { return s.SendMessages([]netlink.Message{m}) }

func (s *socket) SendMessages(messages []netlink.Message) error {
	var buf []byte
	for _, m := range messages {
		b, err := m.MarshalBinary()
		if err != nil {
			return err
		}
		buf = append(buf, b...)
	}
	return unix.Sendto(s.fd, buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

func (s *socket) Receive() ([]netlink.Message, error) {
	n, _, err := unix.Recvfrom(s.fd, s.buf, 0)
	for err == unix.EINTR {
		n, _, err = unix.Recvfrom(s.fd, s.buf, 0)
	}
	if err != nil {
		return nil, err
	}
	var messages []netlink.Message
	for rest := bytes.Clone(s.buf[:n]); len(rest) >= unix.NLMSG_HDRLEN; {
		length := align(int(binary.NativeEndian.Uint32(rest)))
		if length < unix.NLMSG_HDRLEN || length > len(rest) {
			return nil, unix.EBADMSG
		}
		var m netlink.Message
		if err := m.UnmarshalBinary(rest[:length]); err != nil {
			return nil, err
		}
		messages = append(messages, m)
		rest = rest[length:]
	}
	return messages, nil
}

func (s *socket) ReceiveIter() iter.Seq2[netlink.Message, error] {
	return func(yield func(netlink.Message, error) bool) {
		messages, err := s.Receive()
		if err != nil {
			yield(netlink.Message{}, err)
			return
		}
		for _, m := range messages {
			if !yield(m, nil) {
				return
			}
		}
	}
}

// align rounds up to NLMSG_ALIGNTO.
func align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }
