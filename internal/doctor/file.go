package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"wireguard4netns/conf"
	"wireguard4netns/internal/host"
	"wireguard4netns/internal/plan"
)

// CheckFile looks at a configuration file, and at what it needs of the machine.
func (m *Machine) CheckFile(ctx context.Context, path string) []Finding {
	f, err := os.Open(path)
	if err != nil {
		return named("file", fail(Advice{Do: "is the path right, and may you read it? ls -l " + quoteShell(path) + " tells"}, "%v", err))
	}
	defer f.Close()
	c, warnings, err := conf.Parse(io.LimitReader(f, 2<<20), path) // more than it takes
	var wrong *conf.Error
	switch {
	case errors.As(err, &wrong):
		return named("file", fail(Advice{Do: wrong.Hint}, "%s", wrong.What()))
	case err != nil:
		return named("file", fail(Advice{Do: "give a file that wg-quick(8) reads"}, "%v", err))
	}
	var list []Finding
	for _, w := range warnings {
		list = append(list, note(Advice{}, "%s", w))
	}
	if len(list) == 0 {
		list = append(list, ok("%s can be read; peers: %d", path, len(c.Peers)))
	}
	list = named("file", list...)
	list = append(list, named("file-rights", rights(f))...)
	facts := plan.Host{UID: os.Getuid(), Endpoints: map[string][]plan.Route{}}
	for _, p := range c.Peers {
		if !p.Endpoint.IsZero() {
			list = append(list, named("endpoint", m.endpoint(ctx, p.Endpoint, facts))...)
		}
	}
	if port := c.Interface.ListenPort; port != 0 {
		list = append(list, named("listen-port", listenPort(port))...)
	}
	return append(list, m.plan(c, facts)...)
}

func named(check string, list ...Finding) []Finding {
	for i := range list {
		list[i].Check = check
	}
	return list
}

// rights: the file holds a private key.
func rights(f *os.File) Finding {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return ok("not a file that lasts")
	}
	if mode := st.Mode & 0o777; mode&0o077 != 0 {
		return note(Advice{Why: "it holds a private key, and others may read or change it", Do: "chmod 600 " + quoteShell(f.Name())}, "its mode is %#o", mode)
	}
	return ok("only its owner may read it")
}

// endpoint sees that the name has an address and the host a route to one. It adds
// what it found to facts.
func (m *Machine) endpoint(ctx context.Context, e conf.Endpoint, facts plan.Host) Finding {
	found, err := host.Resolve(ctx, e)
	if err != nil {
		return m.failure(err)
	}
	facts.Endpoints[e.String()] = found
	var routed, lost []string
	for _, r := range found {
		if r.MTU != 0 {
			routed = append(routed, fmt.Sprintf("%s (path MTU %d)", r.Addr, r.MTU))
		} else {
			lost = append(lost, r.Addr.Addr().String())
		}
	}
	if len(routed) == 0 {
		return fail(Advice{Why: "the host has no route there", Do: "is the host's own network up? ip route get " + lost[0] + " tells"}, "%s: %s", e, strings.Join(lost, ", "))
	}
	return ok("%s: %s", e, strings.Join(routed, ", "))
}

func listenPort(port uint16) Finding {
	c, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
	if err != nil {
		return fail(PortInUse, "UDP port %d: %v", port, errors.Unwrap(err))
	}
	c.Close()
	return ok("UDP port %d is free", port)
}

// plan sees what run would make of it: MTU, DNS, routes.
func (m *Machine) plan(c *conf.Config, facts plan.Host) []Finding {
	p, err := plan.New(c, plan.Options{IfName: "doctor", Configure: true}, facts)
	if err != nil {
		return named("plan", m.failure(err))
	}
	var list []Finding
	for _, w := range p.Warnings {
		list = append(list, note(Advice{}, "%s", w))
	}
	if len(list) == 0 {
		list = append(list, ok("addresses: %v, routes: %v, DNS: %v", p.Link.Addresses, p.Link.Routes, p.DNS))
	}
	return append(named("plan", list...), named("mtu", mtu(c, p, facts))...)
}

// mtu compares the MTU of the file with that which the route leaves.
func mtu(c *conf.Config, p *plan.Plan, facts plan.Host) Finding {
	free := *c
	free.Interface.MTU = 0
	fits, err := plan.New(&free, plan.Options{IfName: "doctor", Configure: true}, facts)
	if err == nil && p.Link.MTU > fits.Link.MTU && c.Interface.MTU != 0 {
		return note(Advice{Why: "larger packets are cut in two on the way, or lost", Do: fmt.Sprintf("MTU = %d, or no MTU line", fits.Link.MTU)},
			"MTU = %d of the file is more than %s leaves", p.Link.MTU, fits.MTUSource)
	}
	return ok("%d, from %s", p.Link.MTU, p.MTUSource)
}
