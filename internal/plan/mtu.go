package plan

import (
	"fmt"
	"math"

	"wireguard4netns/conf"
)

// What WireGuard adds to a packet: 32 bytes of its own (whitepaper, 5.4.6) and
// the UDP and IP headers.
const (
	overheadIPv4 = 32 + 8 + 20
	overheadIPv6 = 32 + 8 + 40
)

const (
	minIPv6MTU    = 1280 // RFC 8200, section 5; Linux drops IPv6 from a link below it
	defaultMTU    = 1420 // Ethernet's 1500 less overheadIPv6, as wg-quick has it
	largestPacket = math.MaxUint16
)

// mtu decides the MTU of the link: the file's, or what the host's route to the
// endpoint leaves; with several peers the smallest, as one link serves all.
func (p *Plan) mtu(c *conf.Config, o Options) {
	_, v6 := families(c.Interface.Addresses)
	if p.Link.MTU = c.Interface.MTU; p.Link.MTU != 0 {
		p.MTUSource = "the file"
		if v6 && p.Link.MTU < minIPv6MTU {
			p.warn("MTU %d is below %d: Linux has no IPv6 on such a link", p.Link.MTU, minIPv6MTU)
		}
		return
	}
	for _, peer := range p.Peers {
		if len(peer.Candidates) == 0 || peer.Candidates[0].MTU == 0 {
			continue
		}
		first := peer.Candidates[0]
		overhead := overheadIPv6
		if first.Addr.Addr().Is4() {
			overhead = overheadIPv4
		}
		mtu := min(first.MTU, largestPacket) - overhead
		if p.Link.MTU == 0 || mtu < p.Link.MTU {
			p.Link.MTU = mtu
			p.MTUSource = fmt.Sprintf("the route to %s (%d less %d)", first.Addr, first.MTU, overhead)
		}
	}
	switch {
	case p.Link.MTU == 0:
		p.Link.MTU, p.MTUSource = defaultMTU, "the default: no route to an endpoint"
	case v6 && p.Link.MTU < minIPv6MTU:
		p.Link.MTU, p.MTUSource = minIPv6MTU, "the least that IPv6 needs"
	}
}
