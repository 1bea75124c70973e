package uapi

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Bounds of what is read. A reply of 65,536 peers, the most an engine has,
// with a handful of allowed IPs each is under 32 MiB; what wg(8) sends is
// smaller. The longest legal line is a key.
const (
	maxReply   = 64 << 20
	maxRequest = 16 << 20
	maxLine    = 512
)

var (
	errNoEqual   = errors.New("want key=value")
	errUnknown   = errors.New("unknown key")
	errRepeated  = errors.New("key repeated")
	errTooLong   = errors.New("too long")
	errNotTrue   = errors.New("want true")
	errVersion   = errors.New("want protocol version 1")
	errNumber    = errors.New("want a number in range")
	errEndpoint  = errors.New("want ADDRESS:PORT")
	errAllowedIP = errors.New("want ADDRESS/LENGTH")
)

// Parse reads the body of a get reply to its end. It accepts only what the
// protocol defines: an engine that says anything else is not understood.
func Parse(r io.Reader) (Device, error) {
	var p parser
	if err := eachLine(r, maxReply, p.line); err != nil {
		return Device{}, fmt.Errorf("parse device: %w", err)
	}
	return p.device, nil
}

// CheckSet reports whether body is well-formed as a set request, so that no
// engine meets (and logs) a malformed line, which may hold half a key.
func CheckSet(r io.Reader) error {
	keys := setDeviceKeys
	err := eachLine(r, maxRequest, func(key, value string) error {
		if key == "public_key" {
			keys = setPeerKeys
		}
		check, ok := keys[key]
		if !ok {
			return errUnknown
		}
		return check(value)
	})
	if err != nil {
		return fmt.Errorf("parse set request: %w", err)
	}
	return nil
}

var setDeviceKeys = map[string]func(string) error{
	"private_key":   checkOf(parseKey),
	"listen_port":   checkOf(parsePort),
	"fwmark":        checkOf(parseFwmark),
	"replace_peers": checkTrue,
}

var setPeerKeys = map[string]func(string) error{
	"public_key":                    checkOf(parseKey),
	"remove":                        checkTrue,
	"update_only":                   checkTrue,
	"preshared_key":                 checkOf(parseKey),
	"endpoint":                      checkOf(parseEndpoint),
	"persistent_keepalive_interval": checkOf(parseKeepalive),
	"replace_allowed_ips":           checkTrue,
	"allowed_ip": func(value string) error {
		_, err := parseAllowedIP(strings.TrimPrefix(value, "-"))
		return err
	},
	"protocol_version": checkVersion,
}

// eachLine calls do for each key=value line and adds the line's number to its
// error.
func eachLine(r io.Reader, limit int64, do func(key, value string) error) error {
	lr := &io.LimitedReader{R: r, N: limit + 1}
	s := bufio.NewScanner(lr)
	s.Buffer(make([]byte, maxLine), maxLine)
	for n := 1; s.Scan(); n++ {
		key, value, ok := strings.Cut(s.Text(), "=")
		if !ok {
			return fmt.Errorf("line %d: %w", n, errNoEqual)
		}
		if err := do(key, value); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if errors.Is(s.Err(), bufio.ErrTooLong) || lr.N == 0 {
		return errTooLong
	}
	return s.Err()
}

// parser builds a Device from the lines of a get reply.
type parser struct {
	device Device
	seen   map[string]bool // keys of the present section
	secs   int64           // of the present peer's last handshake
}

func (p *parser) line(key, value string) error {
	if key == "public_key" {
		k, err := parseKey(value)
		p.device.Peers = append(p.device.Peers, Peer{PublicKey: k})
		p.seen, p.secs = nil, 0
		return err
	}
	if key != "allowed_ip" {
		if p.seen[key] {
			return errRepeated
		}
		if p.seen == nil {
			p.seen = make(map[string]bool)
		}
		p.seen[key] = true
	}
	if len(p.device.Peers) == 0 {
		return p.deviceLine(key, value)
	}
	return p.peerLine(&p.device.Peers[len(p.device.Peers)-1], key, value)
}

func (p *parser) deviceLine(key, value string) error {
	d := &p.device
	switch key {
	case "private_key":
		return into((*[keySize]byte)(&d.PrivateKey), parseKey, value)
	case "listen_port":
		return into(&d.ListenPort, parsePort, value)
	case "fwmark":
		return into(&d.Fwmark, parseFwmark, value)
	}
	return errUnknown
}

func (p *parser) peerLine(peer *Peer, key, value string) error {
	switch key {
	case "preshared_key":
		return into((*[keySize]byte)(&peer.PresharedKey), parseKey, value)
	case "protocol_version":
		return checkVersion(value)
	case "endpoint":
		return into(&peer.Endpoint, parseEndpoint, value)
	case "last_handshake_time_sec":
		if err := into(&p.secs, parseSeconds, value); err != nil {
			return err
		}
		if p.secs != 0 {
			peer.LastHandshake = time.Unix(p.secs, 0)
		}
		return nil
	case "last_handshake_time_nsec":
		nanos, err := strconv.ParseUint(value, 10, 64)
		if err != nil || nanos >= uint64(time.Second) {
			return errNumber
		}
		if p.secs != 0 || nanos != 0 {
			peer.LastHandshake = time.Unix(p.secs, int64(nanos))
		}
		return nil
	case "tx_bytes":
		return into(&peer.TxBytes, parseCount, value)
	case "rx_bytes":
		return into(&peer.RxBytes, parseCount, value)
	case "persistent_keepalive_interval":
		return into(&peer.PersistentKeepalive, parseKeepalive, value)
	case "allowed_ip":
		prefix, err := parseAllowedIP(value)
		peer.AllowedIPs = append(peer.AllowedIPs, prefix)
		return err
	}
	return errUnknown
}

func into[T any](dst *T, parse func(string) (T, error), value string) error {
	v, err := parse(value)
	if err == nil {
		*dst = v
	}
	return err
}

func checkOf[T any](parse func(string) (T, error)) func(string) error {
	return func(value string) error {
		_, err := parse(value)
		return err
	}
}

func checkTrue(value string) error {
	if value != "true" {
		return errNotTrue
	}
	return nil
}

func checkVersion(value string) error {
	if value != "1" {
		return errVersion
	}
	return nil
}

func parsePort(value string) (uint16, error) {
	n, err := parseNumber(value, math.MaxUint16)
	return uint16(n), err
}

func parseFwmark(value string) (uint32, error) {
	n, err := parseNumber(value, math.MaxUint32)
	return uint32(n), err
}

func parseKeepalive(value string) (time.Duration, error) {
	n, err := parseNumber(value, math.MaxUint16)
	return time.Duration(n) * time.Second, err
}

func parseSeconds(value string) (int64, error) {
	n, err := parseNumber(value, math.MaxInt64)
	return int64(n), err
}

func parseCount(value string) (uint64, error) {
	return parseNumber(value, math.MaxUint64)
}

func parseNumber(value string, most uint64) (uint64, error) {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil || n > most {
		return 0, errNumber
	}
	return n, nil
}

func parseEndpoint(value string) (netip.AddrPort, error) {
	endpoint, err := netip.ParseAddrPort(value)
	if err != nil {
		return netip.AddrPort{}, errEndpoint
	}
	return endpoint, nil
}

func parseAllowedIP(value string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(value)
	if err != nil {
		return netip.Prefix{}, errAllowedIP
	}
	return prefix, nil
}
