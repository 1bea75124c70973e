// Package wg is the language of wg(8): what its show and showconf print of a
// device, byte for byte that of wireguard-tools 1.0.20210914, and what change its
// set and syncconf make. It is pure.
package wg

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"wireguard4netns/conf"
	"wireguard4netns/internal/uapi"
)

// Style says how Show prints.
type Style struct {
	Colour bool
	Keys   bool // private and preshared keys themselves, not "(hidden)"
}

// Terminal sequences, as wg(8) has them.
const (
	reset  = "\x1b[0m"
	bold   = "\x1b[1m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	cyan   = "\x1b[36m"
)

var plain = strings.NewReplacer(reset, "", bold, "", red, "", green, "", yellow, "", cyan, "")

// Show returns what "wg show NAME" prints about a device at the time now. Peers
// are in the order of their handshakes, the latest first.
func Show(name string, d uapi.Device, s Style, now time.Time) string {
	var b strings.Builder
	b.WriteString(reset)
	fmt.Fprintf(&b, "%s: %s%s%s\n", green+bold+"interface"+reset, green, name, reset)
	row := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "  %s%s%s: %s\n", bold, label, reset, fmt.Sprintf(format, args...))
	}
	if !d.PrivateKey.IsZero() {
		row("public key", "%s", publicKey(d))
		row("private key", "%s", s.key(d.PrivateKey))
	}
	if d.ListenPort != 0 {
		row("listening port", "%d", d.ListenPort)
	}
	if d.Fwmark != 0 {
		row("fwmark", "%#x", d.Fwmark)
	}
	for _, p := range latestFirst(d.Peers) {
		fmt.Fprintf(&b, "\n%s: %s%s%s\n", yellow+bold+"peer"+reset, yellow, p.PublicKey, reset)
		if !p.PresharedKey.IsZero() {
			row("preshared key", "%s", s.key(p.PresharedKey))
		}
		if p.Endpoint.IsValid() {
			row("endpoint", "%s", p.Endpoint)
		}
		row("allowed ips", "%s", prefixes(p.AllowedIPs, ", ", cyan+"/"+reset))
		if seconds(p.LastHandshake) != 0 {
			row("latest handshake", "%s", ago(now, p.LastHandshake))
		}
		if p.RxBytes != 0 || p.TxBytes != 0 {
			row("transfer", "%s received, %s sent", size(p.RxBytes), size(p.TxBytes))
		}
		if p.PersistentKeepalive != 0 {
			row("persistent keepalive", "every %s", duration(uint64(p.PersistentKeepalive/time.Second)))
		}
	}
	if s.Colour {
		return b.String()
	}
	return plain.Replace(b.String())
}

func (s Style) key(k uapi.Secret) string {
	if s.Keys {
		return base64Key(k)
	}
	return k.String()
}

func base64Key(k uapi.Secret) string { return base64.StdEncoding.EncodeToString(k[:]) }

// keyOrNone is the form of fields.
func keyOrNone(k uapi.Secret) string {
	if k.IsZero() {
		return none
	}
	return base64Key(k)
}

const none = "(none)"

func publicKey(d uapi.Device) string {
	if d.PrivateKey.IsZero() {
		return none
	}
	return conf.NewPrivateKey(d.PrivateKey).PublicKey().String()
}

func latestFirst(peers []uapi.Peer) []uapi.Peer {
	sorted := slices.Clone(peers)
	slices.SortStableFunc(sorted, func(a, b uapi.Peer) int { return b.LastHandshake.Compare(a.LastHandshake) })
	return sorted
}

func seconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func prefixes(list []netip.Prefix, separator, slash string) string {
	if len(list) == 0 {
		return none
	}
	texts := make([]string, len(list))
	for i, p := range list {
		texts[i] = fmt.Sprintf("%s%s%d", address(p.Addr()), slash, p.Bits())
	}
	return strings.Join(texts, separator)
}

// address writes as inet_ntop(3) does, which shows an IPv4-compatible IPv6
// address with its last 32 bits in dots.
func address(a netip.Addr) string {
	b := a.As16()
	if a.Is6() && [12]byte(b[:12]) == [12]byte{} && (b[12] != 0 || b[13] != 0) {
		return "::" + netip.AddrFrom4([4]byte(b[12:])).String()
	}
	return a.String()
}

func ago(now, then time.Time) string {
	switch passed := now.Unix() - then.Unix(); {
	case passed == 0:
		return "Now"
	case passed < 0:
		return "(" + red + "System clock wound backward; connection problems may ensue." + reset + ")"
	default:
		return duration(uint64(passed)) + " ago"
	}
}

// duration writes a number of seconds.
func duration(left uint64) string {
	var parts []string
	for _, unit := range []struct {
		name   string
		length uint64
	}{{"year", 365 * 24 * 60 * 60}, {"day", 24 * 60 * 60}, {"hour", 60 * 60}, {"minute", 60}, {"second", 1}} {
		n, name := left/unit.length, unit.name
		left %= unit.length
		if n == 0 {
			continue
		}
		if n > 1 {
			name += "s"
		}
		parts = append(parts, fmt.Sprintf("%d %s%s%s", n, cyan, name, reset))
	}
	return strings.Join(parts, ", ")
}

// size writes a number of bytes.
func size(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d %sB%s", n, cyan, reset)
	}
	units := []string{"KiB", "MiB", "GiB", "TiB"}
	value := float64(n) / 1024
	for len(units) > 1 && value >= 1024 {
		value, units = value/1024, units[1:]
	}
	return fmt.Sprintf("%.2f %s%s%s", value, cyan, units[0], reset)
}
