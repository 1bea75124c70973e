// Package uapi speaks WireGuard's cross-platform configuration protocol
// (https://www.wireguard.com/xplatform/) in all its directions: it reads the
// reply of a get, writes the text of a set, asks an engine over a stream, and
// answers wg(8) on a unix socket for an engine.
//
//	wg(8) ── unix socket ── Listener ─┐
//	                                  ├─ Engine (interface) … Conn ── stream ── Serve ── engine
//	supervisor ───────────────────────┘
//
// A request is framed by its operation ("get=1", "set=1") and an empty line, a
// reply by "errno=N" and an empty line. A body is what is between: lines
// "key=value", each ended by a newline. The functions of this package take and
// return bodies; only Conn and Serve know the frame.
//
// Bodies hold keys. No error of this package quotes a line or a value.
package uapi

import (
	"net/netip"
	"time"
)

// Device is what an engine says of itself in the reply of a get.
type Device struct {
	PrivateKey Secret // zero: none set
	ListenPort uint16 // zero: not bound
	Fwmark     uint32 // zero: off
	Peers      []Peer // in the engine's order, which may change from reply to reply
}

// Peer is one peer of a Device.
type Peer struct {
	PublicKey           PublicKey
	PresharedKey        Secret         // zero: none
	Endpoint            netip.AddrPort // not valid: none known
	LastHandshake       time.Time      // zero: never
	TxBytes, RxBytes    uint64
	PersistentKeepalive time.Duration // whole seconds; zero: off
	AllowedIPs          []netip.Prefix
}

// Restore returns the change that gives a fresh engine the configuration of d:
// all that was set, with endpoints where they were last seen. Counters and
// handshake times belong to the engine that died.
func (d Device) Restore() Update {
	u := Update{
		PrivateKey:   &d.PrivateKey,
		ListenPort:   &d.ListenPort,
		Fwmark:       &d.Fwmark,
		ReplacePeers: true,
		Peers:        make([]PeerUpdate, len(d.Peers)),
	}
	for i := range d.Peers {
		p := d.Peers[i]
		u.Peers[i] = PeerUpdate{
			PublicKey:           p.PublicKey,
			PresharedKey:        &p.PresharedKey,
			Endpoint:            p.Endpoint,
			PersistentKeepalive: &p.PersistentKeepalive,
			ReplaceAllowedIPs:   true,
			AllowedIPs:          p.AllowedIPs,
		}
	}
	return u
}
