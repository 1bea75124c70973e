package conf

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

var peerSection = &section{title: "[Peer]"}

// The table is filled in here because its functions refer to it.
func init() {
	peerSection.keys = []key{
		{"PublicKey", false, (*parser).setPublicKey},
		{"PresharedKey", false, (*parser).setPresharedKey},
		{"AllowedIPs", true, (*parser).addAllowedIPs},
		{"Endpoint", false, (*parser).setEndpoint},
		{"PersistentKeepalive", false, (*parser).setKeepalive},
	}
}

// peerDraft is one [Peer] section with what tells "not given" from zero, for
// sections that name the same peer.
type peerDraft struct {
	Peer
	line         int // of the header
	hasPreshared bool
	hasKeepalive bool
	changes      []change
	// replace is off when the last of AllowedIPs has + or - in front: then wg
	// adds to what an earlier section gave the peer.
	replace bool
}

// change is one element of AllowedIPs.
type change struct {
	prefix netip.Prefix
	remove bool
	line   int
}

func (p *parser) peer() *peerDraft { return &p.peers[len(p.peers)-1] }

func (p *parser) setPublicKey(value string) *Error {
	k, err := ParsePublicKey(squeeze(value))
	switch {
	case err != nil:
		return fault(err.Error(), keyForm)
	case k.IsZero():
		return fault("is all zeros", "put the real key there")
	}
	p.peer().PublicKey = k
	return nil
}

func (p *parser) setPresharedKey(value string) *Error {
	k, err := ParsePresharedKey(squeeze(value))
	if err != nil {
		return fault(err.Error(), keyForm+"; delete the line if there is none")
	}
	p.peer().PresharedKey, p.peer().hasPreshared = k, true
	return nil
}

func (p *parser) addAllowedIPs(value string) *Error {
	peer := p.peer()
	peer.replace = true
	for s := range strings.SplitSeq(squeeze(value), ",") {
		if s == "" {
			continue
		}
		sign := s[0]
		if sign == '+' || sign == '-' {
			s, peer.replace = s[1:], false
		}
		prefix, wrong := parsePrefix(s)
		if wrong != nil {
			return wrong
		}
		if masked := prefix.Masked(); masked != prefix {
			p.warn(HostBits, "AllowedIPs %v has bits beyond its mask: it is read as %v", prefix, masked)
			prefix = masked
		}
		peer.changes = append(peer.changes, change{prefix, sign == '-', p.line})
	}
	return nil
}

func (p *parser) setEndpoint(value string) *Error {
	e, unbracketed, wrong := parseEndpoint(squeeze(value))
	if wrong != nil {
		return wrong
	}
	if unbracketed {
		p.warn(UnbracketedEndpoint, "Endpoint is an IPv6 address without brackets: what follows its last colon is read as the port")
	}
	p.peer().Endpoint = e
	return nil
}

func (p *parser) setKeepalive(value string) *Error {
	value = squeeze(value)
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil && !strings.EqualFold(value, "off") {
		return fault("is not an interval", "write off or a number of seconds from 0 to 65535")
	}
	p.peer().PersistentKeepalive, p.peer().hasKeepalive = time.Duration(n)*time.Second, true
	return nil
}
