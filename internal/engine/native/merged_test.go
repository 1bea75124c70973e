package native

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
)

// A merged is what came out: several packets put together, or one as it was.
type merged struct {
	header  vnetHeader // zero for one
	packet  []byte
	numbers []int // of the packets, in the order in which they went in
}

// newMerged finds out which packets it is made of: their payload is their number.
func newMerged(h vnetHeader, packet []byte, in [][]byte) merged {
	m := merged{header: h, packet: packet}
	if h.gso == gsoNone {
		m.header = vnetHeader{}
		m.numbers = []int{slices.IndexFunc(in, func(p []byte) bool { return bytes.Equal(p, packet) })}
		return m
	}
	at := int(h.sumStart) + udpHeader
	if h.gso != gsoUDP {
		at = int(h.sumStart) + int(packet[h.sumStart+tcpOffset]>>4)*4
	}
	for at < len(packet) {
		at = min(at+int(h.segment), len(packet))
		m.numbers = append(m.numbers, int(packet[at-1]))
	}
	return m
}

// A merger is a sink that keeps what our coalescer makes of packets.
type merger struct {
	in  [][]byte
	out []merged
}

func (m *merger) deliver(h vnetHeader, parts [][]byte) {
	m.out = append(m.out, newMerged(h, bytes.Join(parts, nil), m.in))
}

// merge returns what ours makes of packets.
func merge(in [][]byte, udp bool) []merged {
	m := &merger{in: in}
	c := coalescer{sink: m, udp: udp}
	for _, p := range in {
		addPacket(&c, bytes.Clone(p))
	}
	c.flush()
	return m.out
}

// covers checks that the kernel puts together what ours does, and makes the same
// large packet of it. It returns what each made.
func (g *gro) covers(t testing.TB, in [][]byte) (ours, theirs []merged) {
	t.Helper()
	ours, theirs = merge(in, g.udp), g.merge(t, in)
	for _, our := range ours {
		if len(our.numbers) == 1 {
			continue
		}
		err := our.within(theirs)
		if errors.Is(err, errBegan) {
			var alone [][]byte
			for _, number := range our.numbers {
				alone = append(alone, in[number])
			}
			err = our.within(g.merge(t, alone))
		}
		if err != nil {
			t.Errorf("we made %v, the kernel %v of %x: %v", numbers(ours), numbers(theirs), heads(in), err)
		}
	}
	return ours, theirs
}

// errBegan: the kernel put some of the packets together with earlier ones. That is
// so when a packet between them ends only ours, as one with a wrong checksum does,
// and says nothing of the packets themselves.
var errBegan = errors.New("the kernel began earlier")

// within checks that some of theirs is the same, or is more.
func (m merged) within(theirs []merged) error {
	first := m.numbers[0]
	i := slices.IndexFunc(theirs, func(their merged) bool { return slices.Contains(their.numbers, first) })
	if i < 0 {
		return fmt.Errorf("packet %d is lost", first)
	}
	their := theirs[i]
	at := slices.Index(their.numbers, first)
	end := at + len(m.numbers)
	switch {
	case end <= len(their.numbers) && slices.Equal(their.numbers[at:end], m.numbers):
	case at > 0:
		return errBegan
	default:
		return fmt.Errorf("%v together", m.numbers)
	}
	if len(their.numbers) > len(m.numbers) {
		return nil
	}
	// How long the headers are is a hint, and the kernel's own is of its buffers.
	h := their.header
	h.headers = m.header.headers
	if h != m.header || !bytes.Equal(their.packet, m.packet) {
		all := heads([][]byte{m.packet, their.packet})
		return fmt.Errorf("%v is %+v %x, not %+v %x", m.numbers, m.header, all[0], h, all[1])
	}
	return nil
}

// heads are the first bytes of packets.
func heads(packets [][]byte) (heads [][]byte) {
	for _, p := range packets {
		heads = append(heads, p[:min(len(p), 80)])
	}
	return heads
}

func numbers(all []merged) (numbers [][]int) {
	for _, m := range all {
		numbers = append(numbers, m.numbers)
	}
	return numbers
}
