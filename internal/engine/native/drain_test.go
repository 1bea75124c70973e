package native

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A link that never runs dry must not keep its thread from being told to end.
func TestADrainEnds(t *testing.T) {
	zero, err := unix.Open("/dev/zero", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(zero)
	h := newHalves(t)
	h.out.link = &link{fd: zero, vnet: true}
	if err := h.out.drain(); err != nil {
		t.Error(err)
	}
}

// Nor must a socket. What was taken from it is delivered, also when that is less than
// what is delivered at once.
func TestADrainOfASocketEnds(t *testing.T) {
	h := newHalves(t)
	s := newSpring(t, h.out.device.all()[0].current.Load(), 10*drainCalls)
	h.in.wire, h.in.coalescer.sink = &socket{fd: s.out}, s
	if err := h.in.drain(); err != nil {
		t.Error(err)
	}
	rest := 0
	for buffer := make([]byte, largest); ; rest++ {
		if _, _, err := unix.Recvfrom(s.out, buffer, unix.MSG_DONTWAIT); err != nil {
			break
		}
	}
	if rest == 0 {
		t.Errorf("it went on until there was no more: %d messages", s.sent)
	}
	if taken := s.sent - rest; taken == 0 || taken > drainCalls || s.delivered != taken {
		t.Errorf("of %d messages taken %d were delivered, want those and at most %d", taken, s.delivered, drainCalls)
	}
}

// A spring is a socket that does not run dry: it is also the sink, and when packets
// are delivered, as many messages follow. After limit messages it is dry, so that a
// test of what does not end does.
type spring struct {
	t       testing.TB
	in, out int // ends of a socket pair
	session *keypair
	nonce   nonce
	packet  []byte
	limit   int

	sent, delivered int
}

func newSpring(t testing.TB, session *keypair, limit int) *spring {
	t.Helper()
	// As UDP has it, a message is read as it was written. What is written is there
	// at once: no other thread of the kernel brings it.
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Close(ends[0])
		_ = unix.Close(ends[1])
	})
	s := &spring{
		t: t, in: ends[0], out: ends[1], session: session, limit: limit,
		packet: template{from: 1, to: 2, udp: true}.packet(random(100)),
	}
	s.add(maxSegments + 1) // more than a coalescer holds of one flow
	return s
}

func (s *spring) add(messages int) {
	s.t.Helper()
	for range min(messages, s.limit-s.sent) {
		message := s.session.seal(make([]byte, 0, len(s.packet)+overhead), s.packet, &s.nonce)
		if _, err := unix.Write(s.in, message); err != nil {
			s.t.Fatal(err)
		}
		s.sent++
	}
}

func (s *spring) deliver(_ vnetHeader, parts [][]byte) {
	s.delivered += len(parts)
	s.add(len(parts))
}
