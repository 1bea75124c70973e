package native

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
)

// changes in a header, and whether a packet without and one with it are put
// together, and three that all have it.
var changes = []struct {
	name       string
	header     string
	at         int
	bits       byte
	spoil      bool // the checksums stay as they were
	two, three bool // are put together
}{
	{"TOS", "ip4", 1, 0x04, false, false, true},
	{"congestion", "ip4", 1, 0x03, false, false, true},
	{"reserved bit", "ip4", ip4Fragment, 0x80, false, false, false},
	{"fragments allowed", "ip4", ip4Fragment, 0x40, false, false, true},
	{"more fragments", "ip4", ip4Fragment, 0x20, false, false, false},
	{"fragment", "ip4", ip4Fragment + 1, 0x10, false, false, false},
	{"TTL", "ip4", ip4TTL, 0x01, false, false, true},
	{"protocol", "ip4", ip4Protocol, 0x80, false, false, false},
	{"header's checksum", "ip4", ip4Checksum, 0x01, true, false, false},
	{"source", "ip4", ip4Addrs + 3, 0x80, false, false, true},

	{"traffic class", "ip6", 0, 0x01, false, false, true},
	{"congestion", "ip6", 1, 0x30, false, false, true},
	{"flow label", "ip6", 3, 0x01, false, false, true},
	{"next header", "ip6", ip6Next, 0x80, false, false, false},
	{"hop limit", "ip6", ip6Next + 1, 0x01, false, false, true},
	{"source", "ip6", ip6Addrs + 15, 0x80, false, false, true},

	{"port", "tcp", 1, 0x01, false, false, true},
	{"sequence", "tcp", tcpSeq + 3, 0x01, false, false, true},
	{"acknowledgement", "tcp", tcpAck + 3, 0x01, false, false, true},
	{"reserved bit", "tcp", tcpOffset, 0x02, false, false, true},
	{"FIN", "tcp", tcpFlags, 0x01, false, false, false},
	{"SYN", "tcp", tcpFlags, 0x02, false, false, false},
	{"RST", "tcp", tcpFlags, 0x04, false, false, false},
	{"PSH", "tcp", tcpFlags, 0x08, false, true, false},
	{"ACK", "tcp", tcpFlags, 0x10, false, false, false},
	{"URG", "tcp", tcpFlags, 0x20, false, false, false},
	{"ECE", "tcp", tcpFlags, 0x40, false, false, false},
	{"CWR", "tcp", tcpFlags, 0x80, false, false, false},
	{"window", "tcp", tcpWindow + 1, 0x01, false, false, true},
	{"checksum", "tcp", tcpChecksum, 0x01, true, false, false},
	{"urgent pointer", "tcp", tcpChecksum + 3, 0x01, false, false, true},
	{"timestamp", "tcp", tcpHeader + 7, 0x01, false, false, true},

	{"port", "udp", 1, 0x01, false, false, true},
	{"length", "udp", udpLength + 1, 0x01, false, false, false},
	{"checksum", "udp", udpChecksum, 0x01, true, false, false},
}

// TestCoalesceAsKernel is the table of what is put together. That the kernel does
// so as well is checked each time; where it was seen to do more, the log says it.
func TestCoalesceAsKernel(t *testing.T) {
	g := newGRO(t)
	for _, f := range kinds() {
		if f.udp && !g.udp {
			continue
		}
		f.flags = flagACK
		t.Run(fmt.Sprintf("v6 %v udp %v options %d", f.v6, f.udp, len(f.options)), func(t *testing.T) {
			c := comparison{t, g, f}
			c.checkSizes()
			c.checkChanges()
			if !f.v6 {
				c.checkIdentifications()
			}
			if !f.udp {
				c.checkStreams()
			}
		})
	}
}

// A comparison of our coalescer and the kernel's, for one flow.
type comparison struct {
	t    *testing.T
	gro  *gro
	flow template
}

// check checks how many packets each are put together.
func (c comparison) check(name string, in [][]byte, want ...int) {
	c.t.Helper()
	ours, theirs := c.gro.covers(c.t, in)
	var sizes []int
	for _, m := range ours {
		sizes = append(sizes, len(m.numbers))
	}
	if !slices.Equal(sizes, want) {
		c.t.Errorf("%s: %v packets each, want %v", name, sizes, want)
	}
	if len(theirs) < len(ours) {
		c.t.Logf("%s: we make %v, the kernel %v", name, numbers(ours), numbers(theirs))
	}
}

func (c comparison) checkSizes() {
	run := c.flow.run
	c.check("all alike", run(1000, 1000, 1000), 3)
	c.check("a shorter last", run(1000, 1000, 1), 3)
	c.check("a longer last", run(1000, 1000, 1001), 2, 1)
	c.check("behind a shorter", run(1000, 999, 1000, 1000), 2, 2)
	c.check("an empty one", run(1000, 0, 1000, 1000), 1, 1, 2)
	c.check("many", run(slices.Repeat([]int{20}, maxSegments)...), maxSegments)
	c.check("too many", run(slices.Repeat([]int{20}, maxSegments+1)...), maxSegments, 1)
	// The device counts the Ethernet header as well.
	most := 1<<16 - 1 - len(c.flow.packet(nil)) - 8*8000 - 14
	c.check("large", run(8000, 8000, 8000, 8000, 8000, 8000, 8000, 8000, most), 9)
	c.check("too large", run(8000, 8000, 8000, 8000, 8000, 8000, 8000, 8000, 1536), 8, 1)

	in := run(1000, 1000)
	c.check("IP options", [][]byte{c.flow.extended(in[0]), c.flow.extended(in[1])}, 1, 1)
	if c.flow.udp {
		in := run(1000, 1000)
		for _, packet := range in {
			clear(packet[c.flow.transport()+udpChecksum:][:2])
		}
		c.check("no checksum", in, 1, 1)
	}
}

func (c comparison) checkChanges() {
	for _, change := range changes {
		at, ok := c.flow.offset(change.header, change.at)
		if !ok {
			continue
		}
		apply := func(packets ...[]byte) {
			for _, packet := range packets {
				packet[at] ^= change.bits
				if !change.spoil {
					c.flow.finish(packet)
				}
			}
		}
		two, three := c.flow.run(1000, 1000), c.flow.run(1000, 1000, 1000)
		apply(two[1])
		apply(three...)
		if change.two {
			c.check(change.name, two, 2)
		} else {
			c.check(change.name, two, 1, 1)
		}
		if change.three {
			c.check(change.name+" of all", three, 3)
		} else {
			c.check(change.name+" of all", three, 1, 1, 1)
		}
	}
}

// checkIdentifications: RFC 6864 says when they mean something, and all senders do
// as they like.
func (c comparison) checkIdentifications() {
	run := func(fragment uint16, ids ...uint16) [][]byte {
		packets := c.flow.run(slices.Repeat([]int{1000}, len(ids))...)
		for i, packet := range packets {
			binary.BigEndian.PutUint16(packet[ip4ID:], ids[i])
			binary.BigEndian.PutUint16(packet[ip4Fragment:], fragment)
			finishIP4(packet, ip4Header)
		}
		return packets
	}
	c.check("the same", run(dontFragment, 5, 5, 5, 5), 4)
	c.check("the same, fragments allowed", run(0, 5, 5, 5), 1, 1, 1)
	c.check("ascending, fragments allowed", run(0, 65535, 0, 1), 3)
	c.check("a step", run(dontFragment, 5, 7, 8), 1, 2)
	c.check("descending", run(dontFragment, 5, 4, 3), 1, 1, 1)
	c.check("one that stops", run(dontFragment, 5, 6, 6, 6), 2, 2)
	c.check("one that starts", run(dontFragment, 5, 5, 6, 7), 2, 2)
	c.check("one that catches up", run(dontFragment, 5, 5, 7), 2, 1)
}

func (c comparison) checkStreams() {
	pushed := c.flow.run(1000, 1000, 1000, 1000)
	pushed[1][c.flow.transport()+tcpFlags] |= flagPSH
	c.flow.finish(pushed[1])
	c.check("PSH in the middle", pushed, 2, 2)
	gap := c.flow.run(1000, 500, 1000)
	c.check("a gap", [][]byte{gap[0], gap[2]}, 1, 1)
	two := c.flow.run(1000, 1000)
	c.check("the same again", [][]byte{two[0], two[1], two[1]}, 2, 1)
	c.check("the other way round", [][]byte{two[1], two[0]}, 1, 1)
}
