// Package host finds out about the machine what a plan needs to know: where the
// endpoints are and how large a packet may be on the way to them. It changes
// nothing.
package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/conf"
	"wireguard4netns/internal/plan"
)

// ErrUnresolved: an endpoint's name has no address.
var ErrUnresolved = errors.New("endpoint does not resolve")

// resolveTimeout bounds the look-up of one name.
const resolveTimeout = 10 * time.Second

// Look finds out about the host what c and a plan for it need.
func Look(ctx context.Context, c *conf.Config) (plan.Host, error) {
	h, unresolved := look(ctx, c)
	if len(unresolved) > 0 {
		return h, unresolved[0]
	}
	return h, nil
}

// LookPatiently is Look for a tunnel that may start before the network is there. It
// says why endpoints have no address yet; an error is the end of ctx.
func LookPatiently(ctx context.Context, c *conf.Config) (h plan.Host, unresolved []error, err error) {
	h, unresolved = look(ctx, c)
	return h, unresolved, ctx.Err()
}

func look(ctx context.Context, c *conf.Config) (h plan.Host, unresolved []error) {
	h = plan.Host{UID: os.Getuid(), Endpoints: map[string][]plan.Route{}}
	h.Nsswitch, _ = os.ReadFile("/etc/nsswitch.conf") // none is a valid one
	for _, p := range c.Peers {
		if p.Endpoint.IsZero() {
			continue
		}
		found, err := Resolve(ctx, p.Endpoint)
		if err != nil {
			unresolved = append(unresolved, err)
			continue
		}
		h.Endpoints[p.Endpoint.String()] = found
	}
	return h, unresolved
}

// Resolve returns the addresses of an endpoint in the order of RFC 6724 and the
// MTU of the route to each.
func Resolve(ctx context.Context, e conf.Endpoint) ([]plan.Route, error) {
	if addr, ok := e.AddrPort(); ok {
		return []plan.Route{{Addr: addr, MTU: routeMTU(addr)}}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", e.Host)
	if err != nil {
		var dns *net.DNSError
		if errors.As(err, &dns) {
			err = errors.New(dns.Err)
		}
		return nil, fmt.Errorf("resolve endpoint %s: %w: %w", e, ErrUnresolved, err)
	}
	var routes []plan.Route
	for _, a := range addrs {
		addr := netip.AddrPortFrom(a.Unmap(), e.Port)
		routes = append(routes, plan.Route{Addr: addr, MTU: routeMTU(addr)})
	}
	return routes, nil
}

// routeMTU returns the MTU in bytes of the host's route to addr, also as path
// MTU discovery knows it, or 0 when there is no route.
func routeMTU(addr netip.AddrPort) int {
	fd, err := connect(addr)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	mtu, err := mtuOf(fd, addr)
	if err != nil {
		return 0
	}
	return mtu
}

// connect returns a UDP socket that is connected to addr, which sends nothing and
// has the kernel choose a route. The caller closes it.
func connect(addr netip.AddrPort) (fd int, err error) {
	family := unix.AF_INET
	if !addr.Addr().Is4() {
		family = unix.AF_INET6
	}
	if fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, sockaddr(addr)); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// mtuOf asks for IP_MTU (ip(7)) or its like for IPv6.
func mtuOf(fd int, addr netip.AddrPort) (int, error) {
	if addr.Addr().Is4() {
		return unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU)
	}
	return unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU)
}

func sockaddr(addr netip.AddrPort) unix.Sockaddr {
	if a := addr.Addr(); a.Is4() {
		return &unix.SockaddrInet4{Port: int(addr.Port()), Addr: a.As4()}
	}
	sa := &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
	if zone := addr.Addr().Zone(); zone != "" {
		if ifi, err := net.InterfaceByName(zone); err == nil {
			sa.ZoneId = uint32(ifi.Index)
		}
	}
	return sa
}
