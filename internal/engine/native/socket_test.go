package native

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// receiveAll receives until so many bytes have come.
func receiveAll(t *testing.T, s *socket, want int) (all []byte, from origin, segments []int) {
	t.Helper()
	var r receiver
	b := make([]byte, largest)
	eventually(t, func() bool {
		n, segment, err := s.receive(&r, &from, b)
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
		if err == nil {
			all = append(all, b[:n]...)
			segments = append(segments, segment)
		}
		return len(all) >= want
	})
	return all, from, segments
}

func testSocket(t *testing.T, family int) *socket {
	t.Helper()
	fd, port, err := openFamily(family, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	s := newSocket()
	s.fd, s.port, s.v4, s.log, s.narrow = fd, port, family == unix.AF_INET, t.Logf, func() {}
	return s
}

// Runs of datagrams arrive over both families, with a socket for both and with
// one for IPv4 alone, and the answer goes back from the address they were sent to.
func TestSockets(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		near, far int
		at        string
	}{
		{unix.AF_INET6, unix.AF_INET6, "127.0.0.1"}, {unix.AF_INET6, unix.AF_INET6, "::1"},
		{unix.AF_INET, unix.AF_INET, "127.0.0.1"}, {unix.AF_INET6, unix.AF_INET, "127.0.0.9"},
		{unix.AF_INET, unix.AF_INET6, "127.0.0.9"},
	} {
		for _, whole := range []bool{false, true} {
			t.Run(fmt.Sprint(c, whole), func(t *testing.T) {
				t.Parallel()
				near, far := testSocket(t, c.near), testSocket(t, c.far)
				near.whole.Store(whole)
				to, err := endpointOf(netip.AddrPortFrom(netip.MustParseAddr(c.at), far.port))
				if err != nil {
					t.Fatal(err)
				}
				run := random(10*1000 + 1)
				var s sender
				if err := near.send(&s, to, run, 1000); err != nil {
					t.Fatal(err)
				}
				got, from, segments := receiveAll(t, far, len(run))
				if !bytes.Equal(got, run) || from.addrPort().Port() != near.port {
					t.Errorf("%d bytes in %v from %v", len(got), segments, from.addrPort())
				}
				answer := &endpoint{origin: from, sticky: true}
				if err := far.send(&s, answer, []byte("answer"), 6); err != nil {
					t.Fatal(err)
				}
				_, back, _ := receiveAll(t, near, 6)
				if got := back.addrPort(); c.far == unix.AF_INET6 && got != to.addrPort() {
					t.Errorf("answered from %v, want %v", got, to.addrPort())
				}
			})
		}
	}
	four := testSocket(t, unix.AF_INET)
	six, err := endpointOf(netip.MustParseAddrPort("[::1]:9"))
	if err != nil {
		t.Fatal(err)
	}
	if err := four.send(new(sender), six, []byte("x"), 1); !errors.Is(err, unix.EAFNOSUPPORT) {
		t.Errorf("IPv6 from a host without it: %v", err)
	}
}

// A source address that the host has no more is given up.
func TestALostSource(t *testing.T) {
	t.Parallel()
	a, _ := pair(t)
	p := a.all()[0]
	s := testSocket(t, unix.AF_INET6)
	far := testSocket(t, unix.AF_INET6)
	to, err := endpointOf(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), far.port))
	if err != nil {
		t.Fatal(err)
	}
	gone := netip.MustParseAddr("203.0.113.5").As16()
	to.sticky = true
	copy(to.info[:], gone[:])
	p.endpoint.Store(to)
	box := &outbox{wire: s, mtu: 1420}
	if err := box.post(p, to, []byte("message"), 7); err != nil {
		t.Fatal(err)
	}
	if got, _, _ := receiveAll(t, far, 7); string(got) != "message" || p.endpoint.Load().sticky {
		t.Errorf("%q, sticky: %v", got, p.endpoint.Load().sticky)
	}
}
