package plan

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteTo prints the plan for people, without keys other than public ones.
func (p *Plan) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	row := func(name string, values ...string) {
		for i, v := range values {
			if i > 0 {
				name = ""
			}
			fmt.Fprintf(t, "%s\t%s\n", name, v)
		}
	}
	row("link", p.Link.Name)
	row("MTU", fmt.Sprintf("%d, from %s", p.Link.MTU, p.MTUSource))
	for i, peer := range p.Peers {
		u := p.Device.Peers[i]
		row("peer", peer.Title())
		if peer.Name != "" {
			row("", "public key "+peer.PublicKey.String())
		}
		if u.PresharedKey != nil {
			row("", "preshared key (hidden)")
		}
		row("", peer.where())
		row("", "allowed IPs "+join(u.AllowedIPs))
		if u.PersistentKeepalive != nil {
			row("", "keepalive "+u.PersistentKeepalive.String())
		}
	}
	row("address", list(p.Link.Addresses)...)
	table := ""
	if p.Link.Table != 0 {
		table = fmt.Sprintf(" in table %d", p.Link.Table)
	}
	for i, r := range p.Link.Routes {
		row([]string{"route", ""}[min(i, 1)], r.String()+" over "+p.Link.Name+table)
	}
	if p.Inside != nil {
		row("DNS", append(list(p.DNS), p.Search...)...)
		for i, m := range p.Masks {
			row([]string{"mask", ""}[min(i, 1)], fmt.Sprintf("%s (%s): %s", m.Path, m.Kind, m.Why))
		}
	}
	row("PreUp", p.Hooks.PreUp...)
	row("PostUp", p.Hooks.PostUp...)
	row("PreDown", p.Hooks.PreDown...)
	row("PostDown", p.Hooks.PostDown...)
	row("warning", p.Warnings...)
	t.Flush()
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// where says how the peer is reached.
func (p Peer) where() string {
	if p.Endpoint.IsZero() {
		return "no endpoint: it has to call"
	}
	s := "endpoint " + p.Endpoint.String()
	if _, literal := p.Endpoint.AddrPort(); !literal && len(p.Candidates) > 0 {
		var addrs []string
		for _, c := range p.Candidates {
			addrs = append(addrs, c.Addr.Addr().String())
		}
		s += ": " + strings.Join(addrs, ", ")
	}
	return s
}

func list[T fmt.Stringer](values []T) (texts []string) {
	for _, v := range values {
		texts = append(texts, v.String())
	}
	return texts
}

func join[T fmt.Stringer](values []T) string { return strings.Join(list(values), ", ") }
