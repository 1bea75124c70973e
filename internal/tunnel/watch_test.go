package tunnel

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"wireguard4netns/conf"
	"wireguard4netns/internal/plan"
	"wireguard4netns/internal/uapi"
)

// Looks may come at any pace; there is one to reckon a rate from that is neither too
// young nor older than need be.
func TestHistory(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_700_000_000, 0)
	after := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	for name, test := range map[string]struct {
		looks []float64
		limit float64 // it is to be so old
		want  float64 // the look that is told of; -1: none
	}{
		"none":            {nil, 9, -1},
		"too young":       {[]float64{8}, 7, -1},
		"one":             {[]float64{8}, 9, 8},
		"at rest":         {[]float64{0, 10, 30, 70}, 80, 70},
		"just looked":     {[]float64{0, 10, 20}, 19.5, 10},
		"a call is open":  {[]float64{0, 10, 11, 12, 13}, 12.5, 12},
		"in a row":        {[]float64{0, 10, 19.8, 19.9, 20}, 19, 10},
		"a change, twice": {[]float64{0, 10, 10.1}, 10, 0},
	} {
		var h history
		for _, at := range test.looks {
			h.note(after(at), []uapi.Peer{{RxBytes: uint64(at * 10), PresharedKey: uapi.Secret{1}}})
		}
		peers, at := h.before(after(test.limit))
		if test.want < 0 {
			if !at.IsZero() {
				t.Errorf("%s: told of %v", name, at)
			}
			continue
		}
		if !at.Equal(after(test.want)) || len(peers) != 1 || peers[0].RxBytes != uint64(test.want*10) {
			t.Errorf("%s: told of %v after the start, %v", name, at.Sub(start), peers)
		} else if !peers[0].PresharedKey.IsZero() {
			t.Errorf("%s: a key is kept", name)
		}
	}
}

// What the user said last counts: in the file, or through the UAPI socket. It does
// for the supervisor that takes over, too.
func TestConfigured(t *testing.T) {
	t.Parallel()
	key := func(n byte) conf.PublicKey { return conf.PublicKey{n} }
	set := func(n byte, lines string) string {
		return fmt.Sprintf("public_key=%x\n%s\n", [32]byte(key(n)), lines)
	}
	in := func(s string) conf.Endpoint {
		e, err := conf.ParseEndpoint(s)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	route := plan.Route{Addr: netip.MustParseAddrPort("192.0.2.1:51820")}
	var tunnel Tunnel
	tunnel.plan.Store(&plan.Plan{Peers: []plan.Peer{
		{PublicKey: key(1), Endpoint: in("192.0.2.1:51820"), Candidates: []plan.Route{route}},
		{PublicKey: key(2), Endpoint: in("vpn.example:51820"), Candidates: []plan.Route{route}},
		{PublicKey: key(3)},
	}})
	for _, step := range []struct {
		set  string
		want [4]string // of the peers 1 to 4
	}{
		{"", [4]string{"192.0.2.1:51820", "vpn.example:51820", "", ""}},
		{set(1, "persistent_keepalive_interval=25"), [4]string{"192.0.2.1:51820", "vpn.example:51820", "", ""}},
		{set(1, "endpoint=192.0.2.7:7") + set(3, "endpoint=[2001:db8::3]:3"), [4]string{"192.0.2.7:7", "vpn.example:51820", "[2001:db8::3]:3", ""}},
		{set(2, "endpoint=192.0.2.1:51820"), [4]string{"192.0.2.7:7", "vpn.example:51820", "[2001:db8::3]:3", ""}},
		{set(2, "update_only=true\nendpoint=[::ffff:192.0.2.2]:2") + set(4, "endpoint=192.0.2.4:4"), [4]string{"192.0.2.7:7", "192.0.2.2:2", "[2001:db8::3]:3", "192.0.2.4:4"}},
		{set(4, "remove=true"), [4]string{"192.0.2.7:7", "192.0.2.2:2", "[2001:db8::3]:3", ""}},
		{"replace_peers=true\n" + set(2, "endpoint=192.0.2.5:5"), [4]string{"192.0.2.1:51820", "192.0.2.5:5", "", ""}},
	} {
		tunnel.given.take([]byte(step.set))
		text, err := json.Marshal(tunnel.given.get())
		if err != nil {
			t.Fatal(err)
		}
		next := Tunnel{}
		next.plan.Store(tunnel.Plan())
		if err := json.Unmarshal(text, &next.given.is); err != nil {
			t.Fatal(err)
		}
		for i, want := range step.want {
			for who, one := range map[string]*Tunnel{"this": &tunnel, "the next": &next} {
				if got := one.configured()(uapi.PublicKey(key(byte(i + 1)))).String(); got != want {
					t.Errorf("after %q: peer %d is at %q for %s, want %q", step.set, i+1, got, who, want)
				}
			}
		}
	}
	tunnel.given.forget(key(2))
	if got := tunnel.configured()(uapi.PublicKey(key(2))).String(); got != "vpn.example:51820" {
		t.Errorf("after a reload with another endpoint: %q", got)
	}
}

// The last handshake of a peer is known while there is the peer, whatever engine it
// was with.
func TestHandshakesOutliveEngines(t *testing.T) {
	t.Parallel()
	first, second := time.Unix(1_700_000_000, 0), time.Unix(1_700_000_100, 0)
	a, b := uapi.Peer{PublicKey: uapi.PublicKey{1}}, uapi.Peer{PublicKey: uapi.PublicKey{2}}
	at := func(p uapi.Peer, at time.Time) uapi.Peer { p.LastHandshake = at; return p }
	var h history
	for i, step := range []struct {
		peers []uapi.Peer
		want  [2]time.Time // of a and b, by an engine that knows of none
	}{
		{[]uapi.Peer{a, b}, [2]time.Time{}},
		{[]uapi.Peer{at(a, first), b}, [2]time.Time{first}},
		{[]uapi.Peer{b, a}, [2]time.Time{first}}, // another engine
		{[]uapi.Peer{at(a, second), at(b, first)}, [2]time.Time{second, first}},
		{[]uapi.Peer{at(a, first), b}, [2]time.Time{first, first}}, // the clock was set back
		{[]uapi.Peer{b}, [2]time.Time{{}, first}},
		{[]uapi.Peer{a, b}, [2]time.Time{{}, first}},
	} {
		h.note(first, step.peers)
		h = history{handshakes: h.all()} // as another supervisor gets it
		if got := [2]time.Time{h.handshake(a), h.handshake(b)}; got != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
	if got := h.handshake(at(b, second)); got != second {
		t.Errorf("a newer one is %v", got)
	}
}
