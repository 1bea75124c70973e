package conf_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"wireguard4netns/conf"
)

// Made-up keys. No test may find a part of secret in a message.
const (
	secret    = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
	public    = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
	public2   = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="
	preshared = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE="

	head = "[Interface]\nPrivateKey = " + secret + "\n" // lines 1 and 2
	peer = "[Peer]\nPublicKey = " + public + "\n"       // lines 3 and 4, after head
)

func parse(text string) (*conf.Config, []conf.Warning, error) {
	return conf.Parse(strings.NewReader(text), "wg0.conf")
}

func mustParse(t testing.TB, text string) *conf.Config {
	t.Helper()
	c, _, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func marshal(t testing.TB, c *conf.Config) string {
	t.Helper()
	data, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// samples are the files in testdata: what providers and administrators hand
// out, with made-up keys.
func samples(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.conf")
	if err != nil || len(files) < 9 {
		t.Fatalf("testdata: %v %v", files, err)
	}
	return files
}

func read(t testing.TB, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestSamples compares each sample with what it says in its plainest form.
func TestSamples(t *testing.T) {
	for _, file := range samples(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			got := marshal(t, mustParse(t, read(t, file)))
			want := strings.TrimSuffix(file, ".conf") + ".want"
			if os.Getenv("UPDATE") != "" {
				if err := os.WriteFile(want, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want := read(t, want); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if again := marshal(t, mustParse(t, got)); again != got {
				t.Errorf("marshalled twice\n%s\nonce\n%s", again, got)
			}
		})
	}
}

// TestValues has one line, or a few, and what Marshal makes of them.
func TestValues(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{
		{"missing masks", head + "Address = 10.0.0.1, fd00::1", head + "Address = 10.0.0.1/32, fd00::1/128\n"},
		{"host bits of an address are kept", head + "Address = 10.0.0.1/8", head + "Address = 10.0.0.1/8\n"},
		{"dotted mask", head + "Address = 10.0.0.1/255.255.240.0", head + "Address = 10.0.0.1/20\n"},
		{"BOM", "\ufeff" + head, head},
		{"CRLF and no last line end", strings.ReplaceAll(head, "\n", "\r\n") + "MTU = 1300\r", head + "MTU = 1300\n"},
		{"Peer before Interface", peer + head, head + "\n" + peer},
		{"last one counts", head + "MTU = 1300\nMTU = 1400", head + "MTU = 1400\n"},
		{"empty MTU takes it back", head + "MTU = 1300\nMTU =", head},
		{"ListenPort 0", head + "ListenPort = 0", head},
		{"FwMark off", head + "FwMark = OFF", head},
		{"FwMark hexadecimal", head + "FwMark = 0xFFFFFFFF", head + "FwMark = 0xffffffff\n"},
		{"FwMark decimal", head + "FwMark = 51820", head + "FwMark = 0xca6c\n"},
		{"Table off", head + "Table = Off", head + "Table = off\n"},
		{"Table auto", head + "Table = auto", head},
		{"Table empty", head + "Table =", head},
		{"Table by name", head + "Table = main", head + "Table = 254\n"},
		{"Table 0 is main to the kernel", head + "Table = 0", head + "Table = 254\n"},
		{"Table hexadecimal", head + "Table = 0x10", head + "Table = 16\n"},
		{"DNS and search", head + "DNS = a.example, 10.0.0.1 fd00::1%eth0\nDNS = b", head + "DNS = 10.0.0.1, fd00::1%eth0, a.example, b\n"},
		{"DNS with a server's name in a comment", head + "DNS = 1.1.1.1#one.one", head + "DNS = 1.1.1.1\n"},
		{"routing-only domain", head + "DNS = 1.1.1.1, ~., ~corp.example", head + "DNS = 1.1.1.1\n"},
		{"hook keeps spaces, = and %i", head + "PostUp =  ip rule add  a=%i, b ", head + "PostUp = ip rule add  a=%i, b\n"},
		{"hook loses a comment, as in wg-quick", head + "PostUp = echo '#1'", head + "PostUp = echo '\n"},
		{"SaveConfig", head + "SaveConfig = True", head + "SaveConfig = true\n"},
		{"SaveConfig taken back", head + "SaveConfig = true\nSaveConfig = false", head},
		{"zero preshared key is none", head + peer + "PresharedKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", head + "\n" + peer},
		{"AllowedIPs are masked", head + peer + "AllowedIPs = 10.1.2.3/8,fd00::1/64", head + "\n" + peer + "AllowedIPs = 10.0.0.0/8, fd00::/64\n"},
		{"AllowedIPs once each", head + peer + "AllowedIPs = 10.1.0.0/16, 10.1.2.0/16", head + "\n" + peer + "AllowedIPs = 10.1.0.0/16\n"},
		{"AllowedIPs empty", head + peer + "AllowedIPs = ", head + "\n" + peer},
		{"AllowedIPs with + and -", head + peer + "AllowedIPs = +10.1.0.0/16, 10.2.0.0/16, -10.1.0.0/16, -10.9.0.0/16", head + "\n" + peer + "AllowedIPs = 10.2.0.0/16\n"},
		{"last peer has it", head + peer + "AllowedIPs = 10.0.0.1, 10.0.0.2\n[Peer]\nPublicKey = " + public2 + "\nAllowedIPs = 10.0.0.2",
			head + "\n" + peer + "AllowedIPs = 10.0.0.1/32\n\n[Peer]\nPublicKey = " + public2 + "\nAllowedIPs = 10.0.0.2/32\n"},
		{"repeated peer replaces AllowedIPs and keeps the rest", head + peer + "AllowedIPs = 10.0.0.1\nEndpoint = 192.0.2.1:1\nPersistentKeepalive = 9\n" + peer + "PresharedKey = " + preshared + "\nAllowedIPs = 10.0.0.2",
			head + "\n" + peer + "PresharedKey = " + preshared + "\nAllowedIPs = 10.0.0.2/32\nEndpoint = 192.0.2.1:1\nPersistentKeepalive = 9\n"},
		{"repeated peer with + adds", head + peer + "AllowedIPs = 10.0.0.1\n" + peer + "AllowedIPs = +10.0.0.2",
			head + "\n" + peer + "AllowedIPs = 10.0.0.1/32, 10.0.0.2/32\n"},
		{"own public key is skipped", head + "[Peer]\nPublicKey = " + mustPublic(secret) + "\nAllowedIPs = 10.0.0.1", head},
		{"Endpoint name", head + peer + "Endpoint = vpn-1.example.COM.:65535", head + "\n" + peer + "Endpoint = vpn-1.example.COM.:65535\n"},
		{"Endpoint IPv6", head + peer + "Endpoint = [2001:DB8:0::1]:1", head + "\n" + peer + "Endpoint = [2001:db8::1]:1\n"},
		{"Endpoint with zone", head + peer + "Endpoint = [fe80::1%eth0]:1", head + "\n" + peer + "Endpoint = [fe80::1%eth0]:1\n"},
		{"Endpoint IPv6 without brackets", head + peer + "Endpoint = 2001:db8::1:51820", head + "\n" + peer + "Endpoint = [2001:db8::1]:51820\n"},
		{"PersistentKeepalive off", head + peer + "PersistentKeepalive = Off", head + "\n" + peer},
		{"name after the header", head + "[Peer]\n# friendly_name = Zoë's  box = 1 \nPublicKey = " + public, head + "\n[Peer]\n# friendly_name = Zoë's  box = 1\nPublicKey = " + public + "\n"},
		{"name on the header", head + "[Peer] #friendly_name=A\nPublicKey = " + public, head + "\n[Peer]\n# friendly_name = A\nPublicKey = " + public + "\n"},
		{"name above the header", head + "\n# Friendly_Name = A\n# other\n" + peer, head + "\n[Peer]\n# friendly_name = A\nPublicKey = " + public + "\n"},
		{"name at the end of a section", head + peer + "# friendly_name = A\n\n[Peer]\nPublicKey = " + public2, head + "\n[Peer]\n# friendly_name = A\nPublicKey = " + public + "\n\n[Peer]\nPublicKey = " + public2 + "\n"},
		{"name far above is nobody's", head + "# friendly_name = A\n\n" + peer, head + "\n" + peer},
		{"name without control characters", head + peer + "# friendly_name = \x1b[2JA\u202eB\xff", head + "\n[Peer]\n# friendly_name = [2JAB\nPublicKey = " + public + "\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := marshal(t, mustParse(t, test.in)); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

func mustPublic(private string) string {
	k, err := conf.ParsePrivateKey(private)
	if err != nil {
		panic(err)
	}
	return k.PublicKey().String()
}

func TestErrors(t *testing.T) {
	const form = ": a key is 32 bytes, written as 44 characters of base64"
	const endpoint = ": write HOST:PORT, or [IPv6]:PORT"
	for _, test := range []struct{ in, key, want string }{
		{"", "", `wg0.conf: file is empty: a wg-quick file begins with [Interface]`},
		{" \n\t\r\n", "", `wg0.conf: file is empty: a wg-quick file begins with [Interface]`},
		{"[Inter\x00face]", "", `wg0.conf: file is not plain text: save it as UTF-8`},
		{strings.Repeat("#", 1<<20+1), "", `wg0.conf: file is over 1 MiB: this is not a WireGuard file`},
		{head + "PostUp = " + strings.Repeat("x", 256<<10), "", `wg0.conf:3: line is over 256 KiB: split the list: a key may be repeated`},
		{"# only\n", "", `wg0.conf: there is no [Interface] section: a wg-quick file begins with [Interface]`},
		{peer, "", `wg0.conf: there is no [Interface] section: a wg-quick file begins with [Interface]`},
		{"PrivateKey = " + secret, "", `wg0.conf:1: line stands before any section: the first line is to be [Interface]`},
		{"\n[Interface]\nMTU=1300\n", "PrivateKey", `wg0.conf:2: [Interface] has no PrivateKey: add the one that belongs to the public key your peer knows`},
		{head + peer + "[Peer]\nAllowedIPs =\n", "PublicKey", `wg0.conf:5: [Peer] has no PublicKey: add the key of the peer`},
		{head + head, "", `wg0.conf:3: second [Interface] section, the first is in line 1: one file is one interface: split it`},
		{head + "[Peers]", "", `wg0.conf:3: unknown section: did you mean [Peer]?`},
		{head + "[NetDev]", "", `wg0.conf:3: unknown section: the sections are [Interface] and [Peer]`},
		{head + "[Peer", "", `wg0.conf:3: unknown section: did you mean [Peer]?`},
		{head + "Address 10.0.0.1", "", `wg0.conf:3: line is neither a [Section] nor KEY = VALUE: a comment begins with #`},

		{head + "Adress = 10.0.0.1", "Address", `wg0.conf:3: unknown key "Adress" in [Interface]: did you mean "Address"?`},
		{head + "Addresses = 10.0.0.1", "Address", `wg0.conf:3: unknown key "Addresses" in [Interface]: did you mean "Address"?`},
		{head + "LsitenPort = 1", "ListenPort", `wg0.conf:3: unknown key "LsitenPort" in [Interface]: did you mean "ListenPort"?`},
		{head + peer + "AllowedIP = 10.0.0.1", "AllowedIPs", `wg0.conf:5: unknown key "AllowedIP" in [Peer]: did you mean "AllowedIPs"?`},
		{head + "AllowedIP = 10.0.0.1", "AllowedIPs", `wg0.conf:3: unknown key "AllowedIP" in [Interface]: did you mean "AllowedIPs", which belongs in [Peer]?`},
		{head + peer + "Address = 10.0.0.1", "Address", `wg0.conf:5: Address in [Peer]: it belongs in [Interface]`},
		{head + "endpoint = 192.0.2.1:1", "Endpoint", `wg0.conf:3: Endpoint in [Interface]: it belongs in [Peer]`},
		{head + peer + "Colour = red", "", `wg0.conf:5: unknown key in [Peer]: the keys of [Peer] are PublicKey, PresharedKey, AllowedIPs, Endpoint, PersistentKeepalive`},
		{head + "Jc = 4", "Jc", `wg0.conf:3: Jc is a key of AmneziaWG: this is an AmneziaWG file: its peer speaks another protocol; ask for a plain WireGuard file`},
		{head + "H4 = 4", "H4", `wg0.conf:3: H4 is a key of AmneziaWG: this is an AmneziaWG file: its peer speaks another protocol; ask for a plain WireGuard file`},
		{head + "ExcludedApplications = a.b", "ExcludedApplications", `wg0.conf:3: ExcludedApplications is a key of the WireGuard app for Android: delete the line`},

		{"[Interface]\nPrivateKey =", "PrivateKey", `wg0.conf:2: PrivateKey is empty` + form},
		{"[Interface]\nPrivateKey = " + secret[:40] + "\n", "PrivateKey", `wg0.conf:2: PrivateKey has 30 bytes instead of 32` + form},
		{"[Interface]\nPrivateKey = " + secret[:40] + "aA==\n", "PrivateKey", `wg0.conf:2: PrivateKey has 31 bytes instead of 32` + form},
		{"[Interface]\nPrivateKey = " + secret[:43] + "\n", "PrivateKey", `wg0.conf:2: PrivateKey is not base64 (43 characters; the = at the end may be missing)` + form},
		{"[Interface]\nPrivateKey = " + secret[:20] + "?" + secret[21:] + "\n", "PrivateKey", `wg0.conf:2: PrivateKey is not base64 (44 characters)` + form},
		{"[Interface]\nPrivateKey = " + secret[:42] + "l=\n", "PrivateKey", `wg0.conf:2: PrivateKey is not base64 (44 characters)` + form},
		{"[Interface]\nPrivateKey = " + strings.Repeat("A", 43) + "=\n", "PrivateKey", `wg0.conf:2: PrivateKey is all zeros: put the real key there`},
		{head + "[Peer]\nPublicKey = " + strings.Repeat("A", 43) + "=\n", "PublicKey", `wg0.conf:4: PublicKey is all zeros: put the real key there`},
		{head + peer + "PresharedKey =", "PresharedKey", `wg0.conf:5: PresharedKey is empty` + form + "; delete the line if there is none"},

		{head + "Address = 10.0.0.1/33", "Address", `wg0.conf:3: Address has a part "10.0.0.1/33" with a wrong mask: a mask is a number from 0 to 32`},
		{head + "Address = fd00::1/129", "Address", `wg0.conf:3: Address has a part "fd00::1/129" with a wrong mask: a mask is a number from 0 to 128`},
		{head + "Address = 10.0.0.1/255.0.255.0", "Address", `wg0.conf:3: Address has a part "10.0.0.1/255.0.255.0" with a wrong mask: a mask is a number from 0 to 32`},
		{head + "Address = 10.0.0.1/", "Address", `wg0.conf:3: Address has a part "10.0.0.1/" with a wrong mask: a mask is a number from 0 to 32`},
		{head + "Address = 10.0.0.256", "Address", `wg0.conf:3: Address has a part "10.0.0.256" that is not an IP address: write ADDRESS/BITS, with commas between several`},
		{head + "Address = fe80::1%eth0/64", "Address", `wg0.conf:3: Address has a part that is not an IP address: write ADDRESS/BITS, with commas between several`},
		{head + peer + "AllowedIPs = 10.0.0.1 10.0.0.2", "AllowedIPs", `wg0.conf:5: AllowedIPs has a part "10.0.0.110.0.0.2" that is not an IP address: write ADDRESS/BITS, with commas between several`},
		{head + peer + "AllowedIPs = example.com", "AllowedIPs", `wg0.conf:5: AllowedIPs has a part that is not an IP address: write ADDRESS/BITS, with commas between several`},
		{head + "DNS = 10.0.0", "DNS", `wg0.conf:3: DNS has a part "10.0.0" that is not an IP address: write addresses and search domains, with commas between them`},
		{head + "DNS = https://dns.example/", "DNS", `wg0.conf:3: DNS has a part that is not an IP address: write addresses and search domains, with commas between them`},
		{head + "DNS = 1.1.1.1/32", "DNS", `wg0.conf:3: DNS has a part that is neither an IP address nor a search domain: write addresses and search domains, with commas between them`},
		{head + "ListenPort = 65536", "ListenPort", `wg0.conf:3: ListenPort is not a port: write a number from 1 to 65535, or 0 for any`},
		{head + "FwMark = 0x100000000", "FwMark", `wg0.conf:3: FwMark is not a mark: write off or a number of 32 bits, decimal or with 0x in front`},
		{head + "FwMark = -1", "FwMark", `wg0.conf:3: FwMark is not a mark: write off or a number of 32 bits, decimal or with 0x in front`},
		{head + "MTU = 67", "MTU", `wg0.conf:3: MTU is not an MTU: write a number from 68 to 65535; 1280 to 1420 is usual`},
		{head + "MTU = 65536", "MTU", `wg0.conf:3: MTU is not an MTU: write a number from 68 to 65535; 1280 to 1420 is usual`},
		{head + "Table = vpn", "Table", `wg0.conf:3: Table is not a routing table: write auto, off or a number; names other than main, default and local are not looked up`},
		{head + "Table = 4294967295", "Table", `wg0.conf:3: Table is not a routing table: write auto, off or a number; names other than main, default and local are not looked up`},
		{head + "SaveConfig = yes", "SaveConfig", `wg0.conf:3: SaveConfig is neither true nor false: write one of the two`},
		{head + peer + "Endpoint =", "Endpoint", `wg0.conf:5: Endpoint is empty` + endpoint},
		{head + peer + "Endpoint = vpn.example.com", "Endpoint", `wg0.conf:5: Endpoint has no port` + endpoint},
		{head + peer + "Endpoint = [2001:db8::1]", "Endpoint", `wg0.conf:5: Endpoint has no port` + endpoint},
		{head + peer + "Endpoint = vpn.example.com:0", "Endpoint", `wg0.conf:5: Endpoint has a port that is not a number from 1 to 65535` + endpoint},
		{head + peer + "Endpoint = vpn.example.com:http", "Endpoint", `wg0.conf:5: Endpoint has a port that is not a number from 1 to 65535` + endpoint},
		{head + peer + "Endpoint = :51820", "Endpoint", `wg0.conf:5: Endpoint has a host that is neither an IP address nor a host name` + endpoint},
		{head + peer + "Endpoint = a:b:51820", "Endpoint", `wg0.conf:5: Endpoint has a host that is neither an IP address nor a host name` + endpoint},
		{head + peer + "PersistentKeepalive = 65536", "PersistentKeepalive", `wg0.conf:5: PersistentKeepalive is not an interval: write off or a number of seconds from 0 to 65535`},
	} {
		_, _, err := parse(test.in)
		var e *conf.Error
		if !errors.As(err, &e) {
			t.Errorf("%q: got %v, want %s", test.in[:min(len(test.in), 99)], err, test.want)
			continue
		}
		if e.Error() != test.want || e.Key != test.key || e.File != "wg0.conf" {
			t.Errorf("got  %s (key %q)\nwant %s (key %q)", e, e.Key, test.want, test.key)
		}
		if e.What()+": "+e.Hint != e.Error() {
			t.Errorf("What and Hint are not Error: %q %q", e.What(), e.Hint)
		}
	}
}

func TestReadError(t *testing.T) {
	broken := errors.New("broken")
	_, _, err := conf.Parse(failing{broken}, "wg0.conf")
	if !errors.Is(err, broken) || err.Error() != "read wg0.conf: broken" {
		t.Error(err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestWarnings(t *testing.T) {
	for _, test := range []struct {
		in   string
		kind conf.WarningKind
		want string
	}{
		{head, conf.NoPeer, "wg0.conf: there is no [Peer] section: nothing can be reached"},
		{head + "MTU = 1300\nmtu = 1400\n" + peer, conf.RepeatedKey, "wg0.conf:4: MTU again, after line 3: this one counts"},
		{head + "Address = 10.0.0.1, 10.0.0.1\n" + peer, conf.RepeatedAddress, "wg0.conf:3: Address 10.0.0.1/32 is given twice"},
		{head + "DNS = ~corp\n" + peer, conf.RoutingDomain, "wg0.conf:3: DNS has a domain with ~ in front, which asks for routing and not for searching: it is left out"},
		{head + peer + peer, conf.RepeatedPeer, "wg0.conf:5: [Peer] has the public key of line 3: what it gives replaces what that gave"},
		{head + peer + "[Peer]\nPublicKey = " + mustPublic(secret), conf.OwnPublicKey, "wg0.conf:5: [Peer] has the public key of this interface itself: it is left out"},
		{head + peer + "AllowedIPs = 10.1.2.3/8", conf.HostBits, "wg0.conf:5: AllowedIPs 10.1.2.3/8 has bits beyond its mask: it is read as 10.0.0.0/8"},
		{head + peer + "AllowedIPs = ::/0\n[Peer]\nPublicKey = " + public2 + "\nAllowedIPs = ::/0", conf.MovedAllowedIP, "wg0.conf:8: AllowedIPs ::/0 is taken from the [Peer] of line 3: the last one has it"},
		{head + peer + "Endpoint = 2001:db8::1:51820", conf.UnbracketedEndpoint, "wg0.conf:5: Endpoint is an IPv6 address without brackets: what follows its last colon is read as the port"},
	} {
		_, warnings, err := parse(test.in)
		if err != nil || len(warnings) != 1 {
			t.Errorf("%s: got %v, %v", test.want, warnings, err)
			continue
		}
		if w := warnings[0]; w.Kind != test.kind || w.String() != test.want {
			t.Errorf("got  %s (%s)\nwant %s (%s)", w, w.Kind, test.want, test.kind)
		}
	}
	if _, warnings, err := parse(head + peer); err != nil || len(warnings) != 0 {
		t.Errorf("nothing to warn of: %v, %v", warnings, err)
	}
}

// TestText has values of a Config go through JSON.
func TestText(t *testing.T) {
	type values struct {
		Key      conf.PublicKey
		Endpoint []conf.Endpoint
		Table    []conf.Table
	}
	endpoint, err := conf.ParseEndpoint("[fe80::1%eth0]:51820")
	if err != nil {
		t.Fatal(err)
	}
	in := values{Endpoint: []conf.Endpoint{endpoint, {}}, Table: []conf.Table{conf.TableAuto, conf.TableOff, 1234}}
	if in.Key, err = conf.ParsePublicKey(public); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(in)
	if want := `{"Key":"` + public + `","Endpoint":["[fe80::1%eth0]:51820",""],"Table":["auto","off","1234"]}`; err != nil || string(text) != want {
		t.Errorf("got %s, %v, want %s", text, err, want)
	}
	var out values
	if err := json.Unmarshal(text, &out); err != nil || !reflect.DeepEqual(in, out) {
		t.Errorf("got %v, %v, want %v", out, err, in)
	}
	for _, wrong := range []string{`{"Key":"x"}`, `{"Endpoint":["x"]}`, `{"Table":["x"]}`} {
		if err := json.Unmarshal([]byte(wrong), &out); err == nil {
			t.Errorf("%s is taken", wrong)
		}
	}
}

// TestLarge bounds the time that a file of the greatest size takes.
func TestLarge(t *testing.T) {
	var list strings.Builder
	for i := 0; list.Len() < 900<<10; i++ {
		fmt.Fprintf(&list, "AllowedIPs = %d.%d.%d.0/24, +::%x, -10.0.0.0/8\nendpoint=1.1.1.1:1\n", i>>16, i>>8&255, i&255, i)
	}
	for name, text := range map[string]string{
		"AllowedIPs": head + peer + list.String(),
		"peers":      head + strings.Repeat(peer+"AllowedIPs=::/0\n", 1<<20/90),
		"addresses":  head + "Address=10.0.0.1\n" + strings.Repeat("Address=10.0.0.1,::1\n", 1<<20/25),
	} {
		start := time.Now()
		c, warnings, err := parse(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s took %v", name, took)
		}
		t.Logf("%s: %v, %d warnings, %d peers", name, time.Since(start), len(warnings), len(c.Peers))
	}
}

func TestExpand(t *testing.T) {
	i := mustParse(t, head+"PreUp = a %i %i\nPostUp = b\nPostUp = c%i\nPreDown = %%i\nPostDown = d").Interface
	x := i.Expand("wg0")
	got := strings.Join([]string{x.PreUp[0], x.PostUp[0], x.PostUp[1], x.PreDown[0], x.PostDown[0]}, "|")
	if want := "a wg0 wg0|b|cwg0|%wg0|d"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if i.PreUp[0] != "a %i %i" {
		t.Error("Expand changed its receiver")
	}
}

// TestMarshalRefuses has values that no file holds: what would be read back as
// something else must not be written.
func TestMarshalRefuses(t *testing.T) {
	for name, change := range map[string]func(*conf.Config){
		"line break in a hook":        func(c *conf.Config) { c.Interface.PostUp = []string{"true\nPostUp = false"} },
		"comment in a hook":           func(c *conf.Config) { c.Interface.PreDown = []string{"echo #1"} },
		"empty hook":                  func(c *conf.Config) { c.Interface.PreUp = []string{""} },
		"line break in a domain":      func(c *conf.Config) { c.Interface.Search = []string{"a\nPostUp = false"} },
		"line break in an endpoint":   func(c *conf.Config) { c.Peers[0].Endpoint.Host = "a\nPostUp = false" },
		"endpoint without port":       func(c *conf.Config) { c.Peers[0].Endpoint = conf.Endpoint{Host: "a"} },
		"no private key":              func(c *conf.Config) { c.Interface.PrivateKey = conf.PrivateKey{} },
		"no public key":               func(c *conf.Config) { c.Peers[0].PublicKey = conf.PublicKey{} },
		"MTU":                         func(c *conf.Config) { c.Interface.MTU = -1 },
		"PersistentKeepalive too big": func(c *conf.Config) { c.Peers[0].PersistentKeepalive = 1 << 62 },
	} {
		c := mustParse(t, head+peer)
		change(c)
		if data, err := c.Marshal(); err == nil {
			t.Errorf("%s: got\n%s", name, data)
		}
	}
}
