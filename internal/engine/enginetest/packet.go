package enginetest

import (
	"encoding/binary"
	"net/netip"
)

// UDPPacket makes an IP packet of either family with UDP in it.
func UDPPacket(from, to netip.AddrPort, payload []byte) []byte {
	const protocolUDP = 17
	length := 8 + len(payload)
	var ip, pseudo []byte
	pseudo = append(append(pseudo, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	if from.Addr().Is4() {
		ip = make([]byte, 12, 20)
		ip[0], ip[8], ip[9] = 0x45, 64, protocolUDP
		binary.BigEndian.PutUint16(ip[2:], uint16(20+length))
		ip = append(ip, pseudo...)
		binary.BigEndian.PutUint16(ip[10:], sum(ip))
	} else {
		ip = make([]byte, 8, 40)
		ip[0], ip[6], ip[7] = 0x60, protocolUDP, 64
		binary.BigEndian.PutUint16(ip[4:], uint16(length))
		ip = append(ip, pseudo...)
	}
	udp := binary.BigEndian.AppendUint16(nil, from.Port())
	udp = binary.BigEndian.AppendUint16(udp, to.Port())
	udp = binary.BigEndian.AppendUint16(udp, uint16(length))
	udp = append(append(udp, 0, 0), payload...)
	pseudo = append(pseudo, 0, protocolUDP)
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(length))
	check := sum(append(pseudo, udp...))
	if check == 0 {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], check)
	return append(ip, udp...)
}

// UDPPayload is the payload of what UDPPacket makes, or the kernel, with the
// padding behind it cut; nil for another packet.
func UDPPayload(packet []byte) []byte {
	if len(packet) == 0 {
		return nil
	}
	header := 20
	if packet[0]>>4 == 6 {
		header = 40
	}
	if len(packet) < header+8 {
		return nil
	}
	udp := packet[header:]
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if protocol := packet[map[int]int{20: 9, 40: 6}[header]]; protocol != 17 || length < 8 || length > len(udp) {
		return nil
	}
	return udp[8:length]
}

// sum is the checksum of RFC 1071.
func sum(b []byte) uint16 {
	var s uint32
	for i, c := range b {
		s += uint32(c) << (8 * (1 - i%2))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}
