package plan

import (
	"fmt"
	"net/netip"
	"slices"

	"wireguard4netns/conf"
	"wireguard4netns/internal/dns"
	"wireguard4netns/internal/ns/inside"
)

// names decides what the app sees of files: whom it asks for names, and what of
// the host's resolvers is out of its reach.
func (p *Plan) names(c *conf.Config, o Options, h Host) error {
	p.Inside = &inside.Config{UID: h.UID, Expose: o.Expose, HideDirs: o.HideDirs, HideFiles: o.HideFiles}
	for _, d := range o.HideDirs {
		p.Masks = append(p.Masks, dns.Mask{Path: d, Kind: dns.EmptyDir, Why: "ours"})
	}
	for _, f := range o.HideFiles {
		p.Masks = append(p.Masks, dns.Mask{Path: f, Kind: dns.EmptyFile, Why: "holds the keys"})
	}
	if o.HostDNS {
		p.warn("DNS goes by the host (--dns=host): whoever runs its resolvers sees each name the app looks up")
		return nil
	}
	p.DNS, p.Search = c.Interface.DNS, c.Interface.Search
	if o.DNS != nil {
		var err error
		if p.DNS, p.Search, err = servers(o.DNS); err != nil {
			return err
		}
	}
	for _, server := range p.DNS {
		if !reaches(c, server) {
			p.warn("DNS server %s is in no peer's AllowedIPs: it cannot be reached", server)
		}
	}
	p.Warnings = append(p.Warnings, dns.Warnings(p.DNS, p.Search)...)
	p.Inside.Etc = map[string][]byte{"resolv.conf": dns.ResolvConf(p.DNS, p.Search), "nsswitch.conf": dns.Nsswitch(h.Nsswitch)}
	for _, m := range dns.Masks() {
		switch m.Kind {
		case dns.AllowList:
			p.Inside.Run = append(p.Inside.Run, m.Path)
		case dns.EmptyDir:
			p.Inside.HideDirs = append(p.Inside.HideDirs, m.Path)
		case dns.EmptyFile:
			p.Inside.HideFiles = append(p.Inside.HideFiles, m.Path)
		}
		p.Masks = append(p.Masks, m)
	}
	for _, e := range dns.Keep(h.UID) {
		p.Inside.Keep = append(p.Inside.Keep, e.Pattern)
	}
	return nil
}

// servers reads what --dns was given: addresses and search domains.
func servers(list []string) (addrs []netip.Addr, search []string, err error) {
	for _, s := range list {
		a, err := netip.ParseAddr(s)
		if err == nil {
			addrs = append(addrs, a)
			continue
		}
		search = append(search, s)
	}
	if len(addrs) == 0 && len(search) > 0 {
		return nil, nil, fmt.Errorf("--dns %s: %w", search[0], ErrNotServer)
	}
	return addrs, search, nil
}

// reaches tells whether packets to a go to a peer.
func reaches(c *conf.Config, a netip.Addr) bool {
	v4, v6 := families(c.Interface.Addresses)
	if a.Is4() && !v4 || a.Is6() && !v6 {
		return false
	}
	return slices.ContainsFunc(c.Peers, func(p conf.Peer) bool {
		return slices.ContainsFunc(p.AllowedIPs, func(r netip.Prefix) bool { return r.Contains(a) })
	})
}
