package native

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A link that never runs dry: a batch ends.
func TestABatchOfALinkEnds(t *testing.T) {
	t.Parallel()
	zero, err := unix.Open("/dev/zero", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(zero)
	h := newHalves(t)
	h.out.link = &link{fd: zero, vnet: true}
	if found, dry, err := h.out.take(); !found || dry || err != nil {
		t.Errorf("found: %v, dry: %v, error: %v", found, dry, err)
	}
}

// A socket in which there is more than a batch: batch by batch, all of it comes, and
// is not held back for what comes later.
func TestABatchOfASocketEnds(t *testing.T) {
	t.Parallel()
	h := newHalves(t)
	// As UDP has it, a message is read as it was written.
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ends[0])
	defer unix.Close(ends[1])
	h.in.wire = &socket{fd: ends[0]}
	packet := template{from: 1, to: 2, udp: true}.packet(random(100))
	session := h.out.device.all()[0].current.Load()
	const messages = 2*maxReceives + 10
	for range messages {
		var n nonce
		if _, err := unix.Write(ends[1], session.seal(make([]byte, 0, len(packet)+overhead), packet, &n)); err != nil {
			t.Fatal(err)
		}
	}
	for batch := 1; ; batch++ {
		found, dry, err := h.in.take()
		if err != nil {
			t.Fatal(err)
		}
		if !found {
			t.Fatal("a batch with nothing in it")
		}
		h.in.work(nil)
		h.in.give(true)
		if want := len(packet) * min(batch*maxReceives, messages); h.sunk.bytes < want/2 {
			t.Errorf("after batch %d %d bytes are delivered, want about %d", batch, h.sunk.bytes, want)
		}
		if dry {
			if batch != 3 {
				t.Errorf("all comes in %d batches, want 3", batch)
			}
			return
		}
	}
}
