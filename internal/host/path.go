package host

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A Path is how the host sends to an address at the moment. The zero Path: not at
// all.
type Path struct {
	Source netip.Addr
	Link   int // index of the link that packets leave by
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
	p.Link, _ = linkTo(addr.Addr()) // 0: the route went meanwhile
	return p
}

// linkTo returns the index of the link that packets to an address leave by. A link
// that goes and comes back has another index; and the index is part of what an
// engine remembers of its source (IP_PKTINFO, ip(7)), by which it would go on
// sending whatever the routes are.
func linkTo(addr netip.Addr) (index int, err error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	route := make([]byte, unix.SizeofRtMsg) // struct rtmsg, rtnetlink(7)
	route[0], route[1] = unix.AF_INET6, byte(addr.BitLen())
	if addr.Is4() {
		route[0] = unix.AF_INET
	}
	attributes := netlink.NewAttributeEncoder()
	attributes.Bytes(unix.RTA_DST, addr.AsSlice())
	body, err := attributes.Encode()
	if err != nil {
		return 0, err
	}
	replies, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETROUTE, Flags: netlink.Request},
		Data:   append(route, body...),
	})
	if err != nil {
		return 0, err
	}
	for _, m := range replies {
		if len(m.Data) < unix.SizeofRtMsg {
			continue
		}
		found, err := netlink.UnmarshalAttributes(m.Data[unix.SizeofRtMsg:])
		if err != nil {
			return 0, err
		}
		for _, a := range found {
			if a.Type == unix.RTA_OIF && len(a.Data) == 4 {
				return int(binary.NativeEndian.Uint32(a.Data)), nil
			}
		}
	}
	return 0, errors.New("a route without a link")
}
