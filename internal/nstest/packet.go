package nstest

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Packet is one captured packet.
type Packet struct {
	Link      string
	Out       bool   // sent by the Host, not received
	EtherType uint16 // unix.ETH_P_…
	Proto     uint8  // unix.IPPROTO_…; 0 if it is not IP
	Src, Dst  netip.AddrPort
	Length    int    // from the network header on
	Payload   []byte // the first bytes after the UDP header, else after IP's
}

// IsWireGuard tells whether the packet is a UDP datagram that begins as a
// WireGuard message does.
func (p Packet) IsWireGuard() bool {
	return p.Proto == unix.IPPROTO_UDP && len(p.Payload) >= 4 &&
		p.Payload[0] >= 1 && p.Payload[0] <= 4 && p.Payload[1]|p.Payload[2]|p.Payload[3] == 0
}

// IsNeighbour tells whether the packet is how hosts on one link find each
// other (ARP, neighbour discovery, multicast listener reports): every link
// carries these, and no router passes them on.
func (p Packet) IsNeighbour() bool {
	if p.EtherType == unix.ETH_P_ARP {
		return true
	}
	if p.Proto != unix.IPPROTO_ICMPV6 || len(p.Payload) == 0 {
		return false
	}
	const neighbourSolicitation, neighbourAdvertisement, listenerReport = 135, 136, 143
	kind := p.Payload[0]
	return kind == neighbourSolicitation || kind == neighbourAdvertisement || kind == listenerReport
}

func (p Packet) String() string {
	direction := "in"
	if p.Out {
		direction = "out"
	}
	return fmt.Sprintf("%s %s ethertype %#04x proto %d %v > %v length %d: %x",
		p.Link, direction, p.EtherType, p.Proto, p.Src, p.Dst, p.Length, p.Payload)
}

// parsePacket reads what it can of a packet that begins at the network header.
func parsePacket(etherType uint16, b []byte) Packet {
	p := Packet{EtherType: etherType}
	var src, dst netip.Addr
	var rest []byte
	switch {
	case etherType == unix.ETH_P_IP && len(b) >= 20 && len(b) >= int(b[0]&15)*4:
		p.Proto = b[9]
		src, _ = netip.AddrFromSlice(b[12:16])
		dst, _ = netip.AddrFromSlice(b[16:20])
		rest = b[int(b[0]&15)*4:]
	case etherType == unix.ETH_P_IPV6 && len(b) >= 40:
		src, _ = netip.AddrFromSlice(b[8:24])
		dst, _ = netip.AddrFromSlice(b[24:40])
		p.Proto, rest = b[6], b[40:]
		// Listener reports have a hop-by-hop header: RFC 3810, section 5.
		if p.Proto == unix.IPPROTO_HOPOPTS && len(rest) >= 8 && len(rest) >= 8*(int(rest[1])+1) {
			p.Proto, rest = rest[0], rest[8*(int(rest[1])+1):]
		}
	default:
		p.Payload = b
		return p
	}
	var srcPort, dstPort uint16
	if (p.Proto == unix.IPPROTO_UDP || p.Proto == unix.IPPROTO_TCP) && len(rest) >= 4 {
		srcPort, dstPort = binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])
	}
	if p.Proto == unix.IPPROTO_UDP && len(rest) >= 8 {
		rest = rest[8:]
	}
	p.Src, p.Dst = netip.AddrPortFrom(src, srcPort), netip.AddrPortFrom(dst, dstPort)
	p.Payload = rest
	return p
}
