package watch

import (
	"net/netip"
	"testing"
	"time"

	"wireguard4netns/internal/host"
	"wireguard4netns/internal/plan"
)

// lookOut is one look at a peer with a name.
type lookOut struct {
	at        int // seconds after the first look
	path      host.Path
	handshake int // seconds after the first look; 0: never
	sent      uint64
	due       bool
}

func TestDue(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answers int
		looks   []lookOut
	}{
		"silence":            {1, []lookOut{{0, wifi, 0, 0, false}, {300, wifi, 0, 0, false}}},
		"a session in use":   {1, []lookOut{{0, wifi, 1, 100, false}, {110, wifi, 1, 200, false}, {135, wifi, 121, 300, false}}},
		"no reply to many":   {1, []lookOut{{130, wifi, 1, 100, false}, {135, wifi, 1, 200, false}, {136, wifi, 1, 300, true}}},
		"old, but unused":    {1, []lookOut{{0, wifi, 1, 100, false}, {400, wifi, 1, 100, false}, {410, wifi, 1, 248, true}}},
		"never answered":     {1, []lookOut{{0, wifi, 0, 0, false}, {10, wifi, 0, 148, false}, {20, wifi, 0, 296, true}}},
		"no way there":       {1, []lookOut{{0, none, 0, 0, true}, {5, none, 0, 0, false}, {10, none, 0, 0, true}, {20, none, 0, 0, true}, {30, none, 0, 0, true}}},
		"no way any more":    {1, []lookOut{{0, wifi, 1, 100, false}, {10, none, 1, 100, true}}},
		"an engine restarts": {1, []lookOut{{0, wifi, 1, 100, false}, {10, wifi, 0, 0, false}, {20, wifi, 0, 148, true}}},
		"pauses grow": {1, []lookOut{{136, wifi, 1, 100, true}, {145, wifi, 1, 200, false}, {146, wifi, 1, 300, true}, {156, wifi, 1, 400, false}, {166, wifi, 1, 500, true},
			{196, wifi, 1, 600, false}, {206, wifi, 1, 700, true}}},
		"each of two has its turn": {2, []lookOut{{136, wifi, 1, 100, true}, {146, wifi, 1, 200, true}, {156, wifi, 1, 300, true}, {166, wifi, 1, 400, false}, {176, wifi, 1, 500, true}}},
		"a new start after success": {1, []lookOut{{136, wifi, 1, 100, true}, {146, wifi, 1, 200, true}, {156, wifi, 150, 300, false},
			{285, wifi, 150, 400, true}, {295, wifi, 150, 500, true}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Unix(1_700_000_000, 0)
			after := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
			m := search{answers: test.answers}
			for i, l := range test.looks {
				s := seen{path: l.path, sent: l.sent}
				if l.handshake != 0 {
					s.handshake = after(l.handshake)
				}
				if got := m.due(after(l.at), s, stale); got != l.due {
					t.Errorf("look %d, at %d s: due is %v", i, l.at, got)
				}
			}
		})
	}
}

func TestPausesAreBounded(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	s := seen{path: wifi, handshake: now}
	var m search
	for range 100 {
		now = now.Add(time.Hour)
		s.sent++
		if !m.due(now, s, stale) || m.next.Sub(now) > 6*time.Minute || m.next.Sub(now) < restPause {
			t.Fatalf("the next resolution is after %v", m.next.Sub(now))
		}
	}
}

func TestTurn(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddrPort
	a, b, c := plan.Route{Addr: addr("192.0.2.1:1"), MTU: 1500}, plan.Route{Addr: addr("[2001:db8::1]:1"), MTU: 1500}, plan.Route{Addr: addr("192.0.2.9:1")}
	for name, test := range map[string]struct {
		current plan.Route
		answers []plan.Route
		away    bool
		want    netip.AddrPort
	}{
		"the next":              {a, []plan.Route{a, b}, true, b.Addr},
		"round and round":       {b, []plan.Route{a, b}, true, a.Addr},
		"the first, of others":  {c, []plan.Route{a, b}, true, a.Addr},
		"the same":              {a, []plan.Route{a}, true, netip.AddrPort{}},
		"kept":                  {a, []plan.Route{b, a}, false, netip.AddrPort{}},
		"gone":                  {a, []plan.Route{b}, false, b.Addr},
		"no way to the next":    {a, []plan.Route{a, c, b}, true, b.Addr},
		"no way to any":         {a, []plan.Route{a, c}, true, netip.AddrPort{}},
		"no endpoint until now": {plan.Route{}, []plan.Route{a, b}, true, a.Addr},
		"no answer":             {a, nil, true, netip.AddrPort{}},
	} {
		if got := turn(test.current.Addr, test.answers, test.away); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
