package native

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// A template makes packets of one flow.
type template struct {
	v6, udp  bool
	id       uint16
	seq      uint32
	flags    byte
	options  []byte // of TCP
	from, to byte   // last byte of the addresses
	port     uint16
}

// packet returns a whole packet with the payload, and room behind it.
func (f template) packet(payload []byte) []byte {
	transport := make([]byte, tcpHeader, 100)
	protocol, at := byte(protocolTCP), tcpChecksum
	binary.BigEndian.PutUint16(transport, 1000+f.port)
	binary.BigEndian.PutUint16(transport[2:], 443)
	if f.udp {
		protocol, at = protocolUDP, udpChecksum
		transport = transport[:udpHeader]
		binary.BigEndian.PutUint16(transport[udpLength:], uint16(udpHeader+len(payload)))
	} else {
		transport = append(transport, f.options...)
		binary.BigEndian.PutUint32(transport[tcpSeq:], f.seq)
		binary.BigEndian.PutUint32(transport[tcpAck:], 77)
		transport[tcpOffset] = byte(len(transport)/4) << 4
		transport[tcpFlags] = f.flags
		binary.BigEndian.PutUint16(transport[tcpWindow:], 501)
	}
	var ip []byte
	if f.v6 {
		ip = make([]byte, ip6Header)
		ip[0], ip[ip6Next], ip[ip6Next+1] = 0x60, protocol, 64
		binary.BigEndian.PutUint16(ip[ip6Length:], uint16(len(transport)+len(payload)))
		copy(ip[ip6Addrs:], netip.MustParseAddr("fd00::1").AsSlice())
		copy(ip[ip6Addrs+16:], netip.MustParseAddr("fd00::2").AsSlice())
		ip[ip6Addrs+15], ip[ip6Addrs+31] = f.from, f.to
	} else {
		ip = make([]byte, ip4Header)
		ip[0], ip[ip4TTL], ip[ip4Protocol] = 0x45, 64, protocol
		binary.BigEndian.PutUint16(ip[ip4Fragment:], dontFragment)
		binary.BigEndian.PutUint16(ip[ip4ID:], f.id)
		binary.BigEndian.PutUint16(ip[ip4Length:], uint16(ip4Header+len(transport)+len(payload)))
		copy(ip[ip4Addrs:], []byte{10, 0, 0, f.from, 10, 0, 0, f.to})
		finishIP4(ip, ip4Header)
	}
	packet := append(append(append(make([]byte, 0, 1<<16), ip...), transport...), payload...)
	field := packet[len(ip)+at : len(ip)+at+2]
	sum := plainSum(pseudoHeader(packet, len(ip), protocol), packet[len(ip):])
	if f.udp && sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(field, sum)
	return packet
}

// pseudoHeader and plainSum are RFC 1071 as it is written, to compare with.
func pseudoHeader(packet []byte, header int, protocol byte) []byte {
	b := bytes.Clone(addresses(packet))
	return binary.BigEndian.AppendUint16(append(b, 0, protocol), uint16(len(packet)-header))
}

func plainSum(parts ...[]byte) uint16 {
	var sum uint32
	b := bytes.Join(parts, nil)
	for i, c := range b {
		if i%2 == 0 {
			sum += uint32(c) << 8
		} else {
			sum += uint32(c)
		}
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum>>16 + sum&0xffff)
}

// large makes a packet and its header such as the kernel hands over.
func (f template) large(payload []byte, segment int) (vnetHeader, []byte) {
	packet := f.packet(payload)
	h := vnetHeader{flags: needsChecksum, gso: gsoTCP4, segment: uint16(segment), sumStart: ip4Header, sumOffset: tcpChecksum}
	if f.v6 {
		h.gso, h.sumStart = gsoTCP6, ip6Header
	}
	if f.udp {
		h.gso, h.sumOffset = gsoUDP, udpChecksum
	}
	return h, packet
}

func split(t testing.TB, h vnetHeader, packet []byte) (packets [][]byte) {
	t.Helper()
	var s splitter
	if err := s.init(h, packet); err != nil {
		t.Fatalf("%+v: %v", h, err)
	}
	for p := s.next(); p != nil; p = s.next() {
		packets = append(packets, bytes.Clone(p))
	}
	return packets
}

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func kinds() (all []template) {
	for _, v6 := range []bool{false, true} {
		all = append(all,
			template{v6: v6, from: 1, to: 2, flags: flagACK, seq: 1<<32 - 2000, id: 1<<16 - 2},
			template{v6: v6, from: 1, to: 2, flags: flagACK | flagPSH, options: []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}},
			template{v6: v6, from: 1, to: 2, udp: true})
	}
	return all
}

// What is split are the packets that the sender would have made by itself.
func TestSplit(t *testing.T) {
	for _, f := range kinds() {
		for _, size := range []int{0, 1, 999, 1000, 1001, 3000, 3001, 60000} {
			t.Run(fmt.Sprintf("v6 %v udp %v %d", f.v6, f.udp, size), func(t *testing.T) {
				payload := random(size)
				h, packet := f.large(payload, 1000)
				got := split(t, h, packet)
				for i, p := range got {
					one := f
					one.id += uint16(i)
					one.seq += uint32(i * 1000)
					part := payload[i*1000 : min(len(payload), (i+1)*1000)]
					if last := i == len(got)-1; !last {
						one.flags &^= flagPSH
					}
					if want := one.packet(part); !bytes.Equal(p, want) {
						t.Fatalf("packet %d of %d:\n%x, want\n%x", i, len(got), p[:60], want[:60])
					}
				}
				if want := max(1, (size+999)/1000); len(got) != want {
					t.Errorf("%d packets, want %d", len(got), want)
				}
			})
		}
	}
}

// CWR is for the first packet, FIN and PSH for the last (RFC 3168; tcp_gso_segment).
func TestSplitFlags(t *testing.T) {
	f := template{from: 1, to: 2, flags: flagACK | flagPSH | flagFIN | flagCWR}
	h, packet := f.large(random(3000), 1000)
	h.gso |= gsoECN
	want := []byte{flagACK | flagCWR, flagACK, flagACK | flagPSH | flagFIN}
	for i, p := range split(t, h, packet) {
		if got := p[ip4Header+tcpFlags]; got != want[i] {
			t.Errorf("packet %d: flags %#x, want %#x", i, got, want[i])
		}
	}
}

func TestSplitRefuses(t *testing.T) {
	f := template{from: 1, to: 2, flags: flagACK}
	for name, spoil := range map[string]func(h *vnetHeader, packet []byte) []byte{
		"no checksum":      func(h *vnetHeader, p []byte) []byte { h.flags = 0; return p },
		"no segment":       func(h *vnetHeader, p []byte) []byte { h.segment = 0; return p },
		"unknown kind":     func(h *vnetHeader, p []byte) []byte { h.gso = 3; return p },
		"wrong version":    func(h *vnetHeader, p []byte) []byte { h.gso = gsoTCP6; return p },
		"no version":       func(h *vnetHeader, p []byte) []byte { p[0] = 0x15; return p },
		"start in IP":      func(h *vnetHeader, p []byte) []byte { h.sumStart = 19; return p },
		"start behind all": func(h *vnetHeader, p []byte) []byte { h.sumStart = 60000; return p },
		"short":            func(h *vnetHeader, p []byte) []byte { return p[:30] },
		"nothing":          func(h *vnetHeader, p []byte) []byte { return nil },
		"short TCP header": func(h *vnetHeader, p []byte) []byte { p[ip4Header+tcpOffset] = 0x10; return p },
		"long TCP header":  func(h *vnetHeader, p []byte) []byte { p[ip4Header+tcpOffset] = 0xf0; return p[:50] },
	} {
		h, packet := f.large(random(100), 50)
		var s splitter
		if s.init(h, spoil(&h, packet)) == nil && s.init(h, packet) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestComplete(t *testing.T) {
	for _, f := range kinds() {
		want := f.packet([]byte("payload"))
		got := bytes.Clone(want)
		h, _ := f.large(nil, 0)
		field := got[int(h.sumStart)+int(h.sumOffset):][:2]
		protocol := byte(protocolTCP)
		if f.udp {
			protocol = protocolUDP
		}
		checksum(0).pseudo(addresses(got), protocol, len(got)-int(h.sumStart)).put(field)
		if err := complete(h, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%+v: %v\n%x, want\n%x", f, err, got, want)
		}
		h.sumOffset = 60000
		if complete(h, got) == nil {
			t.Error("a checksum behind the packet")
		}
	}
}

func TestChecksum(t *testing.T) {
	for n := range 200 {
		b := random(n)
		if n%3 == 0 {
			for i := range b {
				b[i] = 0xff
			}
		}
		var field [2]byte
		checksum(0).add(b).finish(field[:])
		if got, want := binary.BigEndian.Uint16(field[:]), plainSum(b); got != want && got^want != 0xffff {
			t.Errorf("%d bytes: %#x, want %#x", n, got, want)
		}
	}
}
