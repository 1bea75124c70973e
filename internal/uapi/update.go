package uapi

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strconv"
	"time"
)

// Update is a change of an engine's configuration. A nil pointer, an endpoint
// that is not valid and a false flag leave what is there as it is.
type Update struct {
	PrivateKey   *Secret // zero key: remove it
	ListenPort   *uint16 // zero: the engine chooses
	Fwmark       *uint32 // zero: off
	ReplacePeers bool    // remove each peer that is not in Peers
	Peers        []PeerUpdate
}

// PeerUpdate adds, changes or removes one peer.
type PeerUpdate struct {
	PublicKey           PublicKey
	Remove              bool
	UpdateOnly          bool    // do nothing if there is no such peer
	PresharedKey        *Secret // zero key: remove it
	Endpoint            netip.AddrPort
	PersistentKeepalive *time.Duration // sent as whole seconds; zero: off
	ReplaceAllowedIPs   bool
	AllowedIPs          []netip.Prefix
}

// Body returns the body of the set request.
func (u Update) Body() []byte {
	var b body
	if u.PrivateKey != nil {
		b.key("private_key", *u.PrivateKey)
	}
	if u.ListenPort != nil {
		b.number("listen_port", uint64(*u.ListenPort))
	}
	if u.Fwmark != nil {
		b.number("fwmark", uint64(*u.Fwmark))
	}
	if u.ReplacePeers {
		b.line("replace_peers", "true")
	}
	for _, p := range u.Peers {
		p.write(&b)
	}
	return b.Bytes()
}

func (p PeerUpdate) write(b *body) {
	b.key("public_key", p.PublicKey)
	if p.Remove {
		b.line("remove", "true")
		return
	}
	if p.UpdateOnly {
		b.line("update_only", "true")
	}
	if p.PresharedKey != nil {
		b.key("preshared_key", *p.PresharedKey)
	}
	if p.Endpoint.IsValid() {
		b.line("endpoint", p.Endpoint.String())
	}
	if p.PersistentKeepalive != nil {
		b.number("persistent_keepalive_interval", uint64(p.PersistentKeepalive.Seconds()))
	}
	if p.ReplaceAllowedIPs {
		b.line("replace_allowed_ips", "true")
	}
	for _, prefix := range p.AllowedIPs {
		b.line("allowed_ip", prefix.String())
	}
}

type body struct{ bytes.Buffer }

func (b *body) line(key, value string) {
	b.WriteString(key)
	b.WriteByte('=')
	b.WriteString(value)
	b.WriteByte('\n')
}

func (b *body) key(key string, value [keySize]byte) {
	b.line(key, hex.EncodeToString(value[:]))
}

func (b *body) number(key string, value uint64) {
	b.line(key, strconv.FormatUint(value, 10))
}
