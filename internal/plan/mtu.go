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
	largestMTU    = largestPacket - overheadIPv4 // the engine sends no larger one (engine.MaxMTU)
	padding       = 16                           // packets are padded to a multiple of it (whitepaper, 5.4.6)
)

// mtu decides the MTU of the link: the file's, or what the host's route to the
// endpoint leaves.
func (p *Plan) mtu(c *conf.Config, o Options) {
	_, p.v6 = families(c.Interface.Addresses)
	if p.Link.MTU = c.Interface.MTU; p.Link.MTU != 0 {
		p.MTUSource, p.fixedMTU = "the file", true
		if p.Link.MTU > largestMTU {
			p.warn("MTU %d is more than fits into a UDP datagram: it is %d", p.Link.MTU, largestMTU)
			p.Link.MTU, p.MTUSource = largestMTU, "the most that fits into a datagram"
		}
		if p.v6 && p.Link.MTU < minIPv6MTU {
			p.warn("MTU %d is below %d: Linux has no IPv6 on such a link", p.Link.MTU, minIPv6MTU)
		}
		return
	}
	var first []Route
	for _, peer := range p.Peers {
		if len(peer.Candidates) > 0 {
			first = append(first, peer.Candidates[0])
		}
	}
	switch p.Link.MTU, p.MTUSource = smallest(first); {
	case p.Link.MTU == 0:
		p.Link.MTU, p.MTUSource = defaultMTU, "the default: no route to an endpoint"
	case p.v6 && p.Link.MTU < minIPv6MTU:
		p.Link.MTU, p.MTUSource = minIPv6MTU, "the least that IPv6 needs"
	}
}

// MTUOver returns the MTU that the running link is to have, and why, when these
// are the routes to its peers now. It is never above Link.MTU, which is what the
// engine was started with: the engine pads a packet to a multiple of 16, but not
// above that MTU, and what is above it by its remainder. So a smaller MTU is
// rounded down to a multiple, which no padding makes longer.
func (p *Plan) MTUOver(routes []Route) (mtu int, source string) {
	mtu, source = smallest(routes)
	switch {
	case p.fixedMTU, mtu == 0, mtu >= p.Link.MTU:
		return p.Link.MTU, p.MTUSource
	case p.v6 && mtu < minIPv6MTU:
		return minIPv6MTU, "the least that IPv6 needs"
	}
	return mtu - mtu%padding, source
}

// Lower brings the MTU down to most, in bytes, and tells whether the file wanted
// another.
func (p *Plan) Lower(most int) (refused bool) {
	if p.Link.MTU <= most {
		return false
	}
	p.Link.MTU, p.MTUSource = most, "what the tunnel began with"
	return p.fixedMTU
}

// smallest returns what is left for a packet inside by the tightest of routes, as
// one link serves all peers; 0 if the host has none of them.
func smallest(routes []Route) (mtu int, source string) {
	for _, r := range routes {
		if r.MTU == 0 {
			continue
		}
		overhead := overheadIPv6
		if r.Addr.Addr().Is4() {
			overhead = overheadIPv4
		}
		if left := min(r.MTU, largestPacket) - overhead; mtu == 0 || left < mtu {
			mtu, source = left, fmt.Sprintf("the route to %s (%d less %d)", r.Addr, r.MTU, overhead)
		}
	}
	return mtu, source
}
