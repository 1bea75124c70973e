// Package link sets up kernel network interfaces over a route-netlink socket
// that it is given (rtnetlink(7)). The socket belongs to the network namespace it
// was made in, so the caller may stand in another one; the kernel asks that the
// caller's uid owns the user namespace of that network namespace.
package link

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Config says how a link is to be. The zero MTU leaves the kernel's.
type Config struct {
	Name      string
	MTU       int            // bytes, of the inner packet
	Addresses []netip.Prefix // host bits are the address
	Routes    []netip.Prefix // destinations reached over the link
	Table     int            // routing table; 0 is main
	Up        bool
	Loopback  bool // bring lo up as well
}

// A Conn configures the links of one network namespace.
type Conn struct{ nl *netlink.Conn }

// NewConn uses the netlink socket fd, which stays the caller's and must outlive
// the Conn.
func NewConn(fd int) (*Conn, error) {
	s, pid, err := newSocket(fd)
	if err != nil {
		return nil, err
	}
	return &Conn{nl: netlink.NewConn(s, pid)}, nil
}

// Configure makes the link as c says, in the order that leaves no gap: nothing
// is sent from an address that is not ours, and no route comes before the link.
func (n *Conn) Configure(c Config) error {
	if c.Loopback {
		lo, err := n.index("lo")
		if err != nil {
			return err
		}
		if err := n.change(lo, change{up: true}); err != nil {
			return fmt.Errorf("set lo up: %w", err)
		}
	}
	index, err := n.index(c.Name)
	if err != nil {
		return err
	}
	// Without this a link-local address appears when the link goes up, and
	// router solicitations are the first thing that leaves through the tunnel.
	if err := n.change(index, change{noLinkLocal: true}); err != nil && !noIPv6(err) {
		return fmt.Errorf("set addr_gen_mode of %s: %w", c.Name, err)
	}
	if c.MTU != 0 {
		if err := n.setMTU(index, c.Name, c.MTU); err != nil {
			return err
		}
	}
	for _, a := range c.Addresses {
		if err := n.addAddress(index, a); err != nil {
			return fmt.Errorf("add address %s to %s: %w", a, c.Name, err)
		}
	}
	if c.Up {
		if err := n.change(index, change{up: true}); err != nil {
			return fmt.Errorf("set %s up: %w", c.Name, err)
		}
	}
	for _, r := range c.Routes {
		if err := n.addRoute(index, c.Table, r); err != nil {
			return fmt.Errorf("add route %s over %s: %w", r, c.Name, err)
		}
	}
	return nil
}

// Change makes of a link that is as old says one that is as c says. What both
// say is not touched, and so connections over it live on; what somebody else
// added stays. Of the name, the state and lo nothing is changed. It goes on after
// a failure, and returns all of them.
func (n *Conn) Change(old, c Config) error {
	index, err := n.index(c.Name)
	if err != nil {
		return err
	}
	var errs []error
	try := func(err error, format string, args ...any) {
		if err != nil {
			errs = append(errs, fmt.Errorf(format+": %w", append(args, err)...))
		}
	}
	if c.MTU != 0 && c.MTU != old.MTU {
		errs = append(errs, n.setMTU(index, c.Name, c.MTU))
	}
	// The new ones come first: an app finds the old or the new, and never none. An
	// address in the subnet of an older one is its secondary, and went with it.
	try(n.change(index, change{promote: true}), "set promote_secondaries of %s", c.Name)
	for _, a := range without(c.Addresses, old.Addresses) {
		try(n.addAddress(index, a), "add address %s to %s", a, c.Name)
	}
	added, removed := without(c.Routes, old.Routes), without(old.Routes, c.Routes)
	if c.Table != old.Table {
		added, removed = c.Routes, old.Routes
	}
	for _, r := range added {
		try(n.addRoute(index, c.Table, r), "add route %s over %s", r, c.Name)
	}
	for _, r := range removed {
		try(n.removeRoute(index, old.Table, r), "remove route %s over %s", r, c.Name)
	}
	for _, a := range without(old.Addresses, c.Addresses) {
		try(n.removeAddress(index, a), "remove address %s from %s", a, c.Name)
	}
	return errors.Join(errs...)
}

// without returns what is in a and not in b.
func without(a, b []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(a), func(p netip.Prefix) bool { return slices.Contains(b, p) })
}

// SetMTU changes the MTU of a link, in bytes.
func (n *Conn) SetMTU(name string, mtu int) error {
	index, err := n.index(name)
	if err != nil {
		return err
	}
	return n.setMTU(index, name, mtu)
}

func (n *Conn) setMTU(index int, name string, mtu int) error {
	if err := n.change(index, change{mtu: mtu}); err != nil {
		return fmt.Errorf("set MTU of %s to %d: %w", name, mtu, err)
	}
	return nil
}

// noIPv6 tells that the kernel runs without IPv6 (ipv6.disable=1).
func noIPv6(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}
