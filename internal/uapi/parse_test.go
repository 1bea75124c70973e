package uapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const (
	hexA = "e84b5a6d2717c1003a13b431570353dbaca9146cf150c5f8575680feba52027a"
	hexB = "b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33"
	hexC = "188515093e952f5f22e865cef3012e72f8b5f0b598ac0309d5dacce3b70fcf52"
)

// The example of https://www.wireguard.com/xplatform/, with an IPv6 endpoint,
// a peer that never shook hands and one without allowed IPs.
const exampleReply = `private_key=` + hexA + `
listen_port=12912
fwmark=51820
public_key=` + hexB + `
preshared_key=` + hexC + `
protocol_version=1
endpoint=[abcd:23::33%2]:51820
last_handshake_time_sec=1700000000
last_handshake_time_nsec=5
tx_bytes=38333
rx_bytes=2224
persistent_keepalive_interval=111
allowed_ip=192.168.4.4/32
allowed_ip=2001:db8::/64
public_key=` + hexC + `
preshared_key=` + `0000000000000000000000000000000000000000000000000000000000000000` + `
last_handshake_time_sec=0
last_handshake_time_nsec=0
`

var compare = cmp.Options{
	cmpopts.EquateComparable(netip.AddrPort{}, netip.Prefix{}, Secret{}),
}

func key(t testing.TB, text string) [keySize]byte {
	t.Helper()
	k, err := parseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func example(t testing.TB) Device {
	return Device{
		PrivateKey: key(t, hexA),
		ListenPort: 12912,
		Fwmark:     51820,
		Peers: []Peer{{
			PublicKey:           key(t, hexB),
			PresharedKey:        key(t, hexC),
			Endpoint:            netip.MustParseAddrPort("[abcd:23::33%2]:51820"),
			LastHandshake:       time.Unix(1700000000, 5),
			TxBytes:             38333,
			RxBytes:             2224,
			PersistentKeepalive: 111 * time.Second,
			AllowedIPs: []netip.Prefix{
				netip.MustParsePrefix("192.168.4.4/32"), netip.MustParsePrefix("2001:db8::/64"),
			},
		}, {
			PublicKey: key(t, hexC),
		}},
	}
}

func TestParseReadsEveryKeyOfTheProtocol(t *testing.T) {
	got, err := Parse(strings.NewReader(exampleReply))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(example(t), got, compare); diff != "" {
		t.Error(diff)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no equal sign":       "private_key\n",
		"unknown key":         "color=blue\n",
		"short key":           "private_key=" + hexA[1:] + "\n",
		"key not hexadecimal": "private_key=" + hexA[1:] + "g\n",
		"port too large":      "listen_port=65536\n",
		"negative number":     "fwmark=-1\n",
		"peer key in device":  "rx_bytes=1\n",
		"repeated key":        "listen_port=1\nlisten_port=1\n",
		"bad allowed IP":      "public_key=" + hexB + "\nallowed_ip=10.0.0.1\n",
		"bad endpoint":        "public_key=" + hexB + "\nendpoint=host:1\n",
		"bad version":         "public_key=" + hexB + "\nprotocol_version=2\n",
		"nanoseconds":         "public_key=" + hexB + "\nlast_handshake_time_nsec=1000000000\n",
		"empty line":          "\n",
		"long line":           "listen_port=" + strings.Repeat("0", maxLine) + "1\n",
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Parse(strings.NewReader(text))
			if err == nil {
				t.Fatalf("accepted: %+v", d)
			}
			noKey(t, err.Error())
		})
	}
}

// noKey fails when text quotes any run of the keys used in these tests.
func noKey(t testing.TB, text string) {
	t.Helper()
	for _, k := range []string{hexA, hexB, hexC} {
		for i := 0; i+8 <= len(k); i++ {
			if strings.Contains(text, k[i:i+8]) {
				t.Errorf("key material in %q", text)
				return
			}
		}
	}
}

func TestRestoreIsTheConfigurationWithoutTheHistory(t *testing.T) {
	const want = `private_key=` + hexA + `
listen_port=12912
fwmark=51820
replace_peers=true
public_key=` + hexB + `
preshared_key=` + hexC + `
endpoint=[abcd:23::33%2]:51820
persistent_keepalive_interval=111
replace_allowed_ips=true
allowed_ip=192.168.4.4/32
allowed_ip=2001:db8::/64
public_key=` + hexC + `
preshared_key=0000000000000000000000000000000000000000000000000000000000000000
persistent_keepalive_interval=0
replace_allowed_ips=true
`
	body := example(t).Restore().Body()
	if diff := cmp.Diff(want, string(body)); diff != "" {
		t.Error(diff)
	}
	if err := CheckSet(bytes.NewReader(body)); err != nil {
		t.Error(err)
	}
}

func TestAnEmptyUpdateChangesNothing(t *testing.T) {
	if body := (Update{}).Body(); len(body) != 0 {
		t.Errorf("body %q", body)
	}
	peer := PeerUpdate{PublicKey: key(t, hexB)}
	want := "public_key=" + hexB + "\n"
	if got := string(Update{Peers: []PeerUpdate{peer}}.Body()); got != want {
		t.Errorf("body %q, want %q", got, want)
	}
	peer.Remove, peer.ReplaceAllowedIPs = true, true
	want += "remove=true\n"
	if got := string(Update{Peers: []PeerUpdate{peer}}.Body()); got != want {
		t.Errorf("body %q, want %q", got, want)
	}
}

func TestCheckSet(t *testing.T) {
	good := []string{
		"",
		"private_key=" + hexA + "\nlisten_port=0\nfwmark=0\nreplace_peers=true\n",
		"public_key=" + hexB + "\nupdate_only=true\nallowed_ip=-10.0.0.0/8\nprotocol_version=1\npublic_key=" + hexB + "\n",
	}
	for _, text := range good {
		if err := CheckSet(strings.NewReader(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	bad := []string{
		"private_key " + hexA + "\n",
		"private_key=" + hexA + "00\n",
		hexA + "=\n",
		"replace_peers=false\n",
		"update_only=true\n",
		"public_key=" + hexB + "\nlisten_port=1\n",
		"public_key=" + hexB + "\nallowed_ip=--10.0.0.0/8\n",
		"public_key=" + hexB + "\nrx_bytes=1\n",
	}
	for _, text := range bad {
		err := CheckSet(strings.NewReader(text))
		if err == nil {
			t.Errorf("accepted %q", text)
			continue
		}
		noKey(t, err.Error())
	}
}

func TestSecretIsNeverPrinted(t *testing.T) {
	d := example(t)
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q"} {
		fmt.Fprintf(&out, verb+"\n", d.PrivateKey)
		fmt.Fprintf(&out, verb+"\n", &d.PrivateKey)
		fmt.Fprintf(&out, verb+"\n", d.Restore().PrivateKey)
	}
	fmt.Fprintf(&out, "%v %+v %#v\n", d.PrivateKey, struct{ D Secret }{d.PrivateKey}, []Secret{d.PrivateKey})
	slog.New(slog.NewTextHandler(&out, nil)).Info("key", "k", d.PrivateKey)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("key", "k", d.PrivateKey)
	if err := json.NewEncoder(&out).Encode(d.PrivateKey); err != nil {
		t.Fatal(err)
	}
	noKey(t, out.String())
	if !strings.Contains(out.String(), hidden) || strings.Contains(out.String(), "232 75 90") {
		t.Errorf("printed %q", out.String())
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(exampleReply))
	f.Add([]byte("public_key=" + hexB + "\nlast_handshake_time_nsec=1\nlast_handshake_time_sec=2\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := Parse(bytes.NewReader(text))
		if err != nil {
			return
		}
		// What was understood can be set again, and a set is understood as
		// far as the keys of both directions agree.
		if err := CheckSet(bytes.NewReader(d.Restore().Body())); err != nil {
			t.Fatalf("restore of %q: %v", text, err)
		}
	})
}

func FuzzCheckSet(f *testing.F) {
	f.Add([]byte(hexA))
	f.Add(example(f).Restore().Body())
	f.Add([]byte("public_key=" + hexB + "\nallowed_ip=-::/0\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if CheckSet(bytes.NewReader(text)) == nil && bytes.Contains(text, []byte("\n\n")) {
			t.Fatalf("an empty line would end the request early: %q", text)
		}
	})
}
