package native

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
)

// kept is a sink that splits again what it gets.
type kept struct {
	t       testing.TB
	packets [][]byte
	sizes   []int // packets of each delivery
}

func (k *kept) deliver(h vnetHeader, parts [][]byte) {
	whole := append(bytes.Join(parts, nil), make([]byte, 16)...)
	whole = whole[:len(whole)-16]
	k.sizes = append(k.sizes, len(parts))
	if h == (vnetHeader{}) {
		if len(parts) != 1 {
			k.t.Errorf("%d parts without a header", len(parts))
		}
		k.packets = append(k.packets, whole)
		return
	}
	checkLarge(k.t, h, whole)
	k.packets = append(k.packets, split(k.t, h, whole)...)
}

// checkLarge checks what the kernel would check of a large packet.
func checkLarge(t testing.TB, h vnetHeader, packet []byte) {
	size := int(binary.BigEndian.Uint16(packet[ip4Length:]))
	if version(packet) == 6 {
		size = ip6Header + int(binary.BigEndian.Uint16(packet[ip6Length:]))
	} else if plainSum(packet[:ip4Header]) != 0 {
		t.Error("wrong checksum of a large packet's IPv4 header")
	}
	if size != len(packet) {
		t.Errorf("a large packet of %d bytes says %d", len(packet), size)
	}
	protocol := byte(protocolTCP)
	if h.gso == gsoUDP {
		protocol = protocolUDP
		if got := int(binary.BigEndian.Uint16(packet[int(h.sumStart)+udpLength:])); got != len(packet)-int(h.sumStart) {
			t.Errorf("a large packet's UDP length is %d", got)
		}
	}
	field := binary.BigEndian.Uint16(packet[int(h.sumStart)+int(h.sumOffset):])
	if want := ^plainSum(pseudoHeader(packet, int(h.sumStart), protocol)); field != want {
		t.Errorf("pseudo header's sum %#x, want %#x", field, want)
	}
}

func coalesce(t testing.TB, packets ...[]byte) *kept {
	k := &kept{t: t}
	c := coalescer{sink: k, udp: true}
	for _, p := range packets {
		addPacket(&c, bytes.Clone(p))
	}
	c.flush()
	return k
}

// What comes out, split again, is what went in.
func TestCoalesceAndSplit(t *testing.T) {
	for _, f := range kinds() {
		for _, size := range []int{1, 1000, 1001, 2500, 60000} {
			t.Run(fmt.Sprintf("v6 %v udp %v %d", f.v6, f.udp, size), func(t *testing.T) {
				h, packet := f.large(random(size), 1000)
				packets := split(t, h, packet)
				k := coalesce(t, packets...)
				if len(k.sizes) != 1 {
					t.Errorf("%v packets each, want all in one", k.sizes)
				}
				same(t, k.packets, packets)
			})
		}
	}
}

func same(t testing.TB, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d packets, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("packet %d:\n%x, want\n%x", i, got[i][:min(80, len(got[i]))], want[i][:min(80, len(want[i]))])
		}
	}
}

// What the kernel's GRO leaves alone is left alone (tcp_gro_receive,
// udp_gro_receive, inet_gro_receive), and nothing is lost or overtaken.
func TestCoalesceLeavesAlone(t *testing.T) {
	tcp := func(change func(f *template)) []byte {
		f := template{from: 1, to: 2, flags: flagACK, seq: 1000, id: 1}
		if change != nil {
			change(&f)
		}
		return f.packet(random(1000))
	}
	udp := func(n int, change func(b []byte)) []byte {
		b := template{from: 1, to: 2, udp: true, id: 1}.packet(random(n))
		if change != nil {
			change(b)
		}
		return b
	}
	fix := func(b []byte) []byte { // after a change in the header
		finishIP4(b, ip4Header)
		field := b[ip4Header+tcpChecksum:][:2]
		clear(field)
		checksum(0).pseudo(addresses(b), protocolTCP, len(b)-ip4Header).add(b[ip4Header:]).finish(field)
		return b
	}
	first := tcp(func(f *template) { f.seq, f.id = 0, 0 })
	second := tcp(nil)
	if k := coalesce(t, first, second); len(k.sizes) != 1 {
		t.Fatalf("the packets of this test do not go together: %v", k.sizes)
	}
	for name, b := range map[string][]byte{
		"another port":       tcp(func(f *template) { f.port = 9 }),
		"another address":    tcp(func(f *template) { f.from = 9 }),
		"a gap":              tcp(func(f *template) { f.seq = 1001 }),
		"an overlap":         tcp(func(f *template) { f.seq = 999 }),
		"the same again":     tcp(func(f *template) { f.seq = 0 }),
		"FIN":                tcp(func(f *template) { f.flags |= flagFIN }),
		"SYN":                tcp(func(f *template) { f.flags |= 2 }),
		"RST":                tcp(func(f *template) { f.flags |= 4 }),
		"URG":                tcp(func(f *template) { f.flags |= 0x20 }),
		"ECE":                tcp(func(f *template) { f.flags |= 0x40 }),
		"CWR":                tcp(func(f *template) { f.flags |= flagCWR }),
		"no ACK":             tcp(func(f *template) { f.flags = 0 }),
		"other options":      tcp(func(f *template) { f.options = []byte{1, 1, 1, 1} }),
		"larger":             template{from: 1, to: 2, flags: flagACK, seq: 1000, id: 1}.packet(random(1001)),
		"empty":              template{from: 1, to: 2, flags: flagACK, seq: 1000, id: 1}.packet(nil),
		"a wrong checksum":   func() []byte { b := tcp(nil); b[len(b)-1]++; return b }(),
		"another ack":        fix(func() []byte { b := tcp(nil); b[ip4Header+tcpAck]++; return b }()),
		"another window":     fix(func() []byte { b := tcp(nil); b[ip4Header+tcpWindow]++; return b }()),
		"an urgent pointer":  fix(func() []byte { b := tcp(nil); b[ip4Header+18]++; return b }()),
		"another TTL":        fix(func() []byte { b := tcp(nil); b[ip4TTL]++; return b }()),
		"another TOS":        fix(func() []byte { b := tcp(nil); b[1]++; return b }()),
		"fragments allowed":  fix(func() []byte { b := tcp(nil); b[ip4Fragment] = 0; return b }()),
		"a fragment":         fix(func() []byte { b := tcp(nil); b[ip4Fragment] = 0x20; return b }()),
		"identification + 2": fix(func() []byte { b := tcp(nil); b[ip4ID+1] = 2; return b }()),
		"a broken header":    func() []byte { b := tcp(nil); b[ip4Checksum]++; return b }(),
		"ICMP":               fix(func() []byte { b := tcp(nil); b[ip4Protocol] = 1; return b }()),
	} {
		k := coalesce(t, first, b)
		if len(k.sizes) != 2 {
			t.Errorf("%s: put together", name)
		}
		same(t, k.packets, [][]byte{first, b})
	}
	for name, pair := range map[string][2][]byte{
		"UDP, larger":       {template{from: 1, to: 2, udp: true}.packet(random(100)), udp(101, nil)},
		"UDP, no checksum":  {template{from: 1, to: 2, udp: true}.packet(random(100)), udp(100, func(b []byte) { clear(b[ip4Header+udpChecksum:][:2]) })},
		"UDP, wrong length": {template{from: 1, to: 2, udp: true}.packet(random(100)), udp(100, func(b []byte) { b[ip4Header+udpLength+1]++ })},
	} {
		k := coalesce(t, pair[0], pair[1])
		if len(k.sizes) != 2 {
			t.Errorf("%s: put together", name)
		}
		same(t, k.packets, pair[:])
	}
	// After a shorter packet, or one with PSH, nothing follows.
	short := template{from: 1, to: 2, flags: flagACK, seq: 1000, id: 1}.packet(random(10))
	after := template{from: 1, to: 2, flags: flagACK, seq: 1010, id: 2}.packet(random(10))
	if k := coalesce(t, first, short, after); len(k.sizes) != 2 || k.sizes[0] != 2 {
		t.Errorf("after a shorter packet: %v", k.sizes)
	}
	pushed := tcp(func(f *template) { f.flags |= flagPSH })
	next := tcp(func(f *template) { f.seq, f.id = 2000, 2 })
	if k := coalesce(t, first, pushed, next); len(k.sizes) != 2 || k.sizes[0] != 2 {
		t.Errorf("after PSH: %v", k.sizes)
	}
	// Identification may stay the same where it means nothing (RFC 6864).
	fixed := tcp(func(f *template) { f.id = 0 })
	if k := coalesce(t, first, fixed); len(k.sizes) != 1 {
		t.Error("a fixed identification was not put together")
	}
}

// Flows that take turns are put together each, in order, and more of them than
// there is room for lose nothing.
func TestCoalesceManyFlows(t *testing.T) {
	var packets [][]byte
	flows := 3 * maxBundles / 2
	for round := range 10 {
		for i := range flows {
			packets = append(packets, template{
				from: 1, to: 2, flags: flagACK, port: uint16(i), seq: uint32(round * 100), id: uint16(round),
			}.packet(random(100)))
		}
	}
	k := coalesce(t, packets...)
	if len(k.packets) != len(packets) {
		t.Errorf("%d packets, want %d", len(k.packets), len(packets))
	}
	next := make([]uint32, flows)
	for _, p := range k.packets {
		port := binary.BigEndian.Uint16(p[ip4Header:]) - 1000
		if seq := binary.BigEndian.Uint32(p[ip4Header+tcpSeq:]); seq != next[port] {
			t.Errorf("flow %d: %d, want %d", port, seq, next[port])
		}
		next[port] += 100
	}
	few := coalesce(t, packets[:4]...)
	if len(few.sizes) != 4 {
		t.Errorf("%v", few.sizes)
	}
}

// FuzzCoalesce cuts arbitrary packets out of data: what is delivered, split
// again, are the same packets, each flow in its order.
func FuzzCoalesce(f *testing.F) {
	for _, k := range kinds() {
		h, packet := k.large(random(3000), 1000)
		var all []byte
		for _, p := range split(f, h, packet) {
			all = binary.BigEndian.AppendUint16(all, uint16(len(p)))
			all = append(all, p...)
		}
		f.Add(all)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		want := map[string]int{}
		k := &kept{t: t}
		c := coalescer{sink: k, udp: true}
		for len(data) >= 2 {
			n := min(int(binary.BigEndian.Uint16(data)), len(data)-2)
			packet, source := trim(bytes.Clone(data[2 : 2+n]))
			data = data[2+n:]
			if source.IsValid() {
				want[unnumbered(packet)]++
				addPacket(&c, packet)
			}
		}
		c.flush()
		for _, p := range k.packets {
			want[unnumbered(p)]--
		}
		for p, n := range want {
			if n != 0 {
				t.Errorf("%+d times %x", -n, p)
			}
		}
	})
}

// unnumbered is a packet without the identification, where that means nothing.
func unnumbered(packet []byte) string {
	b := bytes.Clone(packet)
	if version(b) == 4 {
		if binary.BigEndian.Uint16(b[ip4Fragment:]) == dontFragment {
			clear(b[ip4ID : ip4ID+2])
		}
		if binary.BigEndian.Uint16(b[ip4ID:]) != binary.BigEndian.Uint16(packet[ip4ID:]) {
			finishIP4(b, ip4Header)
		}
	}
	return string(b)
}

// FuzzSplit: no packet that a kernel might hand over makes it fail.
func FuzzSplit(f *testing.F) {
	for _, k := range kinds() {
		h, packet := k.large(random(300), 100)
		var head [vnetSize]byte
		h.put(head[:])
		f.Add(append(head[:], packet...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < vnetSize {
			return
		}
		h := readVnet(data)
		if got := make([]byte, vnetSize); true {
			h.put(got)
			if !bytes.Equal(got, data[:vnetSize]) {
				t.Errorf("header %x, want %x", got, data[:vnetSize])
			}
		}
		var s splitter
		if s.init(h, bytes.Clone(data[vnetSize:])) != nil {
			return
		}
		payload := 0
		for p := s.next(); p != nil; p = s.next() {
			payload += len(p) - s.headers
		}
		if want := len(data) - vnetSize - s.headers; payload != want {
			t.Errorf("%d bytes of payload, want %d", payload, want)
		}
	})
}

// FuzzCoalesceFlows makes flows whose packets do go together, with gaps, odd sizes
// and flags among them. Each flow comes out as it went in, in order.
func FuzzCoalesceFlows(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x01\x00\x02\x00\x00\x10\x00\x20"))
	f.Fuzz(func(t *testing.T, steps []byte) {
		flows := kinds()
		payload := random(40)
		var in [][]byte
		for i := 0; i+1 < len(steps) && i < 400; i += 2 {
			flow := &flows[int(steps[i])%len(flows)]
			flow.flags = flagACK
			if steps[i]&0x80 != 0 {
				flow.flags |= flagPSH
			}
			n := []int{20, 20, 20, 20, 20, 7, 21, 0}[steps[i+1]&7]
			in = append(in, flow.packet(payload[:n]))
			flow.seq += uint32(n)
			flow.id++
			switch steps[i+1] >> 4 {
			case 1:
				flow.seq += 20
			case 2:
				flow.id--
			case 3:
				flow.port ^= 1
			}
		}
		out := coalesce(t, in...).packets
		if len(in) != len(out) {
			t.Fatalf("%d packets, want %d", len(out), len(in))
		}
		got, want := byFlow(out), byFlow(in)
		for name := range want {
			same(t, got[name], want[name])
		}
	})
}

// byFlow sorts packets by addresses, ports and protocol.
func byFlow(packets [][]byte) map[string][][]byte {
	flows := make(map[string][][]byte)
	for _, p := range packets {
		var f flow
		f.parse(p)
		name := fmt.Sprintf("%x %v %x", addresses(p), f.udp, p[f.transport:f.transport+4])
		flows[name] = append(flows[name], []byte(unnumbered(p)))
	}
	return flows
}

// addPacket adds a packet as it comes from a peer.
func addPacket(c *coalescer, packet []byte) {
	var f flow
	c.examine(packet, &f)
	c.add(&f)
}
