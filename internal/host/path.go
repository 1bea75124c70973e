package host

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Path is how the host sends to an address at the moment. The zero Path: not at
// all.
type Path struct {
	Source netip.Addr
	Link   int // index of the link that has Source
	MTU    int // bytes, as path MTU discovery knows it
}

// PathTo returns the path to addr. It sends nothing.
func PathTo(addr netip.AddrPort) Path {
	fd, err := connect(addr)
	if err != nil {
		return Path{}
	}
	defer unix.Close(fd)
	mtu, err := mtuOf(fd, addr)
	if err != nil {
		return Path{}
	}
	p := Path{MTU: mtu}
	switch sa, _ := unix.Getsockname(fd); sa := sa.(type) {
	case *unix.SockaddrInet4:
		p.Source = netip.AddrFrom4(sa.Addr)
	case *unix.SockaddrInet6:
		p.Source = netip.AddrFrom16(sa.Addr)
	}
	p.Link = linkOf(p.Source)
	return p
}

// linkOf returns the index of the link that has an address, or 0. A link that
// goes and comes back has another index, though its address is the same; and the
// index is part of what an engine remembers of its source (IP_PKTINFO, ip(7)).
func linkOf(source netip.Addr) int {
	dump, err := syscall.NetlinkRIB(unix.RTM_GETADDR, unix.AF_UNSPEC)
	if err != nil {
		return 0
	}
	messages, err := syscall.ParseNetlinkMessage(dump)
	if err != nil {
		return 0
	}
	for _, m := range messages {
		if m.Header.Type != unix.RTM_NEWADDR || len(m.Data) < unix.SizeofIfAddrmsg {
			continue
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			continue
		}
		for _, a := range attrs {
			if a.Attr.Type != unix.IFA_LOCAL && a.Attr.Type != unix.IFA_ADDRESS {
				continue
			}
			if addr, ok := netip.AddrFromSlice(a.Value); ok && addr == source {
				return int(binary.NativeEndian.Uint32(m.Data[4:])) // ifa_index
			}
		}
	}
	return 0
}
