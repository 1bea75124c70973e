package conf_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"wireguard4netns/conf"
)

// sameMeaning compares what a tunnel is; the order of peers and of AllowedIPs, and
// names, are not part of it.
func sameMeaning(t *testing.T, got, want *conf.Config) {
	t.Helper()
	if a, b := plain(t, got), plain(t, want); a != b {
		t.Errorf("got\n%s\nwant\n%s", a, b)
	}
}

// plain is a Config in one order, without names.
func plain(t *testing.T, c *conf.Config) string {
	t.Helper()
	sorted := &conf.Config{Interface: c.Interface, Peers: slices.Clone(c.Peers)}
	slices.SortFunc(sorted.Peers, func(a, b conf.Peer) int { return strings.Compare(a.PublicKey.String(), b.PublicKey.String()) })
	for i := range sorted.Peers {
		p := &sorted.Peers[i]
		p.Name = ""
		p.AllowedIPs = slices.SortedFunc(slices.Values(p.AllowedIPs), netip.Prefix.Compare)
	}
	return marshal(t, sorted)
}

// save demands of each result what Save promises of all.
func save(t *testing.T, text string, c *conf.Config) string {
	t.Helper()
	out, err := conf.Save([]byte(text), c)
	if err != nil {
		t.Fatalf("%v\n%s\nto be\n%s", err, text, plain(t, c))
	}
	after := mustParse(t, string(out))
	sameMeaning(t, after, c)
	names := map[conf.PublicKey]string{}
	for _, p := range c.Peers {
		names[p.PublicKey] = p.Name
	}
	for _, p := range mustParse(t, text).Peers {
		names[p.PublicKey] = p.Name
	}
	for _, p := range after.Peers {
		if p.Name != names[p.PublicKey] {
			t.Errorf("peer %v is called %q, was %q\n%s\n--- became\n%s", p.PublicKey, p.Name, names[p.PublicKey], text, out)
		}
	}
	if again, err := conf.Save(out, c); err != nil || string(again) != string(out) {
		t.Errorf("saved twice: %v\n%s\nonce\n%s", err, again, out)
	}
	return string(out)
}

const office = `# The office's tunnel.
[Interface]
	privatekey=` + secret + `   # made on the laptop
Address = 10.0.0.2/24
Address = fd00::2/64
ListenPort = 51820 # open in the firewall
SaveConfig = true

# friendly_name = Gate
# in the cellar
[Peer]
PublicKey = ` + public + `
AllowedIPs = 10.1.2.3/16, 10.2.0.0/16 # both floors
AllowedIPs = fd01::/64
Endpoint = gate.example.com:51820
PersistentKeepalive=25

# --- guests ---

# Nobody's phone
[Peer] # friendly_name = Phone
PublicKey = ` + public2 + `
# AllowedIPs = 10.8.0.0/16
AllowedIPs = 10.9.0.0/16
PresharedKey = ` + preshared + `
`

const gone = `# Nobody's phone
[Peer] # friendly_name = Phone
PublicKey = ` + public2 + `
# AllowedIPs = 10.8.0.0/16
AllowedIPs = 10.9.0.0/16
PresharedKey = ` + preshared + `
`

// TestSave changes one thing, or a few, and says which lines become which.
func TestSave(t *testing.T) {
	prefix := netip.MustParsePrefix
	addressed := func(s string) conf.Endpoint {
		e, err := conf.ParseEndpoint(s)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	for _, test := range []struct {
		name   string
		change func(*conf.Config)
		lines  []string // before, after, before, after …
	}{
		{"nothing", func(*conf.Config) {}, nil},
		{"another order", func(c *conf.Config) {
			slices.Reverse(c.Peers)
			slices.Reverse(c.Peers[1].AllowedIPs)
		}, nil},
		{"private key", func(c *conf.Config) { c.Interface.PrivateKey, _ = conf.ParsePrivateKey(preshared) },
			[]string{"\tprivatekey=" + secret + "   # made", "\tprivatekey=" + preshared + "   # made"}},
		{"port", func(c *conf.Config) { c.Interface.ListenPort = 7 }, []string{"ListenPort = 51820 # open", "ListenPort = 7 # open"}},
		{"no port", func(c *conf.Config) { c.Interface.ListenPort = 0 }, []string{"ListenPort = 51820 # open", "ListenPort = 0 # open"}},
		{"new keys", func(c *conf.Config) {
			c.Interface.FwMark, c.Interface.MTU = 5, 1300
			c.Peers[1].PersistentKeepalive = 9 * time.Second
			c.Peers[1].Endpoint = addressed("[2001:db8::9]:9")
		}, []string{"SaveConfig = true\n", "SaveConfig = true\nFwMark = 0x5\nMTU = 1300\n",
			"PresharedKey = " + preshared + "\n", "PresharedKey = " + preshared + "\nEndpoint = [2001:db8::9]:9\nPersistentKeepalive = 9\n"}},
		{"addresses", func(c *conf.Config) {
			c.Interface.Addresses = []netip.Prefix{prefix("10.0.0.3/24"), prefix("fd00::3/64")}
		}, []string{"Address = 10.0.0.2/24\nAddress = fd00::2/64\n", "Address = 10.0.0.3/24, fd00::3/64\n"}},
		{"DNS", func(c *conf.Config) {
			c.Interface.DNS, c.Interface.Search = []netip.Addr{netip.MustParseAddr("10.0.0.1")}, []string{"example.com"}
		}, []string{"SaveConfig = true\n", "SaveConfig = true\nDNS = 10.0.0.1, example.com\n"}},
		{"endpoint", func(c *conf.Config) { c.Peers[0].Endpoint = addressed("192.0.2.1:1") },
			[]string{"gate.example.com:51820", "192.0.2.1:1"}},
		{"keepalive", func(c *conf.Config) { c.Peers[0].PersistentKeepalive = time.Minute },
			[]string{"PersistentKeepalive=25", "PersistentKeepalive=60"}},
		{"no keepalive", func(c *conf.Config) { c.Peers[0].PersistentKeepalive = 0 },
			[]string{"PersistentKeepalive=25", "PersistentKeepalive=off"}},
		{"no endpoint, no preshared key", func(c *conf.Config) {
			c.Peers[0].Endpoint, c.Peers[1].PresharedKey = conf.Endpoint{}, conf.PresharedKey{}
		}, []string{"Endpoint = gate.example.com:51820\n", "", "PresharedKey = " + preshared + "\n", ""}},
		{"one prefix more", func(c *conf.Config) { c.Peers[0].AllowedIPs = append(c.Peers[0].AllowedIPs, prefix("10.3.0.0/16")) },
			[]string{"fd01::/64", "fd01::/64, 10.3.0.0/16"}},
		{"one prefix less", func(c *conf.Config) { c.Peers[0].AllowedIPs = slices.Delete(c.Peers[0].AllowedIPs, 1, 2) },
			[]string{"10.1.2.3/16, 10.2.0.0/16 # both", "10.1.2.3/16 # both"}},
		{"a line's prefixes less", func(c *conf.Config) { c.Peers[0].AllowedIPs = c.Peers[0].AllowedIPs[:2] },
			[]string{"AllowedIPs = fd01::/64\n", ""}},
		{"a prefix moves", func(c *conf.Config) {
			c.Peers[1].AllowedIPs = append(c.Peers[1].AllowedIPs, c.Peers[0].AllowedIPs[0])
			c.Peers[0].AllowedIPs = c.Peers[0].AllowedIPs[1:]
		}, []string{"10.1.2.3/16, 10.2.0.0/16 # both", "10.2.0.0/16 # both", "10.9.0.0/16", "10.9.0.0/16, 10.1.0.0/16"}},
		{"many prefixes", func(c *conf.Config) {
			for i := range 20 {
				c.Peers[1].AllowedIPs = append(c.Peers[1].AllowedIPs, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, 0, byte(i)}), 32))
			}
		}, []string{"AllowedIPs = 10.9.0.0/16\n", "AllowedIPs = 10.9.0.0/16\nAllowedIPs = " + "172.16.0.0/32, 172.16.0.1/32, 172.16.0.2/32, 172.16.0.3/32, 172.16.0.4/32, 172.16.0.5/32, 172.16.0.6/32, 172.16.0.7/32, 172.16.0.8/32, 172.16.0.9/32, 172.16.0.10/32, 172.16.0.11/32, 172.16.0.12/32, 172.16.0.13/32, 172.16.0.14/32, 172.16.0.15/32" +
			"\nAllowedIPs = 172.16.0.16/32, 172.16.0.17/32, 172.16.0.18/32, 172.16.0.19/32\n"}},
		{"other prefixes, many", func(c *conf.Config) {
			c.Peers[0].AllowedIPs = c.Peers[0].AllowedIPs[:1]
			for i := range 16 {
				c.Peers[0].AllowedIPs = append(c.Peers[0].AllowedIPs, netip.PrefixFrom(netip.AddrFrom4([4]byte{1, 1, 1, byte(i)}), 32))
			}
		}, []string{"10.1.2.3/16, 10.2.0.0/16 # both", "10.1.2.3/16 # both", "fd01::/64",
			"1.1.1.0/32, 1.1.1.1/32, 1.1.1.2/32, 1.1.1.3/32, 1.1.1.4/32, 1.1.1.5/32, 1.1.1.6/32, 1.1.1.7/32, 1.1.1.8/32, 1.1.1.9/32, 1.1.1.10/32, 1.1.1.11/32, 1.1.1.12/32, 1.1.1.13/32, 1.1.1.14/32, 1.1.1.15/32"}},
		{"last peer gone", func(c *conf.Config) { c.Peers = c.Peers[:1] }, []string{"\n" + gone, ""}},
		{"first peer gone", func(c *conf.Config) { c.Peers = c.Peers[1:] },
			[]string{office[strings.Index(office, "# friendly_name = Gate"):strings.Index(office, "# --- guests")], ""}},
		{"peers new and gone", func(c *conf.Config) {
			k, _ := conf.ParsePrivateKey(preshared)
			c.Peers[1] = conf.Peer{PublicKey: k.PublicKey(), AllowedIPs: []netip.Prefix{prefix("10.4.0.0/16")}, Endpoint: addressed("192.0.2.4:4"), PersistentKeepalive: time.Second}
		}, []string{gone, "[Peer]\nPublicKey = " + mustPublic(preshared) + "\nAllowedIPs = 10.4.0.0/16\nEndpoint = 192.0.2.4:4\nPersistentKeepalive = 1\n"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, form := range []func(string) string{
				func(s string) string { return s },
				func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
				func(s string) string { return "\ufeff" + s },
			} {
				c := mustParse(t, office)
				test.change(c)
				want := strings.NewReplacer(test.lines...).Replace(office)
				if got := save(t, form(office), c); got != form(want) {
					t.Errorf("got\n%s\nwant\n%s", got, form(want))
				}
			}
		})
	}
}

// TestSaveOddTexts has what people do not write, and its meaning is kept.
func TestSaveOddTexts(t *testing.T) {
	one := netip.MustParsePrefix("10.1.0.0/16")
	for _, test := range []struct {
		name, in string
		change   func(*conf.Config)
		want     string
	}{
		{"no last line end", head + peer + "AllowedIPs =", func(c *conf.Config) { c.Peers[0].PersistentKeepalive = time.Second },
			head + peer + "AllowedIPs =\nPersistentKeepalive = 1\n"},
		{"no last line end, CRLF", "[Interface]\r\nPrivateKey = " + secret, func(c *conf.Config) { c.Interface.MTU = 1300 },
			"[Interface]\r\nPrivateKey = " + secret + "\r\nMTU = 1300\r\n"},
		{"empty value", head + "MTU = # as the route's\n", func(c *conf.Config) { c.Interface.MTU = 1300 },
			head + "MTU = 1300 # as the route's\n"},
		{"the last one counts", head + "MTU = 1300\nMTU = 1400\n", func(c *conf.Config) { c.Interface.MTU = 1500 },
			head + "MTU = 1300\nMTU = 1500\n"},
		{"repeated peer", head + peer + "AllowedIPs = 10.9.0.0/16\n" + peer + "AllowedIPs = +10.8.0.0/16\n", func(c *conf.Config) { c.Peers[0].AllowedIPs = []netip.Prefix{one} },
			head + peer + peer + "AllowedIPs = 10.1.0.0/16\n"},
		{"with a sign", head + peer + "AllowedIPs = +10.1.0.0/16, 10.2.0.0/16\nAllowedIPs = -10.2.0.0/16 # c\n", func(c *conf.Config) { c.Peers[0].AllowedIPs = nil },
			head + peer},
		{"a lost claim does not come back", head + peer + "AllowedIPs = 10.1.0.0/16, 10.2.0.0/16\n[Peer]\nPublicKey = " + public2 + "\nAllowedIPs = 10.1.0.0/16\n",
			func(c *conf.Config) { c.Peers = c.Peers[:1] }, head + peer + "AllowedIPs = 10.2.0.0/16\n"},
		{"a deleted key leaves a name where it was", head + peer + "# friendly_name = A\nPresharedKey = " + preshared + "\n# friendly_name = B\n[Peer]\nPublicKey = " + public2 + "\n",
			func(c *conf.Config) { c.Peers[0].PresharedKey = conf.PresharedKey{} },
			head + peer + "# friendly_name = A\n\n# friendly_name = B\n[Peer]\nPublicKey = " + public2 + "\n"},
		{"the upper of two names is the peer's before", head + peer + "# friendly_name = A\n# friendly_name = B\n[Peer]\nPublicKey = " + public2 + "\n",
			func(c *conf.Config) { c.Peers = c.Peers[:1] }, head + peer + "# friendly_name = A\n"},
		{"own public key", head + "[Peer]\nPublicKey = " + mustPublic(secret) + "\nAllowedIPs = 10.1.0.0/16\n", func(c *conf.Config) { c.Interface.PrivateKey, _ = conf.ParsePrivateKey(preshared) },
			strings.Replace(head, secret, preshared, 1)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := mustParse(t, test.in)
			test.change(c)
			if got := save(t, test.in, c); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

// TestSaveRefuses has states that no file says: the text is not touched, and no
// key is told.
func TestSaveRefuses(t *testing.T) {
	for name, change := range map[string]func(*conf.Config){
		"no private key":        func(c *conf.Config) { c.Interface.PrivateKey = conf.PrivateKey{} },
		"a prefix of two peers": func(c *conf.Config) { c.Peers[1].AllowedIPs = c.Peers[0].AllowedIPs },
		"one peer twice":        func(c *conf.Config) { c.Peers = append(c.Peers, c.Peers[0]) },
		"a line break":          func(c *conf.Config) { c.Interface.PreUp = []string{"a\nb"} },
	} {
		c := mustParse(t, office)
		change(c)
		out, err := conf.Save([]byte(office), c)
		if err == nil || out != nil || leaks(err.Error(), secret) != "" {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// TestSaveShuffled saves states that are made of two samples over texts that are
// odder than the samples.
func TestSaveShuffled(t *testing.T) {
	texts := []string{office}
	for _, sample := range samples(t) {
		texts = append(texts, read(t, sample))
	}
	for seed := range uint64(len(texts) * 15) {
		for _, state := range texts {
			saveVaried(t, texts[seed%uint64(len(texts))], state, seed)
		}
		if t.Failed() {
			t.Fatalf("with seed %d", seed)
		}
	}
}

// FuzzSave takes a text and a state that another text or chance makes, and demands
// what save does.
func FuzzSave(f *testing.F) {
	for _, sample := range samples(f) {
		f.Add(read(f, sample), office, uint64(1))
		f.Add(office, read(f, sample), uint64(2))
	}
	f.Fuzz(func(t *testing.T, text, state string, seed uint64) {
		if len(text)+len(state) < 1<<16 {
			saveVaried(t, text, state, seed)
		}
	})
}

func saveVaried(t *testing.T, text, state string, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 0))
	if r.IntN(4) > 0 {
		text = disturb(text, r)
	}
	from, _, err := parse(text)
	c, _, errState := parse(state)
	if err != nil || errState != nil {
		return
	}
	save(t, text, c)
	if out := save(t, text, from); out != text {
		t.Errorf("the same state changes\n%q\nto\n%q", text, out)
	}
	varied := vary(from, c, r)
	if again := mustParse(t, marshal(t, varied)); len(again.Peers) == len(varied.Peers) { // else one is the interface itself
		save(t, text, varied)
	}
}

// disturb takes lines out of a text and puts lines in that are seldom seen.
func disturb(text string, r *rand.Rand) string {
	lines := strings.SplitAfter(text, "\n")
	odd := []string{
		"\n", "\r\n", "#\n", "# c\n", "# friendly_name = Q\n", "[Peer]\n", "[Peer] # friendly_name = H\n",
		"PublicKey = " + public + "\n", "PublicKey = " + public2 + "\n", peer, "\n[Peer]\nPublicKey = " + public2 + "\n",
		"\n[Peer]\nPublicKey = " + mustPublic(secret) + "\n",
		"PresharedKey = " + preshared + "# friendly_name = Y\n", "Endpoint = a.b:1#friendly_name=E\n",
		"PersistentKeepalive = 3 # x\n", "MTU =\n", "AllowedIPs =\n", "AllowedIPs = +10.1.0.0/16, -10.2.0.0/16\n",
		"AllowedIPs = 10.1.0.0/16,10.0.0.0/16,10.2.0.0/16 # friendly_name = Z\n",
	}
	for range r.IntN(8) {
		i := r.IntN(len(lines))
		if r.IntN(4) == 0 && len(lines) > 1 {
			lines = slices.Delete(lines, i, i+1)
		} else {
			lines = slices.Insert(lines, i, odd[r.IntN(len(odd))])
		}
	}
	text = strings.Join(lines, "")
	if r.IntN(3) == 0 {
		text = strings.TrimRight(text, "\n")
	}
	if r.IntN(4) == 0 {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	return text
}

// vary mixes two states, so that most of the first stays.
func vary(a, b *conf.Config, r *rand.Rand) *conf.Config {
	half := func() bool { return r.IntN(2) == 0 }
	out := &conf.Config{Interface: a.Interface}
	if half() {
		out.Interface.PrivateKey = b.Interface.PrivateKey
	}
	if half() {
		out.Interface.ListenPort, out.Interface.FwMark, out.Interface.MTU = b.Interface.ListenPort, b.Interface.FwMark, b.Interface.MTU
	}
	seen := map[conf.PublicKey]bool{}
	owned := map[netip.Prefix]bool{}
	for _, p := range slices.Concat(a.Peers, b.Peers) {
		if seen[p.PublicKey] || r.IntN(4) == 0 {
			continue
		}
		seen[p.PublicKey] = true
		var own []netip.Prefix
		for _, prefix := range slices.Concat(p.AllowedIPs, []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), 0, 0}), 16)}) {
			if !owned[prefix] && r.IntN(5) > 0 {
				own = append(own, prefix)
				owned[prefix] = true
			}
		}
		p.AllowedIPs = own
		if half() {
			p.PresharedKey = conf.PresharedKey{}
		}
		if half() {
			p.Endpoint = conf.Endpoint{}
		}
		if half() {
			p.PersistentKeepalive = time.Duration(r.IntN(3)) * time.Second
		}
		out.Peers = append(out.Peers, p)
	}
	return out
}
