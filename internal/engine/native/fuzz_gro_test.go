package native

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"wireguard4netns/internal/nstest"
	"wireguard4netns/internal/sys"
)

// A gro is Linux's own GRO. Packets that are written to ta wait before va, and then
// go through all at once: vb receives them as from a network card that has many.
//
//	put ──▶ ta ── br0 ── va: held back │ vb: GRO ── br1 ── tb ──▶ take
//
// tb takes large packets, so what was put together stays together.
type gro struct {
	*kernel
	rtnetlink int
	udp       bool // tb takes large UDP packets
}

// vaIndex is the index of the link va.
const vaIndex = 1000

func newGRO(t testing.TB) *gro {
	t.Helper()
	host, k, rtnetlink := newTAPs(t)
	g := &gro{kernel: k, rtnetlink: rtnetlink, udp: sys.SetTUNOffload(k.out, offloadTCP|offloadUDP) == nil}
	if !g.udp {
		if err := sys.SetTUNOffload(k.out, offloadTCP); err != nil {
			t.Fatal(err)
		}
	}
	host.Run(t, "sh", "-ec", bridgeFunction+fmt.Sprintf(`ip link add va index %d type veth peer name vb
bridge br0 ta va
bridge br1 vb tb`, vaIndex))
	for _, f := range []features{
		// If the sender could cut packets, there would be no GRO.
		{"va", false, []string{"tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation"}},
		{"vb", true, []string{"rx-gro", "rx-udp-gro-forwarding"}},
		{"tb", true, []string{"tx-tcp-mangleid-segmentation"}}, // a fixed identification
	} {
		if _, err := setFeatures.Call(host.Command, f); err != nil {
			t.Fatal(err)
		}
	}
	probe := [][]byte{template{from: 1, to: 2, udp: true}.packet([]byte("probe"))}
	nstest.Eventually(t, 15*time.Second, func() error {
		if len(g.merge(t, probe)) == 0 {
			return fmt.Errorf("nothing passes")
		}
		return nil
	})
	return g
}

// hold lets nothing through va from now on, or what waits there with the next
// packet. The token bucket is full after each change, so the first packet after
// hold(true) has to empty it.
func (g *gro) hold(t testing.TB, on bool) {
	t.Helper()
	rate, burst := uint32(1e9), uint32(1e6) // bytes a second, bytes
	if on {
		rate, burst = 1, frameSize
	}
	// struct tc_tbf_qopt; the link layer is Ethernet.
	parameters := make([]byte, 36)
	parameters[1] = 1
	binary.NativeEndian.PutUint32(parameters[8:], rate)
	binary.NativeEndian.PutUint32(parameters[24:], 1e6) // bytes that may wait
	attrs := netlink.NewAttributeEncoder()
	attrs.String(unix.TCA_KIND, "tbf")
	nest(unix.TCA_OPTIONS, func(e *netlink.AttributeEncoder) {
		e.Bytes(1, parameters) // TCA_TBF_PARMS
		e.Uint32(6, burst)     // TCA_TBF_BURST
	})(attrs)
	data, err := attrs.Encode()
	if err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 20) // struct tcmsg
	binary.NativeEndian.PutUint32(head[4:], vaIndex)
	binary.NativeEndian.PutUint32(head[12:], 0xffffffff) // TC_H_ROOT
	request, err := netlink.Message{
		Header: netlink.Header{
			Length: uint32(unix.NLMSG_HDRLEN + len(head) + len(data)), Type: unix.RTM_NEWQDISC,
			Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Replace,
		},
		Data: append(head, data...),
	}.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Sendto(g.rtnetlink, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 4096)
	if _, _, err := unix.Recvfrom(g.rtnetlink, answer, 0); err != nil {
		t.Fatal(err)
	}
	if errno := int32(binary.NativeEndian.Uint32(answer[unix.NLMSG_HDRLEN:])); errno != 0 {
		t.Fatalf("change queue of va: %v", unix.Errno(-errno))
	}
}

// features of a link, with the names that ethtool(8) has for them.
type features struct {
	Link  string
	On    bool
	Names []string
}

// setFeatures turns them on or off: Documentation/networking/ethtool-netlink.rst.
var setFeatures = nstest.NewFunc("set features", func(f features) (none struct{}, err error) {
	conn, err := netlink.Dial(unix.NETLINK_GENERIC, nil)
	if err != nil {
		return none, err
	}
	defer conn.Close()
	found, err := ask(conn, unix.GENL_ID_CTRL, unix.CTRL_CMD_GETFAMILY, func(e *netlink.AttributeEncoder) {
		e.String(unix.CTRL_ATTR_FAMILY_NAME, "ethtool")
	})
	if err != nil {
		return none, fmt.Errorf("find ethtool's netlink family: %w", err)
	}
	var family uint16
	for found.Next() {
		if found.Type() == unix.CTRL_ATTR_FAMILY_ID {
			family = found.Uint16()
		}
	}
	_, err = ask(conn, family, unix.ETHTOOL_MSG_FEATURES_SET, func(e *netlink.AttributeEncoder) {
		nest(unix.ETHTOOL_A_FEATURES_HEADER, func(e *netlink.AttributeEncoder) {
			e.String(unix.ETHTOOL_A_HEADER_DEV_NAME, f.Link)
		})(e)
		nest(unix.ETHTOOL_A_FEATURES_WANTED, nest(unix.ETHTOOL_A_BITSET_BITS, func(e *netlink.AttributeEncoder) {
			for _, name := range f.Names {
				nest(unix.ETHTOOL_A_BITSET_BITS_BIT, func(e *netlink.AttributeEncoder) {
					e.String(unix.ETHTOOL_A_BITSET_BIT_NAME, name)
					e.Flag(unix.ETHTOOL_A_BITSET_BIT_VALUE, f.On)
				})(e)
			}
		}))(e)
	})
	if err != nil {
		return none, fmt.Errorf("set features of %s: %w", f.Link, err)
	}
	return none, nil
})

// ask sends a generic netlink request and returns the attributes of the answer.
func ask(conn *netlink.Conn, family uint16, command byte, fill func(*netlink.AttributeEncoder)) (*netlink.AttributeDecoder, error) {
	attrs := netlink.NewAttributeEncoder()
	fill(attrs)
	data, err := attrs.Encode()
	if err != nil {
		return nil, err
	}
	replies, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(family), Flags: netlink.Request},
		Data:   append([]byte{command, 1, 0, 0}, data...), // struct genlmsghdr
	})
	if err != nil {
		return nil, err
	}
	return netlink.NewAttributeDecoder(replies[0].Data[4:])
}

func nest(kind uint16, fill func(*netlink.AttributeEncoder)) func(*netlink.AttributeEncoder) {
	return func(e *netlink.AttributeEncoder) {
		e.Nested(kind, func(e *netlink.AttributeEncoder) error {
			fill(e)
			return nil
		})
	}
}

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

// frameSize is the largest that passes; filler is as large, and no IP packet.
const frameSize = 9014

var filler = make([]byte, frameSize-14)

// merge returns what the kernel makes of packets.
func (g *gro) merge(t testing.TB, in [][]byte) (out []merged) {
	t.Helper()
	g.hold(t, true)
	g.write(t, vnetHeader{}, filler)
	for _, packet := range in {
		g.write(t, vnetHeader{}, packet)
	}
	g.hold(t, false)
	g.write(t, vnetHeader{}, filler)
	buffer := make([]byte, 1<<16+100)
	for missing := len(in); missing > 0; {
		files := []unix.PollFd{{Fd: int32(g.out), Events: unix.POLLIN}}
		if n, err := unix.Poll(files, 1000); err == nil && n == 0 {
			return out
		}
		n, err := unix.Read(g.out, buffer)
		if err != nil || n <= vnetSize+14 || !bytes.Equal(buffer[vnetSize:][:12], ethernet) {
			continue
		}
		if buffer[vnetSize+14]>>4 == 0 {
			continue // the filler
		}
		h := readVnet(buffer)
		h.sumStart -= 14
		m := newMerged(h, bytes.Clone(buffer[vnetSize+14:n]), in)
		out = append(out, m)
		missing -= len(m.numbers)
	}
	return out
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
		c.add(bytes.Clone(p))
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

// numbered is a packet with n bytes of payload, which are all its number.
func (f template) numbered(number, n int) []byte {
	return f.packet(bytes.Repeat([]byte{byte(number)}, n))
}

// transport is where the transport header begins.
func (f template) transport() int {
	if f.v6 {
		return ip6Header
	}
	return ip4Header
}

// finish makes the checksums of a packet right again after a change.
func (f template) finish(packet []byte) {
	transport := f.transport()
	if !f.v6 {
		finishIP4(packet, transport)
	}
	protocol, at := byte(protocolTCP), tcpChecksum
	if f.udp {
		protocol, at = protocolUDP, udpChecksum
	}
	field := packet[transport+at:][:2]
	clear(field)
	checksum(0).pseudo(addresses(packet), protocol, len(packet)-transport).add(packet[transport:]).finishUDP(field)
}

// run returns packets of one flow that follow each other.
func (f template) run(sizes ...int) (packets [][]byte) {
	seq := f.seq
	for i, n := range sizes {
		one := f
		one.seq, one.id = seq, f.id+uint16(i)
		packets = append(packets, one.numbered(i, n))
		seq += uint32(n)
	}
	return packets
}

// extended puts bytes between the IP header and the transport header: options of
// IPv4, an extension header of IPv6 (destination options, padding only).
func (f template) extended(packet []byte) []byte {
	if f.v6 {
		next := packet[ip6Next]
		packet = slices.Insert(packet, ip6Header, next, 0, 1, 4, 0, 0, 0, 0)
		packet[ip6Next] = unix.IPPROTO_DSTOPTS
		binary.BigEndian.PutUint16(packet[ip6Length:], uint16(len(packet)-ip6Header))
		return packet
	}
	packet = slices.Insert(packet, ip4Header, 1, 1, 1, 1)
	packet[0]++
	binary.BigEndian.PutUint16(packet[ip4Length:], uint16(len(packet)))
	finishIP4(packet, ip4Header+4)
	return packet
}

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

// offset returns where in the packets of a flow a byte of a header is, if they
// have it.
func (f template) offset(header string, at int) (offset int, ok bool) {
	switch header {
	case "ip4":
		return at, !f.v6
	case "ip6":
		return at, f.v6
	case "tcp":
		return f.transport() + at, !f.udp && at < tcpHeader+len(f.options)
	}
	return f.transport() + at, f.udp
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

// FuzzCoalesceAsKernel makes flows with whatever changes in their headers: nothing
// is put together that the kernel would leave alone, and no packet overtakes
// another of its flow.
func FuzzCoalesceAsKernel(f *testing.F) {
	g := newGRO(f)
	for i, flow := range kinds() {
		i := byte(i)
		for _, change := range changes {
			if at, ok := flow.offset(change.header, change.at); ok {
				for _, then := range []byte{0, stepForAll << 4} {
					f.Add([]byte{i, 0, 0, 0, i, then, byte(at), change.bits, i, 0, 0, 0, i, 5, 0, 0, i, 0, 0, 0})
				}
			}
		}
		for then := range byte(stepForAll) {
			f.Add([]byte{i, 0, 0, 0, i, then << 4, 0, 0, i + 1, 0, 0, 0, i, 0, 0, 0, i | stepPSH, 0, 0, 0, i, 0, 0, 0})
		}
	}
	f.Fuzz(func(t *testing.T, steps []byte) {
		in := walk(steps)
		ours, _ := g.covers(t, in)
		checkOrder(t, ours, in)
	})
}

// A step of a walk has four bytes, and makes one packet:
//
//	flow, stepPSH, stepSpoil │ size, and << 4 what is unusual │ offset in the headers │ bits to change there
const (
	stepPSH   = 0x40
	stepSpoil = 0x80 // the checksums stay as they were

	stepGap, stepSameID, stepOtherPort, stepAgain, stepExtend, stepForAll = 1, 2, 3, 4, 5, 6
)

// walk makes packets of several flows, step by step.
func walk(steps []byte) (packets [][]byte) {
	flows := kinds()
	forAll := make([][2]byte, len(flows)) // what is changed in all packets of a flow
	for ; len(steps) >= 4 && len(packets) < 40; steps = steps[4:] {
		n := int(steps[0]&(stepPSH-1)) % len(flows)
		flow := &flows[n]
		flow.flags = flagACK
		if steps[0]&stepPSH != 0 {
			flow.flags |= flagPSH
		}
		size := []int{20, 20, 20, 20, 20, 7, 21, 0}[steps[1]&7]
		packet := flow.numbered(len(packets), size)
		flow.seq += uint32(size)
		flow.id++

		unusual, change := steps[1]>>4, [2]byte(steps[2:])
		switch unusual {
		case stepGap:
			flow.seq += 20
		case stepSameID:
			flow.id--
		case stepOtherPort:
			flow.port ^= 1
		case stepAgain:
			flow.seq -= uint32(size)
		case stepForAll:
			forAll[n], change = change, [2]byte{}
		}
		for _, c := range [][2]byte{forAll[n], change} {
			packet[int(c[0])%(len(packet)-size)] ^= c[1]
		}
		if steps[0]&stepSpoil == 0 {
			flow.finish(packet)
		}
		if unusual == stepExtend {
			packet = flow.extended(packet)
		}
		// What comes to the coalescer is an IP packet, and as long as it says.
		whole, source := trim(packet)
		known := slices.ContainsFunc(packets, func(p []byte) bool { return bytes.Equal(p, packet) })
		if source.IsValid() && len(whole) == len(packet) && !known {
			packets = append(packets, packet)
		}
	}
	return packets
}

// checkOrder checks that all packets came out, each flow's in order.
func checkOrder(t testing.TB, out []merged, in [][]byte) {
	last := make(map[string]int)
	count := 0
	for _, m := range out {
		for _, number := range m.numbers {
			count++
			var f flow
			if number < 0 || !f.parse(in[number]) {
				continue
			}
			name := fmt.Sprintf("%x %x %v", addresses(f.packet), f.packet[f.transport:][:4], f.udp)
			if before, ok := last[name]; ok && before > number {
				t.Errorf("packet %d came before %d: %v", before, number, numbers(out))
			}
			last[name] = number
		}
		if m.numbers[0] < 0 {
			t.Errorf("a packet that is none of those that went in: %x", m.packet)
		}
	}
	if count != len(in) {
		t.Errorf("%d packets came out of %d", count, len(in))
	}
}
