package conf

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// An Endpoint is where a peer is reached: a host name or an IP address, and a
// UDP port. The zero Endpoint stands for none.
type Endpoint struct {
	Host string // a name, or an address without brackets, with its zone if any
	Port uint16 // never 0 in an endpoint that is not zero
}

// ParseEndpoint reads HOST:PORT, IPv4:PORT or [IPv6%ZONE]:PORT. As wg(8) does
// it also takes an IPv6 address without brackets: the last colon counts.
func ParseEndpoint(s string) (Endpoint, error) {
	e, _, wrong := parseEndpoint(s)
	if wrong != nil {
		wrong.Problem = "endpoint " + wrong.Problem
		return Endpoint{}, wrong
	}
	return e, nil
}

// String returns the endpoint as [ParseEndpoint] reads it, or "" for none.
func (e Endpoint) String() string {
	if e.IsZero() {
		return ""
	}
	return net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port)))
}

// IsZero reports whether there is no endpoint.
func (e Endpoint) IsZero() bool { return e == Endpoint{} }

// AddrPort returns the endpoint if its host is an address and not a name.
func (e Endpoint) AddrPort() (netip.AddrPort, bool) {
	addr, err := netip.ParseAddr(e.Host)
	return netip.AddrPortFrom(addr, e.Port), err == nil
}

// MarshalText returns what String returns.
func (e Endpoint) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (e *Endpoint) UnmarshalText(text []byte) (err error) {
	if *e = (Endpoint{}); len(text) > 0 {
		*e, err = ParseEndpoint(string(text))
	}
	return err
}

const endpointForm = "write HOST:PORT, or [IPv6]:PORT"

// parseEndpoint also says whether s was an IPv6 address without brackets.
func parseEndpoint(s string) (e Endpoint, unbracketed bool, wrong *Error) {
	if s == "" {
		return e, false, fault("is empty", endpointForm)
	}
	var host, port string
	var ok bool
	if rest, bracket := strings.CutPrefix(s, "["); bracket {
		host, port, ok = strings.Cut(rest, "]:")
	} else if i := strings.LastIndexByte(s, ':'); i >= 0 {
		host, port, ok = s[:i], s[i+1:], true
		unbracketed = strings.Contains(host, ":")
	}
	if !ok || port == "" {
		return e, false, fault("has no port", endpointForm)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return e, false, fault("has a port that is not a number from 1 to 65535", endpointForm)
	}
	if addr, ok := parseAddr(host); ok {
		host = addr.String()
	} else if unbracketed || !isHostName(host) {
		return e, false, fault("has a host that is neither an IP address nor a host name", endpointForm)
	}
	return Endpoint{Host: host, Port: uint16(number)}, unbracketed, nil
}

// isHostName is loose about what DNS allows but takes no text that may be a
// key: such a name would travel to a name server.
func isHostName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, nameChars) != "" {
			return false
		}
		if _, err := decodeKey(label + "="); err == nil {
			return false
		}
	}
	return true
}

const nameChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
