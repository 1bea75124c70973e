package native

import (
	"bytes"
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// numbered is a packet with n bytes of payload, which are all its number.
func (f template) numbered(number, n int) []byte {
	return f.packet(bytes.Repeat([]byte{byte(number)}, n))
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

// transport is where the transport header begins.
func (f template) transport() int {
	if f.v6 {
		return ip6Header
	}
	return ip4Header
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
