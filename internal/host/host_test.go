package host

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"wireguard4netns/conf"
	"wireguard4netns/internal/nstest"
	"wireguard4netns/internal/plan"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// resolve is Resolve in a machine of the test's.
var resolve = nstest.NewFunc("resolve", func(e conf.Endpoint) ([]plan.Route, error) {
	return Resolve(context.Background(), e)
})

func TestResolve(t *testing.T) {
	t.Parallel()
	a, b := nstest.NewHost(t), nstest.NewHost(t)
	nstest.Connect(t,
		nstest.End{Host: a, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")}},
		nstest.End{Host: b, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")}})
	a.Run(t, "ip", "link", "set", "eth0", "mtu", "1400")
	a.PrivateEtc(t)
	a.WriteFile(t, "/etc/hosts", "192.0.2.2 vpn.example\n2001:db8::2 vpn.example\n198.51.100.1 far.example\n")
	for _, test := range []struct {
		endpoint conf.Endpoint
		want     string // address and MTU, in any order
	}{
		{conf.Endpoint{Host: "192.0.2.2", Port: 1}, "192.0.2.2:1 1400"},
		{conf.Endpoint{Host: "2001:db8::2", Port: 1}, "[2001:db8::2]:1 1400"},
		{conf.Endpoint{Host: "127.0.0.1", Port: 1}, "127.0.0.1:1 65535"},
		{conf.Endpoint{Host: "vpn.example", Port: 9}, "192.0.2.2:9 1400 [2001:db8::2]:9 1400"},
		{conf.Endpoint{Host: "far.example", Port: 9}, "198.51.100.1:9 0"},
	} {
		routes, err := resolve.Call(a.UserCommand, test.endpoint)
		if err != nil {
			t.Errorf("%s: %v", test.endpoint, err)
			continue
		}
		for _, r := range routes {
			one := r.Addr.String() + " " + strconv.Itoa(r.MTU)
			if !strings.Contains(test.want, one) {
				t.Errorf("%s: got %s, want %s", test.endpoint, one, test.want)
			}
			test.want = strings.TrimSpace(strings.Replace(test.want, one, "", 1))
		}
		if test.want != "" {
			t.Errorf("%s: no %s in %v", test.endpoint, test.want, routes)
		}
	}
	if _, err := resolve.Call(a.UserCommand, conf.Endpoint{Host: "none.invalid", Port: 1}); err == nil || !strings.Contains(err.Error(), "resolve endpoint none.invalid:1: "+ErrUnresolved.Error()) {
		t.Errorf("a name without address: got %v", err)
	}
}

// A look changes nothing, and a name that does not resolve is told apart.
func TestLook(t *testing.T) {
	t.Parallel()
	c := &conf.Config{Peers: []conf.Peer{{}, {Endpoint: conf.Endpoint{Host: "127.0.0.1", Port: 7}}}}
	h, err := Look(t.Context(), c)
	if err != nil || len(h.Endpoints) != 1 {
		t.Errorf("got %v, %v", h.Endpoints, err)
	}
	c.Peers[0].Endpoint = conf.Endpoint{Host: "none.invalid", Port: 1}
	h, unresolved, err := LookPatiently(t.Context(), c)
	if err != nil || len(h.Endpoints) != 1 || len(unresolved) != 1 || !errors.Is(unresolved[0], ErrUnresolved) {
		t.Errorf("patiently: %v, %v, %v", h.Endpoints, unresolved, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Look(ctx, c); !errors.Is(err, ErrUnresolved) {
		t.Errorf("got %v", err)
	}
	if _, _, err := LookPatiently(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("patiently, but over: %v", err)
	}
}
