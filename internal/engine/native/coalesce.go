package native

import (
	"bytes"
	"encoding/binary"
)

// A bundle is several packets of one flow that are one to the kernel: the first
// packet, and the payloads of those behind it.
type bundle struct {
	parts  [maxSegments][]byte
	count  int
	size   int // of all parts
	flow   flow
	closed bool // the last packet was a shorter one, or had PSH
	fixed  bool // all have the same IPv4 identification
}

// A sink takes what is ready for the TUN device.
type sink interface {
	deliver(h vnetHeader, parts [][]byte)
}

// maxBundles is how many flows are put together at a time; the kernel's GRO has
// eight for each bucket of its table.
const maxBundles = 8

// A coalescer puts packets of TCP and UDP together as the kernel's GRO does, and
// undoes what a splitter did: split what it delivers and it is what was added.
// Packets of one flow stay in order.
//
// It holds on to the packets, and changes headers in them, until flush.
type coalescer struct {
	sink    sink
	udp     bool // the kernel takes UDP as well
	off     bool // the kernel takes nothing of the kind
	bundles [maxBundles]bundle
	used    int
	one     [1][]byte
}

// examine reads a packet, which is whole IP. It leaves the coalescer as it is, so
// others may use it meanwhile.
func (c *coalescer) examine(packet []byte, f *flow) {
	f.known = f.parse(packet) && !c.off
	f.mergeable = f.known && (c.udp || !f.udp) && f.sound()
}

// add takes a packet that was examined.
func (c *coalescer) add(f *flow) {
	if !f.known {
		// It may be of any flow: a fragment.
		c.flush()
		c.single(f.packet)
		return
	}
	at := -1
	for i := range c.bundles[:c.used] {
		if c.bundles[i].flow.same(f) {
			at = i
			break
		}
	}
	if at >= 0 {
		if f.mergeable && c.bundles[at].append(f) {
			return
		}
		c.deliver(at)
	}
	if !f.mergeable {
		c.single(f.packet)
		return
	}
	if c.used == maxBundles {
		c.flush()
	}
	c.bundles[c.used].init(f)
	c.used++
}

// flush delivers all there is, flows in the order in which they began.
func (c *coalescer) flush() {
	for i := range c.bundles[:c.used] {
		c.bundles[i].deliver(c.sink)
	}
	c.used = 0
}

// deliver delivers one bundle, out of turn.
func (c *coalescer) deliver(i int) {
	c.bundles[i].deliver(c.sink)
	c.used--
	if i < c.used {
		// A flow may overtake another.
		c.bundles[i], c.bundles[c.used] = c.bundles[c.used], c.bundles[i]
	}
}

func (c *coalescer) single(packet []byte) {
	c.one[0] = packet
	c.sink.deliver(vnetHeader{}, c.one[:])
}

func (b *bundle) init(f *flow) {
	b.flow = *f
	b.parts[0] = f.packet
	b.count, b.size = 1, len(f.packet)
	b.closed = f.flags&flagPSH != 0
	b.fixed = false
}

// append takes the next packet of the flow, if it is one that the splitter would
// have made of the same large packet.
func (b *bundle) append(f *flow) bool {
	first := &b.flow
	segment := first.payload()
	n := f.payload()
	switch {
	case b.closed, b.count == maxSegments, b.size+n > 1<<16-1, n > segment,
		f.headers != first.headers, !first.alike(f):
		return false
	case !f.udp && f.seq != first.seq+uint32(b.count*segment):
		return false
	}
	if !f.v6 {
		fixed := f.id == first.id && f.dontFragment
		if b.count > 1 && fixed != b.fixed || !fixed && f.id != first.id+uint16(b.count) {
			return false
		}
		b.fixed = fixed
	}
	b.parts[b.count] = f.packet[f.headers:]
	b.count++
	b.size += n
	b.closed = n < segment || f.flags&flagPSH != 0
	first.flags |= f.flags
	return true
}

// deliver makes the first packet the large one.
func (b *bundle) deliver(s sink) {
	if b.count == 1 {
		s.deliver(vnetHeader{}, b.parts[:1])
		return
	}
	f := &b.flow
	h := vnetHeader{
		flags: needsChecksum, gso: gsoTCP4,
		headers: uint16(f.headers), segment: uint16(f.payload()),
		sumStart: uint16(f.transport), sumOffset: tcpChecksum,
	}
	packet := f.packet
	if f.v6 {
		h.gso = gsoTCP6
		binary.BigEndian.PutUint16(packet[ip6Length:], uint16(b.size-ip6Header))
	} else {
		binary.BigEndian.PutUint16(packet[ip4Length:], uint16(b.size))
		finishIP4(packet, f.transport)
	}
	transport := packet[f.transport:]
	length := b.size - f.transport
	if f.udp {
		h.gso, h.sumOffset = gsoUDP, udpChecksum
		binary.BigEndian.PutUint16(transport[udpLength:], uint16(length))
		checksum(0).pseudo(addresses(packet), protocolUDP, length).put(transport[udpChecksum:])
	} else {
		transport[tcpFlags] = f.flags
		checksum(0).pseudo(addresses(packet), protocolTCP, length).put(transport[tcpChecksum:])
	}
	s.deliver(h, b.parts[:b.count])
}

// A flow is what of a packet's headers decides whether it goes with others.
type flow struct {
	packet       []byte
	known        bool // as one of a flow
	mergeable    bool
	transport    int // where the transport header begins
	headers      int // where the payload begins
	v6, udp      bool
	dontFragment bool
	id           uint16
	seq          uint32
	flags        byte
}

// parse reads a packet; it tells whether it is of a TCP or UDP flow, unfragmented,
// without IP options and with a header that is whole.
func (f *flow) parse(packet []byte) bool {
	*f = flow{packet: packet, v6: version(packet) == 6}
	var protocol byte
	if f.v6 {
		protocol, f.transport = packet[ip6Next], ip6Header
	} else {
		fragment := binary.BigEndian.Uint16(packet[ip4Fragment:])
		if packet[0] != 4<<4|ip4Header/4 || fragment&^dontFragment != 0 || !checksum(0).add(packet[:ip4Header]).valid() {
			return false
		}
		f.dontFragment = fragment == dontFragment
		f.id = binary.BigEndian.Uint16(packet[ip4ID:])
		protocol, f.transport = packet[ip4Protocol], ip4Header
	}
	transport := packet[f.transport:]
	switch {
	case protocol == protocolTCP && len(transport) >= tcpHeader:
		f.headers = f.transport + int(transport[tcpOffset]>>4)*4
		f.seq = binary.BigEndian.Uint32(transport[tcpSeq:])
		f.flags = transport[tcpFlags]
		return f.headers >= f.transport+tcpHeader && f.headers <= len(packet)
	case protocol == protocolUDP && len(transport) >= udpHeader:
		f.udp = true
		f.headers = f.transport + udpHeader
		return int(binary.BigEndian.Uint16(transport[udpLength:])) == len(transport)
	}
	return false
}

func (f *flow) payload() int { return len(f.packet) - f.headers }

// same tells whether g is of the same flow: addresses, ports and protocol.
func (f *flow) same(g *flow) bool {
	return f.udp == g.udp && f.v6 == g.v6 &&
		bytes.Equal(addresses(f.packet)[:], addresses(g.packet)) &&
		bytes.Equal(f.packet[f.transport:f.transport+4], g.packet[g.transport:g.transport+4])
}

// alike tells whether all of the headers is equal but what differs from one
// packet to the next.
func (f *flow) alike(g *flow) bool {
	a, b := f.packet, g.packet
	if f.v6 {
		if !bytes.Equal(a[:ip6Length], b[:ip6Length]) || a[ip6Next+1] != b[ip6Next+1] {
			return false
		}
	} else if !bytes.Equal(a[:ip4Length], b[:ip4Length]) || a[ip4TTL] != b[ip4TTL] || f.dontFragment != g.dontFragment {
		return false
	}
	if f.udp {
		return true
	}
	a, b = a[f.transport:f.headers], b[g.transport:g.headers]
	return bytes.Equal(a[tcpAck:tcpFlags], b[tcpAck:tcpFlags]) &&
		bytes.Equal(a[tcpWindow:tcpChecksum], b[tcpWindow:tcpChecksum]) &&
		bytes.Equal(a[tcpChecksum+2:], b[tcpChecksum+2:])
}

// sound tells whether the packet may be put together with others at all:
// nothing that urges, ends or begins, and a checksum that is right, for the one
// that is made of them will be.
func (f *flow) sound() bool {
	if f.payload() == 0 {
		return false
	}
	transport := f.packet[f.transport:]
	protocol := byte(protocolTCP)
	if f.udp {
		protocol = protocolUDP
		if transport[udpChecksum] == 0 && transport[udpChecksum+1] == 0 {
			return false // there is none
		}
	} else if f.flags&^flagPSH != flagACK {
		return false
	}
	return checksum(0).pseudo(addresses(f.packet), protocol, len(transport)).add(transport).valid()
}
