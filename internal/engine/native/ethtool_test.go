package native

import (
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"wireguard4netns/internal/nstest"
)

// features of a link, with the names that ethtool(8) has for them.
type features struct {
	Link  string
	On    bool
	Names []string
}

// setFeatures turns them on or off: Documentation/networking/ethtool-netlink.rst.
var setFeatures = nstest.NewFunc("set features", func(f features) (none struct{}, err error) {
	conn, err := netlink.Dial(unix.NETLINK_GENERIC, nil)
	if err != nil {
		return none, err
	}
	defer conn.Close()
	found, err := ask(conn, unix.GENL_ID_CTRL, unix.CTRL_CMD_GETFAMILY, func(e *netlink.AttributeEncoder) {
		e.String(unix.CTRL_ATTR_FAMILY_NAME, "ethtool")
	})
	if err != nil {
		return none, fmt.Errorf("find ethtool's netlink family: %w", err)
	}
	var family uint16
	for found.Next() {
		if found.Type() == unix.CTRL_ATTR_FAMILY_ID {
			family = found.Uint16()
		}
	}
	_, err = ask(conn, family, unix.ETHTOOL_MSG_FEATURES_SET, func(e *netlink.AttributeEncoder) {
		nest(unix.ETHTOOL_A_FEATURES_HEADER, func(e *netlink.AttributeEncoder) {
			e.String(unix.ETHTOOL_A_HEADER_DEV_NAME, f.Link)
		})(e)
		nest(unix.ETHTOOL_A_FEATURES_WANTED, nest(unix.ETHTOOL_A_BITSET_BITS, func(e *netlink.AttributeEncoder) {
			for _, name := range f.Names {
				nest(unix.ETHTOOL_A_BITSET_BITS_BIT, func(e *netlink.AttributeEncoder) {
					e.String(unix.ETHTOOL_A_BITSET_BIT_NAME, name)
					e.Flag(unix.ETHTOOL_A_BITSET_BIT_VALUE, f.On)
				})(e)
			}
		}))(e)
	})
	if err != nil {
		return none, fmt.Errorf("set features of %s: %w", f.Link, err)
	}
	return none, nil
})

// ask sends a generic netlink request and returns the attributes of the answer.
func ask(conn *netlink.Conn, family uint16, command byte, fill func(*netlink.AttributeEncoder)) (*netlink.AttributeDecoder, error) {
	attrs := netlink.NewAttributeEncoder()
	fill(attrs)
	data, err := attrs.Encode()
	if err != nil {
		return nil, err
	}
	replies, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(family), Flags: netlink.Request},
		Data:   append([]byte{command, 1, 0, 0}, data...), // struct genlmsghdr
	})
	if err != nil {
		return nil, err
	}
	return netlink.NewAttributeDecoder(replies[0].Data[4:])
}

func nest(kind uint16, fill func(*netlink.AttributeEncoder)) func(*netlink.AttributeEncoder) {
	return func(e *netlink.AttributeEncoder) {
		e.Nested(kind, func(e *netlink.AttributeEncoder) error {
			fill(e)
			return nil
		})
	}
}
