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
	cause     cause
	due       bool
}

func TestDue(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answers int
		looks   []lookOut
	}{
		"silence":            {1, []lookOut{{0, wifi, 0, 0, cause{}, false}, {300, wifi, 0, 0, cause{}, false}}},
		"a session in use":   {1, []lookOut{{0, wifi, 1, 100, cause{}, false}, {110, wifi, 1, 200, cause{}, false}, {135, wifi, 121, 300, cause{}, false}}},
		"no reply to many":   {1, []lookOut{{130, wifi, 1, 100, cause{}, false}, {135, wifi, 1, 200, cause{}, false}, {136, wifi, 1, 300, cause{}, true}}},
		"old, but unused":    {1, []lookOut{{0, wifi, 1, 100, cause{}, false}, {400, wifi, 1, 100, cause{}, false}, {410, wifi, 1, 248, cause{}, true}}},
		"never answered":     {1, []lookOut{{0, wifi, 0, 0, cause{}, false}, {10, wifi, 0, 148, cause{}, false}, {14, wifi, 0, 296, cause{}, false}, {15, wifi, 0, 444, cause{}, true}}},
		"the engine waited":  {1, []lookOut{{0, wifi, 0, 0, cause{}, false}, {5, wifi, 0, 148, cause{trouble: true}, true}}},
		"another network":    {1, []lookOut{{0, none, 0, 0, cause{}, true}, {1, none, 0, 0, cause{}, true}, {2, none, 0, 0, cause{changed: true}, true}, {3, none, 0, 0, cause{}, true}, {4, none, 0, 0, cause{}, false}}},
		"no way there":       {1, []lookOut{{0, none, 0, 0, cause{}, true}, {1, none, 0, 0, cause{}, true}, {2, none, 0, 0, cause{}, false}, {3, none, 0, 0, cause{}, true}, {7, none, 0, 0, cause{}, true}, {14, none, 0, 0, cause{}, false}, {15, none, 0, 0, cause{}, true}, {25, none, 0, 0, cause{}, true}, {35, none, 0, 0, cause{}, true}}},
		"no way any more":    {1, []lookOut{{0, wifi, 1, 100, cause{}, false}, {10, none, 1, 100, cause{}, true}}},
		"an engine restarts": {1, []lookOut{{0, wifi, 1, 100, cause{}, false}, {10, wifi, 0, 0, cause{}, false}, {20, wifi, 0, 148, cause{}, true}}},
		"pauses grow": {1, []lookOut{{136, wifi, 1, 100, cause{}, true}, {140, wifi, 1, 200, cause{}, false}, {141, wifi, 1, 300, cause{}, true}, {146, wifi, 1, 400, cause{}, false}, {151, wifi, 1, 500, cause{}, true},
			{166, wifi, 1, 600, cause{}, false}, {171, wifi, 1, 700, cause{}, true}}},
		"each of two has its turn": {2, []lookOut{{136, wifi, 1, 100, cause{}, true}, {141, wifi, 1, 200, cause{}, true}, {146, wifi, 1, 300, cause{}, true}, {151, wifi, 1, 400, cause{}, false}, {156, wifi, 1, 500, cause{}, true}}},
		"silent again":             {2, []lookOut{{136, wifi, 1, 100, cause{}, true}, {141, wifi, 1, 100, cause{}, true}, {146, wifi, 1, 100, cause{}, false}, {161, wifi, 1, 200, cause{}, true}}},
		"a new start after success": {1, []lookOut{{136, wifi, 1, 100, cause{}, true}, {146, wifi, 1, 200, cause{}, true}, {156, wifi, 150, 300, cause{}, false},
			{285, wifi, 150, 400, cause{}, true}, {290, wifi, 150, 500, cause{}, true}}},
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
				if got := m.due(after(l.at), s, patient, l.cause); got != l.due {
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
		if !m.due(now, s, patient, cause{}) || m.next.Sub(now) > 6*time.Minute || m.next.Sub(now) < patient.turn {
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
