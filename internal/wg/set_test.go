package wg

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"wireguard4netns/conf"
	"wireguard4netns/internal/uapi"
)

// told is an engine that keeps what it is told.
type told chan string

func (e told) Get(context.Context) ([]byte, error)      { return nil, nil }
func (e told) Set(_ context.Context, body []byte) error { e <- string(body); return nil }
func outside(read func(string) ([]byte, error)) Outside {
	return Outside{ReadFile: read, Resolve: literal}
}
func literal(e conf.Endpoint) (a netip.AddrPort, err error) { return mustAddr(e), nil }

func mustAddr(e conf.Endpoint) netip.AddrPort {
	a, _ := e.AddrPort()
	return a
}

// in64 is a key as wg(8) writes it.
func in64(digit string) string {
	b, _ := hex.DecodeString(key(digit))
	return base64.StdEncoding.EncodeToString(b)
}

// What we make of a command line is what wg(8) makes of it.
func TestSetAsWG(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secret, empty := filepath.Join(dir, "secret"), filepath.Join(dir, "empty")
	if err := errors.Join(os.WriteFile(secret, []byte(in64("7")+"\n"), 0o600), os.WriteFile(empty, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	engine := make(told, 1)
	wg := wgOn(t, engine)
	for _, args := range [][]string{
		{"listen-port", "7"},
		{"listen-port", "0", "private-key", secret},
		{"private-key", empty},
		{"peer", in64("2"), "remove"},
		{"peer", in64("2")},
		{"peer", in64("2"), "allowed-ips", ""},
		{"listen-port", "65535", "peer", in64("2"), "preshared-key", secret, "endpoint", "192.0.2.1:7", "persistent-keepalive", "25",
			"allowed-ips", "10.0.0.0/8, fd00::/8,192.0.2.1,2001:db8::1", "peer", in64("3"), "preshared-key", empty,
			"endpoint", "[2001:db8::1]:51820", "persistent-keepalive", "off", "allowed-ips", "0.0.0.0/0", "allowed-ips", "::/0"},
	} {
		wg(append([]string{"set", "wg0"}, args...)...)
		u, err := ParseSet(args, outside(os.ReadFile))
		if err != nil {
			t.Errorf("%q: %v", args, err)
		}
		if want, got := sections(<-engine), sections(string(u.Body())); !slices.Equal(want, got) {
			t.Errorf("%q: wg says\n%q\nwe\n%q", args, want, got)
		}
	}
}

// sections sorts the lines of each section, in which their order means nothing.
func sections(body string) []string {
	var all []string
	for _, section := range strings.Split("\n"+strings.TrimSuffix(body, "\n"), "\npublic_key=") {
		lines := slices.DeleteFunc(strings.Split(section, "\n"), func(l string) bool { return l == "" || l == "protocol_version=1" })
		if len(lines) > 1 {
			slices.Sort(lines[1:])
		}
		all = append(all, strings.Join(lines, "\n"))
	}
	return all
}

// A mistake is named, and what is in a file of keys is not.
func TestSetRefuses(t *testing.T) {
	t.Parallel()
	const key = "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"
	for _, c := range []struct{ args, want string }{
		{"", "nothing to set"},
		{"listen-port", "listen-port: a value is missing"},
		{"listen-port 65536", "65536"},
		{"fwmark 1", "CAP_NET_ADMIN"},
		{"colour red", "colour: unknown"},
		{"remove", "belongs after peer KEY"},
		{"private-key FILE", "read key from FILE"},
		{"peer KEY colour red", "colour: unknown"},
		{"peer KEY listen-port 1", "belongs before the first peer"},
		{"peer KEY endpoint nowhere", "endpoint: "},
		{"peer KEY persistent-keepalive -1", "persistent-keepalive: "},
		{"peer KEY allowed-ips 10.0.0.0/33", "10.0.0.0/33"},
		{"peer KEY preshared-key FILE", "read key from FILE"},
		{"peer nonsense", "peer: "},
	} {
		args := strings.Fields(strings.ReplaceAll(c.args, "KEY", in64("2")))
		_, err := ParseSet(args, outside(func(string) ([]byte, error) { return []byte(key), nil }))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "kk") {
			t.Errorf("%s: %v", c.args, err)
		}
	}
}

// A file for wg(8) may leave the key open, and its lines keep their numbers.
func TestParseFile(t *testing.T) {
	t.Parallel()
	own := uapi.Secret{9}
	for text, line := range map[string]int{
		"": 0, "[Interface]": 0, "[Interface]\nListenPort = 7\n": 0,
		"[Peer]\nPublicKey = " + in64("2"):                    0,
		"# PrivateKey = no\n[Peer]\nPublicKey = " + in64("2"): 0,
		"[Peer]\nPublicKey = nonsense\n":                      2,
		"# x\n[Interface]\nListenPort = 7\nColour = red\n":    4,
		"[Interface]\nPrivateKey = nonsense\n":                2,
	} {
		c, _, err := ParseFile([]byte(text), "f", own)
		var wrong *conf.Error
		switch {
		case line == 0 && err != nil:
			t.Errorf("%q: %v", text, err)
		case line == 0 && [32]byte(c.Interface.PrivateKey.Bytes()) != own:
			t.Errorf("%q: another key", text)
		case line != 0 && (!errors.As(err, &wrong) || wrong.Line != line):
			t.Errorf("%q: %v, not in line %d", text, err, line)
		}
	}
}

// What is so already is not touched, and the rest becomes so.
func TestSync(t *testing.T) {
	t.Parallel()
	every := 25 * time.Second
	psk, own := uapi.Secret{1}, uapi.Secret{2}
	at := netip.MustParseAddrPort("192.0.2.1:7")
	ips := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::/0")}
	have := uapi.Device{PrivateKey: own, ListenPort: 7, Peers: []uapi.Peer{
		{PublicKey: uapi.PublicKey{1}, PresharedKey: psk, Endpoint: at, PersistentKeepalive: every, AllowedIPs: ips},
		{PublicKey: uapi.PublicKey{2}, PresharedKey: psk, PersistentKeepalive: every},
		{PublicKey: uapi.PublicKey{3}},
	}}
	zero := uint16(0)
	one := uapi.PeerUpdate{PublicKey: uapi.PublicKey{1}, PresharedKey: &psk, Endpoint: at, PersistentKeepalive: &every,
		ReplaceAllowedIPs: true, AllowedIPs: []netip.Prefix{ips[1], ips[0]}}
	two := uapi.PeerUpdate{PublicKey: uapi.PublicKey{2}, PresharedKey: &psk, PersistentKeepalive: &every, ReplaceAllowedIPs: true}
	three := uapi.PeerUpdate{PublicKey: uapi.PublicKey{3}, ReplaceAllowedIPs: true}
	want := uapi.Update{PrivateKey: &own, ListenPort: &zero, ReplacePeers: true, Peers: []uapi.PeerUpdate{one, two, three}}
	if u := Sync(have, want); len(u.Body()) != 0 {
		t.Errorf("nothing differs: %q", u.Body())
	}

	port := uint16(8)
	plain := uapi.PeerUpdate{PublicKey: uapi.PublicKey{2}, ReplaceAllowedIPs: true, AllowedIPs: ips[:1], Endpoint: at}
	four := uapi.PeerUpdate{PublicKey: uapi.PublicKey{4}, ReplaceAllowedIPs: true, AllowedIPs: ips[1:]}
	u := Sync(have, uapi.Update{PrivateKey: &psk, ListenPort: &port, ReplacePeers: true, Peers: []uapi.PeerUpdate{one, plain, four}})
	if u.ReplacePeers || u.PrivateKey == nil || *u.ListenPort != 8 || len(u.Peers) != 3 {
		t.Fatalf("%+v", u)
	}
	if p := u.Peers[0]; p.PublicKey[0] != 3 || !p.Remove {
		t.Errorf("removed: %+v", p)
	}
	if p := u.Peers[1]; p.PublicKey[0] != 2 || !p.PresharedKey.IsZero() || *p.PersistentKeepalive != 0 || p.Endpoint != at || !p.ReplaceAllowedIPs || len(p.AllowedIPs) != 1 {
		t.Errorf("changed: %+v", p)
	}
	if p := u.Peers[2]; p.PublicKey[0] != 4 || p.UpdateOnly || len(p.AllowedIPs) != 1 {
		t.Errorf("added: %+v", p)
	}
}
