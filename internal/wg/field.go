package wg

import (
	"fmt"
	"strings"
	"time"

	"wireguard4netns/internal/uapi"
)

// Fields are the words that Field knows.
var Fields = []string{
	"public-key", "private-key", "listen-port", "fwmark", "peers", "preshared-keys", "endpoints",
	"allowed-ips", "latest-handshakes", "transfer", "persistent-keepalive", "dump",
}

// Field returns what "wg show NAME FIELD" prints, for scripts: fields between
// tabs, keys in full. A name that is not empty leads each line. ok says that
// there is such a field.
func Field(name string, d uapi.Device, field string) (text string, ok bool) {
	var b strings.Builder
	row := func(columns ...any) {
		if name != "" {
			columns = append([]any{name}, columns...)
		}
		for i, c := range columns {
			if i > 0 {
				b.WriteByte('\t')
			}
			fmt.Fprint(&b, c)
		}
		b.WriteByte('\n')
	}
	switch field {
	case "public-key":
		row(publicKey(d))
	case "private-key":
		row(keyOrNone(d.PrivateKey))
	case "listen-port":
		row(d.ListenPort)
	case "fwmark":
		row(fwmark(d.Fwmark))
	case "dump":
		row(keyOrNone(d.PrivateKey), publicKey(d), d.ListenPort, fwmark(d.Fwmark))
		for _, p := range d.Peers {
			row(p.PublicKey, keyOrNone(p.PresharedKey), endpoint(p), prefixes(p.AllowedIPs, ",", "/"),
				seconds(p.LastHandshake), p.RxBytes, p.TxBytes, keepalive(p))
		}
	default:
		column, ok := columns[field]
		if !ok {
			return "", false
		}
		for _, p := range d.Peers {
			row(append([]any{p.PublicKey}, column(p)...)...)
		}
	}
	return b.String(), true
}

// columns are what follows a peer's key in each field that is of peers.
var columns = map[string]func(uapi.Peer) []any{
	"peers":                func(uapi.Peer) []any { return nil },
	"preshared-keys":       func(p uapi.Peer) []any { return []any{keyOrNone(p.PresharedKey)} },
	"endpoints":            func(p uapi.Peer) []any { return []any{endpoint(p)} },
	"allowed-ips":          func(p uapi.Peer) []any { return []any{prefixes(p.AllowedIPs, " ", "/")} },
	"latest-handshakes":    func(p uapi.Peer) []any { return []any{seconds(p.LastHandshake)} },
	"transfer":             func(p uapi.Peer) []any { return []any{p.RxBytes, p.TxBytes} },
	"persistent-keepalive": func(p uapi.Peer) []any { return []any{keepalive(p)} },
}

func fwmark(mark uint32) string {
	if mark == 0 {
		return "off"
	}
	return fmt.Sprintf("%#x", mark)
}

func endpoint(p uapi.Peer) string {
	if !p.Endpoint.IsValid() {
		return none
	}
	return p.Endpoint.String()
}

func keepalive(p uapi.Peer) string {
	if p.PersistentKeepalive == 0 {
		return "off"
	}
	return fmt.Sprint(int(p.PersistentKeepalive / time.Second))
}
