package native

import (
	"testing"
	"time"
)

// nowhere is a wire and a sink.
type nowhere struct{ bytes int }

func (n *nowhere) send(_ *sender, _ *endpoint, run []byte, _ int) error {
	n.bytes += len(run)
	return nil
}

func (n *nowhere) deliver(_ vnetHeader, parts [][]byte) {
	for _, part := range parts {
		n.bytes += len(part)
	}
}

// eventually waits, in tests on the real clock.
func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
	}
}

// halves are the two directions of one tunnel, without a system around them.
type halves struct {
	out    *outbound
	in     *inbound
	sealed [][]byte
	sunk   *nowhere
	from   origin
}

func newHalves(t testing.TB) *halves {
	a, b := pair(t)
	a.say(b, "hello")
	eventually(t, func() bool { return len(b.heard()) > 0 })
	b.say(a, "hello")
	eventually(t, func() bool { return len(a.heard()) > 0 })
	h := &halves{sunk: new(nowhere)}
	h.out = newOutbound(a.device, &link{vnet: true})
	h.out.box.wire = h
	h.in = newInbound(b.device, nil, &delivery{device: b.device, coalescer: coalescer{sink: h.sunk, udp: true}})
	from, err := endpointOf(a.at)
	if err != nil {
		t.Fatal(err)
	}
	h.from = from.origin
	return h
}

func (h *halves) send(_ *sender, _ *endpoint, run []byte, segment int) error {
	for len(run) > 0 {
		n := min(segment, len(run))
		h.sealed = append(h.sealed, run[:n:n])
		run = run[n:]
	}
	return nil
}

// largeRead is what the kernel hands over of one flow of TCP.
func largeRead() []byte {
	h, packet := template{from: 1, to: 2, flags: flagACK, options: make([]byte, 12)}.large(random(45*1368), 1368)
	b := make([]byte, vnetSize, vnetSize+len(packet)+16)
	h.put(b)
	return append(b, packet...)
}

// pass moves one large packet through both directions.
func (h *halves) pass(read []byte) {
	h.sealed = h.sealed[:0]
	h.out.reads = append(h.out.reads[:0], h.out.buffer[:copy(h.out.buffer[:], read)])
	h.out.work(nil)
	h.out.give(true)
	at := 0
	for _, message := range h.sealed {
		at += copy(h.in.buffer[at:], message)
	}
	h.in.accept(h.from, h.in.buffer[:at], len(h.sealed[0]))
}

func TestPacketsAreMovedWithoutAllocation(t *testing.T) {
	h := newHalves(t)
	read := largeRead()
	h.pass(read)
	if want := len(read) - vnetSize; h.sunk.bytes != want {
		t.Fatalf("%d bytes came through, want %d", h.sunk.bytes, want)
	}
	if n := testing.AllocsPerRun(100, func() { h.pass(read) }); n > 0 {
		t.Errorf("%v allocations for a large packet", n)
	}
}

// BenchmarkBothWays is what a byte costs in both engines together, but for the
// kernel.
func BenchmarkBothWays(b *testing.B) {
	h := newHalves(b)
	read := largeRead()
	b.SetBytes(int64(len(read)))
	for b.Loop() {
		h.pass(read)
	}
}
