package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The fixed heads of route-netlink messages, from linux/rtnetlink.h and
// linux/if_addr.h, in the machine's byte order.

// ifinfomsg is struct ifinfomsg.
func ifinfomsg(index int, flags, change uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], change)
	return b
}

// ifaddrmsg is struct ifaddrmsg.
func ifaddrmsg(index int, p netip.Prefix) []byte {
	b := make([]byte, unix.SizeofIfAddrmsg)
	b[0], b[1] = family(p.Addr()), byte(p.Bits())
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	return b
}

// rtmsg is struct rtmsg of a unicast route over a link.
func rtmsg(table int, p netip.Prefix) []byte {
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[1] = family(p.Addr()), byte(p.Bits())
	b[4] = unix.RT_TABLE_UNSPEC // RTA_TABLE says it
	b[5], b[7] = unix.RTPROT_STATIC, unix.RTN_UNICAST
	b[6] = unix.RT_SCOPE_LINK
	if p.Addr().Is6() {
		b[6] = unix.RT_SCOPE_UNIVERSE
	}
	return b
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// index finds a link by its name.
func (n *Conn) index(name string) (int, error) {
	attrs := netlink.NewAttributeEncoder()
	attrs.String(unix.IFLA_IFNAME, name)
	reply, err := n.execute(unix.RTM_GETLINK, 0, ifinfomsg(0, 0, 0), attrs)
	if err != nil {
		return 0, fmt.Errorf("find link %s: %w", name, err)
	}
	for _, m := range reply {
		if m.Header.Type == unix.RTM_NEWLINK && len(m.Data) >= unix.SizeofIfInfomsg {
			return int(binary.NativeEndian.Uint32(m.Data[4:])), nil
		}
	}
	return 0, fmt.Errorf("find link %s: no answer", name)
}

// change is what one RTM_NEWLINK alters.
type change struct {
	up          bool
	mtu         int
	noLinkLocal bool
	promote     bool // a secondary address when its primary is removed
}

func (n *Conn) change(index int, c change) error {
	var flags uint32
	if c.up {
		flags = unix.IFF_UP
	}
	attrs := netlink.NewAttributeEncoder()
	if c.mtu != 0 {
		attrs.Uint32(unix.IFLA_MTU, uint32(c.mtu))
	}
	if c.promote {
		attrs.Nested(unix.IFLA_AF_SPEC, func(spec *netlink.AttributeEncoder) error {
			spec.Nested(unix.AF_INET, func(inet *netlink.AttributeEncoder) error {
				inet.Nested(iflaInetConf, func(conf *netlink.AttributeEncoder) error {
					conf.Uint32(ipv4PromoteSecondaries, 1)
					return nil
				})
				return nil
			})
			return nil
		})
	}
	if c.noLinkLocal {
		attrs.Nested(unix.IFLA_AF_SPEC, func(spec *netlink.AttributeEncoder) error {
			spec.Nested(unix.AF_INET6, func(inet6 *netlink.AttributeEncoder) error {
				inet6.Uint8(unix.IFLA_INET6_ADDR_GEN_MODE, in6AddrGenModeNone)
				return nil
			})
			return nil
		})
	}
	_, err := n.execute(unix.RTM_NEWLINK, netlink.Acknowledge, ifinfomsg(index, flags, flags), attrs)
	return err
}

const (
	iflaInetConf           = 1  // IFLA_INET_CONF of linux/if_link.h
	ipv4PromoteSecondaries = 20 // IPV4_DEVCONF_PROMOTE_SECONDARIES of linux/ip.h
)

// in6AddrGenModeNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h.
const in6AddrGenModeNone = 1

func (n *Conn) addAddress(index int, p netip.Prefix) error {
	attrs := netlink.NewAttributeEncoder()
	attrs.Bytes(unix.IFA_LOCAL, p.Addr().AsSlice())
	attrs.Bytes(unix.IFA_ADDRESS, p.Addr().AsSlice())
	// Nobody else can have the address on a point-to-point link; duplicate
	// address detection would only hold up the first second.
	attrs.Uint32(unix.IFA_FLAGS, unix.IFA_F_NODAD)
	_, err := n.execute(unix.RTM_NEWADDR, netlink.Acknowledge|netlink.Create|netlink.Replace, ifaddrmsg(index, p), attrs)
	return err
}

func (n *Conn) removeAddress(index int, p netip.Prefix) error {
	attrs := netlink.NewAttributeEncoder()
	attrs.Bytes(unix.IFA_LOCAL, p.Addr().AsSlice())
	attrs.Bytes(unix.IFA_ADDRESS, p.Addr().AsSlice())
	_, err := n.execute(unix.RTM_DELADDR, netlink.Acknowledge, ifaddrmsg(index, p), attrs)
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil // somebody was faster
	}
	return err
}

// metricIPv6 puts a route before those that others make, which have 1024
// (IP6_RT_PRIO_USER).
const metricIPv6 = 512

// addRoute adds a route that comes before another to the same destination and
// leaves that in place: the namespace may have a network already, and is to have
// it again when the link is gone.
func (n *Conn) addRoute(index, table int, p netip.Prefix) error {
	// Of IPv4 routes with the same metric the last one made is the first.
	err := n.route(unix.RTM_NEWROUTE, netlink.Create, index, table, p)
	if errors.Is(err, unix.EEXIST) {
		return nil // this very route: a hook was faster
	}
	return err
}

func (n *Conn) removeRoute(index, table int, p netip.Prefix) error {
	err := n.route(unix.RTM_DELROUTE, 0, index, table, p)
	if errors.Is(err, unix.ESRCH) {
		return nil // somebody was faster
	}
	return err
}

func (n *Conn) route(kind uint16, flags netlink.HeaderFlags, index, table int, p netip.Prefix) error {
	if table == 0 {
		table = unix.RT_TABLE_MAIN
	}
	attrs := netlink.NewAttributeEncoder()
	attrs.Bytes(unix.RTA_DST, p.Masked().Addr().AsSlice())
	attrs.Uint32(unix.RTA_OIF, uint32(index))
	attrs.Uint32(unix.RTA_TABLE, uint32(table))
	if p.Addr().Is6() {
		attrs.Uint32(unix.RTA_PRIORITY, metricIPv6)
	}
	_, err := n.execute(kind, netlink.Acknowledge|flags, rtmsg(table, p), attrs)
	return err
}

func (n *Conn) execute(kind uint16, flags netlink.HeaderFlags, head []byte, attrs *netlink.AttributeEncoder) ([]netlink.Message, error) {
	tail, err := attrs.Encode()
	if err != nil {
		return nil, err
	}
	reply, err := n.nl.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | flags},
		Data:   append(head, tail...),
	})
	if op := (*netlink.OpError)(nil); errors.As(err, &op) {
		return nil, op.Err // the callers say what was tried
	}
	return reply, err
}
