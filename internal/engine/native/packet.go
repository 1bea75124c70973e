package native

import (
	"encoding/binary"
	"net/netip"
)

// Offsets in the headers of RFC 791, RFC 8200, RFC 9293 and RFC 768.
const (
	ip4Header = 20
	ip6Header = 40
	tcpHeader = 20
	udpHeader = 8

	ip4Length, ip4ID, ip4Fragment, ip4TTL, ip4Protocol, ip4Checksum, ip4Addrs = 2, 4, 6, 8, 9, 10, 12

	ip6Length, ip6Next, ip6Addrs = 4, 6, 8

	tcpSeq, tcpAck, tcpOffset, tcpFlags, tcpWindow, tcpChecksum = 4, 8, 12, 13, 14, 16
	udpLength, udpChecksum                                      = 4, 6

	protocolTCP, protocolUDP = 6, 17

	flagFIN, flagPSH, flagACK, flagCWR = 0x01, 0x08, 0x10, 0x80

	dontFragment = 0x4000
)

func version(packet []byte) byte { return packet[0] >> 4 }

// addresses returns source and destination of an IP packet, as one.
func addresses(packet []byte) []byte {
	if version(packet) == 4 {
		return packet[ip4Addrs:ip4Header]
	}
	return packet[ip6Addrs:ip6Header]
}

// destinationOf returns where an IP packet goes; it is not valid if it is none.
func destinationOf(packet []byte) netip.Addr {
	switch {
	case len(packet) >= ip4Header && version(packet) == 4:
		return netip.AddrFrom4([4]byte(packet[ip4Addrs+4:]))
	case len(packet) >= ip6Header && version(packet) == 6:
		return netip.AddrFrom16([16]byte(packet[ip6Addrs+16:]))
	}
	return netip.Addr{}
}

// trim cuts the padding off an IP packet and returns where it comes from. The
// address is not valid if it is no packet.
func trim(plain []byte) ([]byte, netip.Addr) {
	var size int
	var source netip.Addr
	switch {
	case len(plain) >= ip4Header && version(plain) == 4:
		size = int(binary.BigEndian.Uint16(plain[ip4Length:]))
		source = netip.AddrFrom4([4]byte(plain[ip4Addrs:]))
		if size < ip4Header {
			return nil, netip.Addr{}
		}
	case len(plain) >= ip6Header && version(plain) == 6:
		size = ip6Header + int(binary.BigEndian.Uint16(plain[ip6Length:]))
		source = netip.AddrFrom16([16]byte(plain[ip6Addrs:]))
	}
	if size > len(plain) {
		return nil, netip.Addr{}
	}
	return plain[:size], source
}
