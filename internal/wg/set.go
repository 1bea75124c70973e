package wg

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"wireguard4netns/conf"
	"wireguard4netns/internal/uapi"
)

// ErrFwMark: a mark other than off was asked for.
var ErrFwMark = errors.New("marking packets needs CAP_NET_ADMIN outside, and the tunnel does not need it")

// Outside is what ParseSet needs of the machine.
type Outside struct {
	ReadFile func(path string) ([]byte, error)
	Resolve  func(conf.Endpoint) (netip.AddrPort, error)
}

// ParseSet reads what follows the interface in "wg set". Its errors hold no part
// of a file.
func ParseSet(args []string, o Outside) (uapi.Update, error) {
	s := setting{outside: o}
	if len(args) == 0 {
		return s.update, errors.New("nothing to set")
	}
	for len(args) > 0 {
		word, value := args[0], ""
		if !slices.Contains(words, word) {
			return s.update, fmt.Errorf("%s: unknown; wg(8) has the list", word)
		}
		args = args[1:]
		if word != "remove" {
			if len(args) == 0 {
				return s.update, fmt.Errorf("%s: a value is missing", word)
			}
			value, args = args[0], args[1:]
		}
		if err := s.word(word, value); err != nil {
			return s.update, fmt.Errorf("%s: %w", word, err)
		}
	}
	return s.update, nil
}

// words are all that ParseSet knows.
var words = []string{
	"listen-port", "fwmark", "private-key", "peer", "remove", "preshared-key", "endpoint", "persistent-keepalive", "allowed-ips",
}

type setting struct {
	outside Outside
	update  uapi.Update
	peer    *uapi.PeerUpdate // nil before the first
}

func (s *setting) word(word, value string) (err error) {
	if word == "peer" {
		key, err := conf.ParsePublicKey(value)
		if err != nil {
			return err
		}
		s.update.Peers = append(s.update.Peers, uapi.PeerUpdate{PublicKey: uapi.PublicKey(key)})
		s.peer = &s.update.Peers[len(s.update.Peers)-1]
		return nil
	}
	if s.peer == nil {
		return s.ofInterface(word, value)
	}
	return s.ofPeer(word, value)
}

func (s *setting) ofInterface(word, value string) error {
	switch word {
	case "listen-port":
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil {
			return fmt.Errorf("%q is not a port: 0 to 65535", value)
		}
		port := uint16(n)
		s.update.ListenPort = &port
		return nil
	case "fwmark":
		if value != "0" && !strings.EqualFold(value, "off") {
			return ErrFwMark
		}
		return nil
	case "private-key":
		key, err := s.key(value)
		s.update.PrivateKey = key
		return err
	case "remove", "endpoint", "allowed-ips", "persistent-keepalive", "preshared-key":
		return errors.New("belongs after peer KEY")
	}
	return nil
}

func (s *setting) ofPeer(word, value string) (err error) {
	switch word {
	case "remove":
		s.peer.Remove = true
	case "preshared-key":
		s.peer.PresharedKey, err = s.key(value)
	case "endpoint":
		var e conf.Endpoint
		if e, err = conf.ParseEndpoint(value); err == nil {
			s.peer.Endpoint, err = s.outside.Resolve(e)
		}
	case "persistent-keepalive":
		n, bad := strconv.ParseUint(value, 10, 16)
		if strings.EqualFold(value, "off") {
			n, bad = 0, nil
		}
		if bad != nil {
			return fmt.Errorf("%q is not off or a number of seconds up to 65535", value)
		}
		every := time.Duration(n) * time.Second
		s.peer.PersistentKeepalive = &every
	case "allowed-ips":
		s.peer.ReplaceAllowedIPs = true
		err = s.allowedIPs(value)
	case "listen-port", "fwmark", "private-key":
		return errors.New("belongs before the first peer")
	}
	return err
}

func (s *setting) allowedIPs(list string) error {
	list = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, list)
	if list == "" {
		return nil
	}
	for text := range strings.SplitSeq(list, ",") {
		prefix, err := netip.ParsePrefix(text)
		if addr, bare := netip.ParseAddr(text); bare == nil {
			prefix, err = addr.WithZone("").Prefix(addr.BitLen())
		}
		if err != nil {
			return fmt.Errorf("%q is not ADDRESS/LENGTH", text)
		}
		s.peer.AllowedIPs = append(s.peer.AllowedIPs, prefix.Masked())
	}
	return nil
}

// key reads a file with a key in base64. An empty one removes the key.
func (s *setting) key(path string) (*uapi.Secret, error) {
	text, err := s.outside.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var key uapi.Secret
	if len(text) == 0 {
		return &key, nil
	}
	parsed, err := conf.ParsePrivateKey(strings.TrimRight(string(text), " \t\r\n"))
	if err != nil {
		return nil, fmt.Errorf("read key from %s: %w", path, err)
	}
	copy(key[:], parsed.Bytes())
	return &key, nil
}
