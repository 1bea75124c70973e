package conf

import (
	"net/netip"
	"slices"
)

// finish checks what only the whole file tells, and replays the [Peer]
// sections as WireGuard does when wg(8) gives them to it one by one.
func (p *parser) finish() *Error {
	p.name.settle(p)
	switch {
	case p.header == 0:
		return fault("there is no [Interface] section", "a wg-quick file begins with [Interface]")
	case p.config.Interface.PrivateKey.IsZero():
		return &Error{Line: p.header, Key: "PrivateKey", Problem: "[Interface] has no PrivateKey",
			Hint: "add the one that belongs to the public key your peer knows"}
	}
	for _, peer := range p.peers {
		if peer.PublicKey.IsZero() {
			return &Error{Line: peer.line, Key: "PublicKey", Problem: "[Peer] has no PublicKey", Hint: "add the key of the peer"}
		}
	}
	p.replay()
	if len(p.config.Peers) == 0 {
		p.line = 0
		p.warn(NoPeer, "there is no [Peer] section: nothing can be reached")
	}
	slices.SortStableFunc(p.warnings, func(a, b Warning) int { return a.Line - b.Line })
	return nil
}

// replay makes the peers of the drafts: sections of one peer merge, and a
// prefix goes to the last peer that claims it.
func (p *parser) replay() {
	own := p.config.Interface.PrivateKey.PublicKey()
	merged := map[PublicKey]*peerDraft{}
	owner := map[netip.Prefix]*peerDraft{}
	var order []*peerDraft
	for i := range p.peers {
		draft := &p.peers[i]
		p.line = draft.line
		if draft.PublicKey == own {
			p.warn(OwnPublicKey, "[Peer] has the public key of this interface itself: it is left out")
			continue
		}
		peer := merged[draft.PublicKey]
		if peer == nil {
			peer = draft
			merged[draft.PublicKey] = peer
			order = append(order, peer)
		} else {
			p.warn(RepeatedPeer, "[Peer] has the public key of line %d: what it gives replaces what that gave", peer.line)
			peer.merge(draft, owner)
		}
		p.claim(peer, draft.changes, owner)
	}
	for _, peer := range order {
		for _, c := range peer.changes {
			if owner[c.prefix] == peer {
				peer.AllowedIPs = append(peer.AllowedIPs, c.prefix)
				delete(owner, c.prefix)
			}
		}
		p.config.Peers = append(p.config.Peers, peer.Peer)
	}
}

// claim does for peer what changes say.
func (p *parser) claim(peer *peerDraft, changes []change, owner map[netip.Prefix]*peerDraft) {
	for _, c := range changes {
		before := owner[c.prefix]
		switch {
		case !c.remove:
			if before != nil && before != peer {
				p.line = c.line
				p.warn(MovedAllowedIP, "AllowedIPs %v is taken from the [Peer] of line %d: the last one has it", c.prefix, before.line)
			}
			owner[c.prefix] = peer
		case before == peer:
			delete(owner, c.prefix)
		}
	}
}

// merge puts what a later section of the same peer gives over d.
func (d *peerDraft) merge(later *peerDraft, owner map[netip.Prefix]*peerDraft) {
	if later.replace {
		for _, c := range d.changes {
			if owner[c.prefix] == d {
				delete(owner, c.prefix)
			}
		}
		d.changes = nil
	}
	d.changes = append(d.changes, later.changes...)
	if later.Name != "" {
		d.Name = later.Name
	}
	if later.hasPreshared {
		d.PresharedKey = later.PresharedKey
	}
	if !later.Endpoint.IsZero() {
		d.Endpoint = later.Endpoint
	}
	if later.hasKeepalive {
		d.PersistentKeepalive = later.PersistentKeepalive
	}
}
