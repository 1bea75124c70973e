package wg

import (
	"fmt"
	"strings"
	"time"

	"wireguard4netns/internal/uapi"
)

// ShowConf returns what "wg showconf NAME" prints: a file for wg(8), with keys.
func ShowConf(d uapi.Device) string {
	var b strings.Builder
	set := func(key string, value any) { fmt.Fprintf(&b, "%s = %v\n", key, value) }
	b.WriteString("[Interface]\n")
	if d.ListenPort != 0 {
		set("ListenPort", d.ListenPort)
	}
	if d.Fwmark != 0 {
		set("FwMark", fwmark(d.Fwmark))
	}
	if !d.PrivateKey.IsZero() {
		set("PrivateKey", base64Key(d.PrivateKey))
	}
	b.WriteByte('\n')
	for i, p := range d.Peers {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString("[Peer]\n")
		set("PublicKey", p.PublicKey)
		if !p.PresharedKey.IsZero() {
			set("PresharedKey", base64Key(p.PresharedKey))
		}
		if len(p.AllowedIPs) > 0 {
			set("AllowedIPs", prefixes(p.AllowedIPs, ", ", "/"))
		}
		if p.Endpoint.IsValid() {
			set("Endpoint", p.Endpoint)
		}
		if p.PersistentKeepalive != 0 {
			set("PersistentKeepalive", int(p.PersistentKeepalive/time.Second))
		}
	}
	return b.String()
}
