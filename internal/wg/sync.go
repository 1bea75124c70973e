package wg

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"wireguard4netns/conf"
	"wireguard4netns/internal/uapi"
)

// ParseFile reads a file for wg(8) or wg-quick(8). The first may do without a
// private key, or without [Interface] at all: then own is its key.
func ParseFile(text []byte, name string, own uapi.Secret) (*conf.Config, []conf.Warning, error) {
	lines := strings.SplitAfter(string(text), "\n")
	header, hasKey := -1, false
	for i, line := range lines {
		line, _, _ = strings.Cut(strings.ToLower(strings.Join(strings.Fields(line), "")), "#")
		if header < 0 && line == "[interface]" {
			header = i
		}
		hasKey = hasKey || strings.HasPrefix(line, "privatekey=")
	}
	key := "PrivateKey = " + base64Key(own) + "\n"
	switch {
	case hasKey:
		return conf.Parse(strings.NewReader(string(text)), name)
	case header < 0:
		lines = append(lines, "\n[Interface]\n", key)
		header = len(lines)
	default:
		if !strings.HasSuffix(lines[header], "\n") {
			lines[header] += "\n"
		}
		lines = slices.Insert(lines, header+1, key)
	}
	c, warnings, err := conf.Parse(strings.NewReader(strings.Join(lines, "")), name)
	// Lines are counted from 1, and those after header+1 are one too far down.
	var wrong *conf.Error
	if errors.As(err, &wrong) && wrong.Line > header+1 {
		wrong.Line--
	}
	for i := range warnings {
		if warnings[i].Line > header+1 {
			warnings[i].Line--
		}
	}
	return c, warnings, err
}

// Sync returns the change that makes of have what want says in whole, and that
// touches nothing which is so already: sessions of other peers go on. A port of 0
// and an endpoint that is not valid leave those that are there.
func Sync(have uapi.Device, want uapi.Update) uapi.Update {
	var u uapi.Update
	if want.PrivateKey != nil && *want.PrivateKey != have.PrivateKey {
		u.PrivateKey = want.PrivateKey
	}
	if want.ListenPort != nil && *want.ListenPort != 0 && *want.ListenPort != have.ListenPort {
		u.ListenPort = want.ListenPort
	}
	for _, h := range have.Peers {
		if !slices.ContainsFunc(want.Peers, func(w uapi.PeerUpdate) bool { return w.PublicKey == h.PublicKey }) {
			u.Peers = append(u.Peers, uapi.PeerUpdate{PublicKey: h.PublicKey, Remove: true})
		}
	}
	for _, w := range want.Peers {
		i := slices.IndexFunc(have.Peers, func(h uapi.Peer) bool { return h.PublicKey == w.PublicKey })
		if i < 0 {
			u.Peers = append(u.Peers, w)
		} else if p, changed := syncPeer(have.Peers[i], w); changed {
			u.Peers = append(u.Peers, p)
		}
	}
	return u
}

func syncPeer(have uapi.Peer, want uapi.PeerUpdate) (p uapi.PeerUpdate, changed bool) {
	p = uapi.PeerUpdate{PublicKey: want.PublicKey, UpdateOnly: true}
	if psk := orZero(want.PresharedKey); psk != have.PresharedKey {
		p.PresharedKey, changed = &psk, true
	}
	if every := orZero(want.PersistentKeepalive); every != have.PersistentKeepalive {
		p.PersistentKeepalive, changed = &every, true
	}
	if want.Endpoint.IsValid() && want.Endpoint != have.Endpoint {
		p.Endpoint, changed = want.Endpoint, true
	}
	if !sameSet(have.AllowedIPs, want.AllowedIPs) {
		p.ReplaceAllowedIPs, p.AllowedIPs, changed = true, want.AllowedIPs, true
	}
	return p, changed
}

func orZero[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func sameSet(a, b []netip.Prefix) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.SortFunc(a, netip.Prefix.Compare)
	slices.SortFunc(b, netip.Prefix.Compare)
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}
