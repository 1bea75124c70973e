package native

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// An origin is where a datagram came from, as recvmsg(2) tells: the bytes of a
// sockaddr_in6, and of the in6_pktinfo that has the address it was sent to.
// IPv4 is in there as IPv4-mapped IPv6, so one socket does for both.
type origin struct {
	name [unix.SizeofSockaddrInet6]byte
	info [unix.SizeofInet6Pktinfo]byte
}

// An endpoint is where a peer is, and from which of our addresses it is spoken
// to: where its last packet went (a "sticky" source; a host may have several).
// It does not change; a peer that roams gets another.
type endpoint struct {
	origin
	sticky bool // info is valid
}

// The offsets in a sockaddr_in6, ipv6(7).
const (
	nameFamily = 0
	namePort   = 2
	nameAddr   = 8
	nameScope  = 24
)

// endpointOf makes an endpoint for what the user gave.
func endpointOf(at netip.AddrPort) (*endpoint, error) {
	e := new(endpoint)
	binary.NativeEndian.PutUint16(e.name[nameFamily:], unix.AF_INET6)
	binary.BigEndian.PutUint16(e.name[namePort:], at.Port())
	addr := at.Addr().As16()
	copy(e.name[nameAddr:], addr[:])
	if zone := at.Addr().Zone(); zone != "" {
		scope, err := scopeOf(zone)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", syscall.EINVAL, err)
		}
		binary.NativeEndian.PutUint32(e.name[nameScope:], scope)
	}
	return e, nil
}

// scopeOf is the index of a link, given by number or name.
func scopeOf(zone string) (uint32, error) {
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	link, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(link.Index), nil
}

// addrPort is the endpoint for people.
func (o *origin) addrPort() netip.AddrPort {
	addr := netip.AddrFrom16([16]byte(o.name[nameAddr:nameScope])).Unmap()
	if scope := binary.NativeEndian.Uint32(o.name[nameScope:]); scope != 0 && addr.Is6() {
		addr = addr.WithZone(strconv.FormatUint(uint64(scope), 10))
	}
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(o.name[namePort:]))
}

// addr is the address alone.
func (o *origin) addr() netip.Addr {
	return netip.AddrFrom16([16]byte(o.name[nameAddr:nameScope])).Unmap()
}

// On a host without IPv6, sockets speak of sockaddr_in: family, port, address.

func (o *origin) putName4(b *[unix.SizeofSockaddrInet4]byte) []byte {
	binary.NativeEndian.PutUint16(b[nameFamily:], unix.AF_INET)
	copy(b[namePort:namePort+2], o.name[namePort:])
	copy(b[4:8], o.name[nameScope-4:])
	return b[:]
}

// widen turns a sockaddr_in into the sockaddr_in6 for the same place.
func (o *origin) widen() {
	four := [4]byte(o.name[4:8])
	clear(o.name[4:])
	binary.NativeEndian.PutUint16(o.name[nameFamily:], unix.AF_INET6)
	addr := netip.AddrFrom4(four).As16()
	copy(o.name[nameAddr:], addr[:])
}

// place is the bytes that a cookie is bound to: address and port.
func (o *origin) place() []byte { return o.name[namePort:nameScope] }

// is tells whether answers to o already go where it came from.
func (e *endpoint) is(o *origin) bool {
	return e != nil && e.sticky && e.origin == *o
}

// unstuck is the same place, from whichever address the kernel takes.
func (e *endpoint) unstuck() *endpoint {
	if e == nil || !e.sticky {
		return e
	}
	return &endpoint{origin: origin{name: e.name}}
}

// Ancillary messages, cmsg(3): a header of length, level and type, then data. The
// length is a word of the machine.
const (
	cmsgHeader  = unix.SizeofCmsghdr
	controlSize = 2*16 + 24 + 8 // of the two that are sent
)

// putControl writes a header, and returns where the data goes.
func putControl(b []byte, level, kind int32, size int) []byte {
	if cmsgHeader == 16 {
		binary.NativeEndian.PutUint64(b, uint64(cmsgHeader+size))
	} else {
		binary.NativeEndian.PutUint32(b, uint32(cmsgHeader+size))
	}
	binary.NativeEndian.PutUint32(b[cmsgHeader-8:], uint32(level))
	binary.NativeEndian.PutUint32(b[cmsgHeader-4:], uint32(kind))
	return b[cmsgHeader : cmsgHeader+size]
}

func controlLength(b []byte) uint64 {
	if cmsgHeader == 16 {
		return binary.NativeEndian.Uint64(b)
	}
	return uint64(binary.NativeEndian.Uint32(b))
}

// control writes what sendmsg(2) is to be told besides the address: the source, if
// it is to be a certain one, and the size of the datagrams to cut the payload into,
// if it is more than one.
func (e *endpoint) control(b *[controlSize]byte, sticky bool, segment int) []byte {
	n := 0
	if sticky {
		info := putControl(b[:], unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
		copy(info, e.info[:16])
		// The kernel chooses the link: the route may have changed.
		copy(info[16:], e.name[nameScope:])
		n = unix.CmsgSpace(unix.SizeofInet6Pktinfo)
	}
	if segment > 0 {
		binary.NativeEndian.PutUint16(putControl(b[n:], unix.SOL_UDP, unix.UDP_SEGMENT, 2), uint16(segment))
		n += unix.CmsgSpace(2)
	}
	return b[:n]
}

// read takes what recvmsg(2) told besides the payload: our own address, and the
// size of the datagrams that were put together, zero for one.
func (o *origin) read(control []byte) (segment int) {
	o.info = [unix.SizeofInet6Pktinfo]byte{}
	for len(control) >= cmsgHeader {
		size := int(controlLength(control))
		if size < cmsgHeader || size > len(control) {
			return segment
		}
		level := int32(binary.NativeEndian.Uint32(control[cmsgHeader-8:]))
		kind := int32(binary.NativeEndian.Uint32(control[cmsgHeader-4:]))
		data := control[cmsgHeader:size]
		switch {
		case level == unix.SOL_IPV6 && kind == unix.IPV6_PKTINFO && len(data) >= len(o.info):
			copy(o.info[:], data)
		case level == unix.SOL_UDP && kind == unix.UDP_GRO && len(data) >= 4:
			segment = int(binary.NativeEndian.Uint32(data))
		}
		control = control[min(len(control), unix.CmsgSpace(len(data))):]
	}
	return segment
}
