// Package conf reads and writes the files of wg-quick(8).
//
// [Parse] reads what wg(8) and wg-quick(8) read and returns a [Config] that is
// complete and valid, so nobody downstream checks it again. [Config.Marshal]
// writes it back. The package is pure: it opens nothing, resolves nothing and
// decides nothing about the machine it runs on.
//
// Private and preshared keys print as "(hidden)" whatever the verb or encoder;
// only Base64, Hex and Bytes give them. No error and no warning of this
// package holds text that could be part of a key.
package conf

import (
	"net/netip"
	"strings"
	"time"
)

// Config is one wg-quick(8) file, complete and valid.
type Config struct {
	Interface Interface
	Peers     []Peer
}

// Interface is the [Interface] section.
type Interface struct {
	PrivateKey PrivateKey     // never zero
	ListenPort uint16         // 0: chosen by the kernel
	FwMark     uint32         // 0: off
	Addresses  []netip.Prefix // host bits kept, each once; a missing mask is /32 or /128
	DNS        []netip.Addr   // servers
	Search     []string       // what DNS lists that is not an address
	MTU        int            // 0: not given
	Table      Table

	// Shell commands, in which %i is not yet replaced: see Expand.
	PreUp, PostUp, PreDown, PostDown []string

	SaveConfig bool
}

// Peer is one [Peer] section, or several that name the same public key.
type Peer struct {
	// Name is from a comment "# friendly_name = X" in the section or on the
	// lines right above its header; it holds printable characters only.
	Name string

	PublicKey    PublicKey    // never zero
	PresharedKey PresharedKey // zero: none, as WireGuard has it

	// AllowedIPs are masked and belong to this peer alone: as in WireGuard,
	// the last peer that claims a prefix has it.
	AllowedIPs []netip.Prefix

	Endpoint            Endpoint      // zero: none
	PersistentKeepalive time.Duration // whole seconds; 0: off
}

// Expand returns a copy of i with %i replaced by ifname in the hooks, as
// wg-quick does.
func (i Interface) Expand(ifname string) Interface {
	for _, hooks := range []*[]string{&i.PreUp, &i.PostUp, &i.PreDown, &i.PostDown} {
		var expanded []string
		for _, hook := range *hooks {
			expanded = append(expanded, strings.ReplaceAll(hook, "%i", ifname))
		}
		*hooks = expanded
	}
	return i
}
