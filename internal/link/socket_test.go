package link

import (
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Whatever the socket gives, it is messages or an error. The kernel is trusted;
// the length arithmetic is not.
func FuzzReceive(f *testing.F) {
	whole, err := netlink.Message{Header: netlink.Header{Length: 20, Type: unix.RTM_NEWLINK}, Data: make([]byte, 4)}.MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(append(whole, whole[:17]...))
	f.Add([]byte{255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 || len(data) > 32<<10 {
			return
		}
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fds[0])
		defer unix.Close(fds[1])
		if err := unix.Send(fds[0], data, 0); err != nil {
			t.Fatal(err)
		}
		s := &socket{fd: fds[1], buf: make([]byte, 64<<10)}
		messages, err := s.Receive()
		total := 0
		for _, m := range messages {
			total += unix.NLMSG_HDRLEN + len(m.Data)
		}
		if err == nil && total > len(data)+3 {
			t.Fatalf("%d bytes of messages in %d", total, len(data))
		}
	})
}
