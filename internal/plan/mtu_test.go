package plan

import (
	"strings"
	"testing"

	"wireguard4netns/internal/engine"
)

// plan does not import what carries it out; the link has the MTU that engines can
// carry all the same.
func TestLargestMTU(t *testing.T) {
	t.Parallel()
	if largestMTU != engine.MaxMTU {
		t.Errorf("the plan's largest MTU is %d, the engines' %d", largestMTU, engine.MaxMTU)
	}
}

// What the running link gets when the host's routes change.
func TestMTUOver(t *testing.T) {
	t.Parallel()
	const v4, v6 = "192.0.2.1:51820", "[2001:db8::1]:51820"
	only4 := strings.Replace(both, ", fd00::2", "", 1)
	for name, test := range map[string]struct {
		conf   string
		start  Route
		routes []Route
		want   int
	}{
		"as at the start":     {both, route(v4, 1500), []Route{route(v4, 1500)}, 1440},
		"smaller":             {both, route(v4, 1500), []Route{route(v4, 1400)}, 1328}, // 1340, to a multiple of 16
		"IPv6":                {both, route(v6, 1500), []Route{route(v6, 1400)}, 1312},
		"the least for IPv6":  {both, route(v4, 1500), []Route{route(v4, 1280)}, 1280},
		"no IPv6 inside":      {only4, route(v4, 1500), []Route{route(v4, 1280)}, 1216},
		"larger than before":  {both, route(v4, 1400), []Route{route(v4, 1500)}, 1340},
		"the other family":    {both, route(v4, 1500), []Route{route(v6, 1500)}, 1408},
		"no route":            {both, route(v4, 1500), []Route{route(v4, 0)}, 1440},
		"no peer":             {both, route(v4, 1500), nil, 1440},
		"the tightest counts": {both, route(v4, 1500), []Route{route(v4, 1500), route(v4, 1400)}, 1328},
		"the file's stays":    {strings.Replace(both, "DNS", "MTU = 1400\nDNS", 1), route(v4, 1500), []Route{route(v4, 1300)}, 1400},
	} {
		p := run(t, test.conf, Options{}, hostWith(test.start))
		if mtu, source := p.MTUOver(test.routes); mtu != test.want || source == "" {
			t.Errorf("%s: %d from %s, want %d", name, mtu, source, test.want)
		}
	}
}
