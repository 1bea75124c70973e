package plan

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"wireguard4netns/conf"
	"wireguard4netns/internal/link"
)

const (
	privateKey = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
	publicKey  = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
	psk        = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE="
)

const both = `[Interface]
PrivateKey = ` + privateKey + `
Address = 10.0.0.2/24, fd00::2
DNS = 10.0.0.1, corp.example
[Peer]
# friendly_name = office
PublicKey = ` + publicKey + `
PresharedKey = ` + psk + `
Endpoint = vpn.example:51820
AllowedIPs = 0.0.0.0/0, ::/0
PersistentKeepalive = 25
`

func parse(t *testing.T, text string) *conf.Config {
	t.Helper()
	c, _, err := conf.Parse(strings.NewReader(text), "wg0.conf")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func route(addr string, mtu int) Route { return Route{netip.MustParseAddrPort(addr), mtu} }

func hostWith(routes ...Route) Host {
	return Host{UID: 1000, Nsswitch: []byte("hosts: files resolve\n"), Endpoints: map[string][]Route{"vpn.example:51820": routes}}
}

func run(t *testing.T, text string, o Options, h Host) *Plan {
	t.Helper()
	o.IfName, o.Configure = "wg0", true
	p, err := New(parse(t, text), o, h)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func diff(want, got any) string {
	return cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}, netip.AddrPort{}))
}

func TestLink(t *testing.T) {
	t.Parallel()
	set := func(old, new string) string { return strings.Replace(both, old, new, 1) }
	whole := link.Config{
		Name: "wg0", MTU: 1440, Addresses: prefixes("10.0.0.2/24", "fd00::2/128"),
		Routes: prefixes("0.0.0.0/0", "::/0"), Up: true, Loopback: true,
	}
	with := func(change func(*link.Config)) link.Config {
		c := whole
		change(&c)
		return c
	}
	v4 := route("192.0.2.1:51820", 1500)
	for name, test := range map[string]struct {
		text    string
		host    Host
		want    link.Config
		warning string
	}{
		"both families":    {both, hostWith(v4), whole, ""},
		"IPv6 endpoint":    {both, hostWith(route("[2001:db8::1]:51820", 1500)), with(func(c *link.Config) { c.MTU = 1420 }), ""},
		"no route":         {both, hostWith(route("192.0.2.1:51820", 0)), with(func(c *link.Config) { c.MTU = 1420 }), ""},
		"a route is first": {both, hostWith(route("[2001:db8::1]:51820", 0), v4), whole, ""},
		"small path":       {both, hostWith(route("192.0.2.1:51820", 1300)), with(func(c *link.Config) { c.MTU = 1280 }), ""},
		"loopback":         {both, hostWith(route("127.0.0.1:51820", 65536)), with(func(c *link.Config) { c.MTU = 65475 }), ""},
		"too large an MTU": {set("DNS", "MTU = 65535\nDNS"), hostWith(v4), with(func(c *link.Config) { c.MTU = 65475 }), "MTU 65535 is more than fits into a UDP datagram: it is 65475"},
		"largest MTU":      {set("DNS", "MTU = 65475\nDNS"), hostWith(v4), with(func(c *link.Config) { c.MTU = 65475 }), ""},
		"MTU in the file":  {set("DNS", "MTU = 1200\nDNS"), hostWith(v4), with(func(c *link.Config) { c.MTU = 1200 }), "MTU 1200 is below 1280"},
		"small path, IPv4 alone": {set(", fd00::2", ""), hostWith(route("192.0.2.1:51820", 1300)), with(func(c *link.Config) {
			c.MTU, c.Addresses, c.Routes = 1240, prefixes("10.0.0.2/24"), prefixes("0.0.0.0/0")
		}), "IPv6 is unreachable inside"},
		"IPv6 alone": {set("10.0.0.2/24, ", ""), hostWith(v4), with(func(c *link.Config) {
			c.Addresses, c.Routes = prefixes("fd00::2/128"), prefixes("::/0")
		}), "IPv4 is unreachable inside"},
		"table off": {set("DNS", "Table = off\nDNS"), hostWith(v4), with(func(c *link.Config) { c.Routes = nil }), ""},
		"table 7":   {set("DNS", "Table = 7\nDNS"), hostWith(v4), with(func(c *link.Config) { c.Table = 7 }), ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := run(t, test.text, Options{}, test.host)
			if d := diff(test.want, p.Link); d != "" {
				t.Error(d)
			}
			if all := strings.Join(p.Warnings, "\n"); !strings.Contains(all, test.warning) {
				t.Errorf("no warning %q in %q", test.warning, all)
			}
		})
	}
}

func TestSmallestPeerDecidesMTU(t *testing.T) {
	t.Parallel()
	second := "[Peer]\nPublicKey = " + psk + "\nEndpoint = b.example:1\nAllowedIPs = 10.9.0.0/16\n"
	h := hostWith(route("192.0.2.1:51820", 1500))
	h.Endpoints["b.example:1"] = []Route{route("192.0.2.2:1", 1400)}
	if p := run(t, both+second, Options{}, h); p.Link.MTU != 1340 {
		t.Errorf("MTU %d from %s", p.Link.MTU, p.MTUSource)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	h := hostWith(route("192.0.2.1:51820", 1500))
	p := run(t, both, Options{}, h)
	if d := diff([]netip.Addr{netip.MustParseAddr("10.0.0.1")}, p.DNS); d != "" {
		t.Error(d)
	}
	if resolv := string(p.Inside.Etc["resolv.conf"]); !strings.Contains(resolv, "nameserver 10.0.0.1\n") || !strings.Contains(resolv, "search corp.example\n") {
		t.Errorf("resolv.conf: %s", resolv)
	}
	if nss := string(p.Inside.Etc["nsswitch.conf"]); strings.Contains(nss, "resolve") {
		t.Errorf("nsswitch.conf: %s", nss)
	}

	p = run(t, both, Options{DNS: []string{"9.9.9.9", "lan"}}, h)
	if len(p.DNS) != 1 || p.DNS[0].String() != "9.9.9.9" || len(p.Search) != 1 {
		t.Errorf("--dns: %v %v", p.DNS, p.Search)
	}
	p = run(t, both, Options{HostDNS: true, HideFiles: []string{"/x/wg0.conf"}}, h)
	if p.Inside.Etc != nil || p.Inside.Run != nil || len(p.Warnings) != 1 || len(p.Inside.HideFiles) != 1 {
		t.Errorf("--dns host: %+v %q", p.Inside, p.Warnings)
	}
	if _, err := New(parse(t, both), Options{IfName: "wg0", DNS: []string{"dns.example"}}, h); err == nil {
		t.Error("--dns with a name alone was taken")
	}
	p = run(t, strings.Replace(both, "0.0.0.0/0, ::/0", "10.7.0.0/16", 1), Options{}, h)
	if all := strings.Join(p.Warnings, "\n"); !strings.Contains(all, "10.0.0.1 is in no peer's AllowedIPs") {
		t.Errorf("warnings %q", all)
	}
}

func TestWithoutAddress(t *testing.T) {
	t.Parallel()
	c := parse(t, strings.Replace(both, "Address", "#", 1))
	if _, err := New(c, Options{IfName: "wg0", Configure: true}, hostWith()); !errors.Is(err, ErrNoAddress) {
		t.Errorf("got %v", err)
	}
	p, err := New(c, Options{IfName: "wg0", Attach: true}, hostWith())
	if err != nil || p.Inside != nil || p.Link.Up || p.Link.Routes != nil || p.Link.MTU == 0 {
		t.Errorf("attach without --configure: %+v, %v", p, err)
	}
}

func TestHooksAndMarks(t *testing.T) {
	t.Parallel()
	text := strings.Replace(both, "DNS", "FwMark = 0x7\nPostUp = echo %i\nDNS", 1)
	p := run(t, text, Options{}, hostWith())
	all := strings.Join(p.Warnings, "\n")
	if !strings.Contains(all, "FwMark") || !strings.Contains(all, "--hooks") || !p.Hooks.Empty() {
		t.Errorf("%q %v", all, p.Hooks)
	}
	p = run(t, text, Options{Hooks: true}, hostWith())
	if d := cmp.Diff([]string{"echo wg0"}, p.Hooks.PostUp); d != "" {
		t.Error(d)
	}
}

// The engine is told everything that is in the file, and the plan that people
// see has no key in it.
func TestDeviceAndText(t *testing.T) {
	t.Parallel()
	p := run(t, both, Options{}, hostWith(route("192.0.2.1:51820", 1500), route("192.0.2.9:51820", 1500)))
	c := parse(t, both)
	body := string(p.Device.Body())
	for _, want := range []string{
		"private_key=" + c.Interface.PrivateKey.Hex(), "preshared_key=" + c.Peers[0].PresharedKey.Hex(),
		"replace_peers=true", "endpoint=192.0.2.1:51820", "persistent_keepalive_interval=25",
		"replace_allowed_ips=true", "allowed_ip=::/0",
	} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("the engine is not told %.20s", want)
		}
	}
	var text strings.Builder
	if _, err := p.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{privateKey, psk, c.Interface.PrivateKey.Hex(), c.Peers[0].PresharedKey.Hex()} {
		if strings.Contains(text.String(), secret) {
			t.Error("the text holds a key")
		}
	}
	for _, want := range []string{"wg0", "1440", "office", publicKey, "192.0.2.9", "10.0.0.2/24", "0.0.0.0/0 over wg0", "10.0.0.1", "/run"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the text lacks %s:\n%s", want, &text)
		}
	}
}
