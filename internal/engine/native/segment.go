package native

import (
	"encoding/binary"
	"errors"
)

// A vnetHeader is struct virtio_net_hdr, which stands before each packet that is
// read from or written to a TUN device opened with IFF_VNET_HDR.
type vnetHeader struct {
	flags, gso                            byte
	headers, segment, sumStart, sumOffset uint16
}

const (
	vnetSize = 10

	needsChecksum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM

	gsoNone = 0 // VIRTIO_NET_HDR_GSO_NONE
	gsoTCP4 = 1
	gsoTCP6 = 4
	gsoUDP  = 5 // VIRTIO_NET_HDR_GSO_UDP_L4
	gsoECN  = 0x80
)

func readVnet(b []byte) vnetHeader {
	_ = b[vnetSize-1]
	return vnetHeader{
		flags: b[0], gso: b[1],
		headers:   binary.NativeEndian.Uint16(b[2:]),
		segment:   binary.NativeEndian.Uint16(b[4:]),
		sumStart:  binary.NativeEndian.Uint16(b[6:]),
		sumOffset: binary.NativeEndian.Uint16(b[8:]),
	}
}

func (h vnetHeader) put(b []byte) {
	_ = b[vnetSize-1]
	b[0], b[1] = h.flags, h.gso
	binary.NativeEndian.PutUint16(b[2:], h.headers)
	binary.NativeEndian.PutUint16(b[4:], h.segment)
	binary.NativeEndian.PutUint16(b[6:], h.sumStart)
	binary.NativeEndian.PutUint16(b[8:], h.sumOffset)
}

var errVnet = errors.New("malformed packet from the TUN device")

// maxHeaders bounds IP and TCP headers: IPv6 with what extensions there may be.
const maxHeaders = 256

// A splitter cuts one large packet (GSO) into those that the link could carry,
// as the kernel would have done (tcp_gso_segment, __udp_gso_segment), in place:
//
//	│ headers │ payload 1 │ payload 2 │ payload 3 │
//	├── packet 1 ─────────┤           │           │
//	          ├─ headers ─┼── 2 ──────┤           │   written over payload 1
//	                      ├─ headers ─┼── 3 ──────┤
//
// so each packet must be done with before the next is taken.
type splitter struct {
	buffer    []byte
	headers   int // length of IP and transport header
	transport int // where the transport header begins
	segment   int // payload of each packet
	at        int // where the next payload begins
	udp       bool
	index     int
	first     [maxHeaders]byte // headers of the large packet
}

// init begins to split buffer, of which h was read.
func (s *splitter) init(h vnetHeader, buffer []byte) error {
	s.transport, s.segment, s.index = int(h.sumStart), int(h.segment), 0
	s.udp = h.gso == gsoUDP
	if len(buffer) < ip4Header || s.segment == 0 || h.flags&needsChecksum == 0 || s.transport < ip4Header {
		return errVnet
	}
	v := version(buffer)
	switch h.gso &^ gsoECN {
	case gsoTCP4:
		if v != 4 {
			return errVnet
		}
	case gsoTCP6:
		if v != 6 {
			return errVnet
		}
	case gsoUDP:
	default:
		return errVnet
	}
	if v != 4 && (v != 6 || s.transport < ip6Header) {
		return errVnet
	}
	// The header's own idea of its length is that of the whole packet when it
	// was forwarded.
	s.headers = s.transport + udpHeader
	if !s.udp {
		if len(buffer) < s.transport+tcpHeader {
			return errVnet
		}
		s.headers = s.transport + int(buffer[s.transport+tcpOffset]>>4)*4
		if s.headers < s.transport+tcpHeader {
			return errVnet
		}
	}
	if s.headers > len(buffer) || s.headers > maxHeaders {
		return errVnet
	}
	copy(s.first[:], buffer[:s.headers])
	s.buffer, s.at = buffer, s.headers
	return nil
}

// next returns the next packet, nil after the last. The bytes behind it are the
// payload to come.
func (s *splitter) next() []byte {
	if s.at >= len(s.buffer) && s.index > 0 {
		return nil
	}
	end := min(s.at+s.segment, len(s.buffer))
	packet := s.buffer[s.at-s.headers : end]
	if s.index > 0 {
		copy(packet, s.first[:s.headers])
	}
	s.finishIP(packet)
	if s.udp {
		s.finishUDP(packet)
	} else {
		s.finishTCP(packet, end == len(s.buffer))
	}
	s.at = end
	s.index++
	return packet
}

func (s *splitter) finishIP(packet []byte) {
	if version(packet) == 6 {
		binary.BigEndian.PutUint16(packet[ip6Length:], uint16(len(packet)-ip6Header))
		return
	}
	id := binary.BigEndian.Uint16(s.first[ip4ID:])
	binary.BigEndian.PutUint16(packet[ip4Length:], uint16(len(packet)))
	binary.BigEndian.PutUint16(packet[ip4ID:], id+uint16(s.index))
	finishIP4(packet, s.transport)
}

// finishIP4 writes the checksum of an IPv4 header.
func finishIP4(packet []byte, header int) {
	field := packet[ip4Checksum : ip4Checksum+2]
	clear(field)
	checksum(0).add(packet[:header]).finish(field)
}

func (s *splitter) finishTCP(packet []byte, last bool) {
	tcp := packet[s.transport:]
	seq := binary.BigEndian.Uint32(s.first[s.transport+tcpSeq:])
	binary.BigEndian.PutUint32(tcp[tcpSeq:], seq+uint32(s.index*s.segment))
	flags := s.first[s.transport+tcpFlags]
	if !last {
		flags &^= flagFIN | flagPSH
	}
	if s.index > 0 {
		flags &^= flagCWR
	}
	tcp[tcpFlags] = flags
	field := tcp[tcpChecksum : tcpChecksum+2]
	clear(field)
	checksum(0).pseudo(addresses(packet), protocolTCP, len(tcp)).add(tcp).finish(field)
}

func (s *splitter) finishUDP(packet []byte) {
	udp := packet[s.transport:]
	binary.BigEndian.PutUint16(udp[udpLength:], uint16(len(udp)))
	field := udp[udpChecksum : udpChecksum+2]
	clear(field)
	checksum(0).pseudo(addresses(packet), protocolUDP, len(udp)).add(udp).finishUDP(field)
}

// complete writes the checksum that the kernel left to the device. The field
// holds the sum over the pseudo header.
func complete(h vnetHeader, packet []byte) error {
	if h.flags&needsChecksum == 0 {
		return nil
	}
	start, at := int(h.sumStart), int(h.sumStart)+int(h.sumOffset)
	if start > len(packet) || at+2 > len(packet) {
		return errVnet
	}
	checksum(0).add(packet[start:]).finishUDP(packet[at : at+2])
	return nil
}
