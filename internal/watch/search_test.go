package watch

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"wireguard4netns/conf"
	"wireguard4netns/internal/host"
	"wireguard4netns/internal/plan"
	"wireguard4netns/internal/uapi"
)

// lookOut is one look at a peer, seconds after the first, and what is done.
type lookOut struct {
	at        int
	path      host.Path
	handshake int // seconds after the first look; 0: never
	sent      uint64
	cause     cause
	do        step
}

// steps puts a peer through looks. The endpoint at each is where, if there is one.
func steps(t *testing.T, m *search, looks []lookOut, at func(i int) seen) {
	t.Helper()
	start := time.Unix(1_700_000_000, 0)
	after := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	for i, l := range looks {
		s := at(i)
		s.path, s.sent = l.path, l.sent
		if l.handshake != 0 {
			s.handshake = after(l.handshake)
		}
		if got := m.step(after(l.at), s, patient, l.cause); got != l.do {
			t.Errorf("look %d, at %d s: %d is done", i, l.at, got)
		}
	}
}

func TestSeekName(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		places int
		looks  []lookOut
	}{
		"silence":            {1, []lookOut{{0, wifi, 0, 0, cause{}, stay}, {300, wifi, 0, 0, cause{}, stay}}},
		"a session in use":   {1, []lookOut{{0, wifi, 1, 100, cause{}, stay}, {110, wifi, 1, 200, cause{}, stay}, {135, wifi, 121, 300, cause{}, stay}}},
		"no reply to many":   {1, []lookOut{{130, wifi, 1, 100, cause{}, stay}, {135, wifi, 1, 200, cause{}, stay}, {136, wifi, 1, 300, cause{}, leave}}},
		"old, but unused":    {1, []lookOut{{0, wifi, 1, 100, cause{}, stay}, {400, wifi, 1, 100, cause{}, stay}, {410, wifi, 1, 248, cause{}, leave}}},
		"never answered":     {1, []lookOut{{0, wifi, 0, 0, cause{}, stay}, {10, wifi, 0, 148, cause{}, stay}, {14, wifi, 0, 296, cause{}, stay}, {15, wifi, 0, 444, cause{}, leave}}},
		"the engine waited":  {1, []lookOut{{0, wifi, 0, 0, cause{}, stay}, {5, wifi, 0, 148, cause{trouble: true}, leave}}},
		"another network":    {1, []lookOut{{0, none, 0, 0, cause{}, leave}, {1, none, 0, 0, cause{}, leave}, {2, none, 0, 0, cause{changed: true}, leave}, {3, none, 0, 0, cause{}, leave}, {4, none, 0, 0, cause{}, stay}}},
		"no way there":       {1, []lookOut{{0, none, 0, 0, cause{}, leave}, {1, none, 0, 0, cause{}, leave}, {2, none, 0, 0, cause{}, stay}, {3, none, 0, 0, cause{}, leave}, {7, none, 0, 0, cause{}, leave}, {14, none, 0, 0, cause{}, stay}, {15, none, 0, 0, cause{}, leave}, {25, none, 0, 0, cause{}, leave}, {35, none, 0, 0, cause{}, leave}}},
		"no way any more":    {1, []lookOut{{0, wifi, 1, 100, cause{}, stay}, {10, none, 1, 100, cause{}, leave}}},
		"an engine restarts": {1, []lookOut{{0, wifi, 1, 100, cause{}, stay}, {10, wifi, 0, 0, cause{}, stay}, {20, wifi, 0, 148, cause{}, leave}}},
		"pauses grow": {1, []lookOut{{136, wifi, 1, 100, cause{}, leave}, {140, wifi, 1, 200, cause{}, stay}, {141, wifi, 1, 300, cause{}, leave}, {146, wifi, 1, 400, cause{}, stay}, {151, wifi, 1, 500, cause{}, leave},
			{166, wifi, 1, 600, cause{}, stay}, {171, wifi, 1, 700, cause{}, leave}}},
		"each of two has its turn": {2, []lookOut{{136, wifi, 1, 100, cause{}, leave}, {141, wifi, 1, 200, cause{}, leave}, {146, wifi, 1, 300, cause{}, leave}, {151, wifi, 1, 400, cause{}, stay}, {156, wifi, 1, 500, cause{}, leave}}},
		"silent again":             {2, []lookOut{{136, wifi, 1, 100, cause{}, leave}, {141, wifi, 1, 100, cause{}, leave}, {146, wifi, 1, 100, cause{}, stay}, {161, wifi, 1, 200, cause{}, leave}}},
		"a new start after success": {1, []lookOut{{136, wifi, 1, 100, cause{}, leave}, {146, wifi, 1, 200, cause{}, leave}, {156, wifi, 150, 300, cause{}, stay},
			{285, wifi, 150, 400, cause{}, leave}, {290, wifi, 150, 500, cause{}, leave}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			steps(t, &search{places: test.places}, test.looks, func(int) seen { return seen{} })
		})
	}
}

// A peer whose address the configuration has is looked for only if it was elsewhere,
// and not before no session can be left.
func TestSeekAddress(t *testing.T) {
	t.Parallel()
	changed := cause{changed: true}
	for name, test := range map[string]struct {
		endpoint netip.AddrPort // the configuration has endpointA
		looks    []lookOut
	}{
		"where it should be": {endpointA, []lookOut{{0, wifi, 1, 100, cause{}, stay}, {200, wifi, 1, 200, cause{}, stay}, {900, wifi, 1, 300, cause{}, stay}, {901, none, 1, 300, changed, stay}}},
		"a session in use":   {endpointB, []lookOut{{0, wifi, 1, 100, cause{}, stay}, {110, wifi, 1, 200, cause{}, stay}, {230, wifi, 121, 300, cause{}, stay}}},
		"it only listens":    {endpointB, []lookOut{{0, wifi, 1, 100, cause{}, stay}, {150, wifi, 1, 200, cause{trouble: true}, stay}, {180, wifi, 1, 300, cause{}, stay}}},
		"no reply to many":   {endpointB, []lookOut{{170, wifi, 1, 100, cause{}, stay}, {180, wifi, 1, 200, cause{}, stay}, {181, wifi, 1, 300, cause{}, ask}, {185, wifi, 1, 400, cause{}, stay}, {186, wifi, 1, 548, cause{}, leave}}},
		"old, but unused":    {endpointB, []lookOut{{0, wifi, 1, 100, cause{}, stay}, {400, wifi, 1, 100, cause{}, stay}, {700, wifi, 1, 100, changed, stay}}},
		"it answers when it is asked": {endpointB, []lookOut{{0, wifi, 1, 100, cause{}, stay}, {400, wifi, 1, 248, cause{}, ask}, {405, wifi, 401, 396, cause{}, stay},
			{600, wifi, 401, 500, cause{}, ask}}},
		"never answered":            {endpointB, []lookOut{{0, wifi, 0, 0, cause{}, stay}, {10, wifi, 0, 148, cause{}, stay}, {15, wifi, 0, 296, cause{}, ask}, {20, wifi, 0, 444, cause{}, leave}}},
		"no way, but a session":     {endpointB, []lookOut{{0, wifi, 1, 100, cause{}, stay}, {10, none, 1, 100, changed, stay}, {20, wifi, 1, 100, changed, stay}}},
		"no way, and nothing to do": {endpointB, []lookOut{{200, none, 1, 100, cause{}, leave}, {300, none, 1, 100, cause{}, stay}, {310, none, 1, 100, changed, leave}, {400, none, 1, 100, cause{}, stay}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var m search
			steps(t, &m, test.looks, func(int) seen { return seen{endpoint: test.endpoint, address: endpointA} })
			// That none has answered yet is for the engine to find out.
			if test.endpoint == endpointA && m.pause(m.began, seen{address: endpointA}, patient) != 0 {
				t.Error("the next look has a time")
			}
		})
	}
}

// When nobody answers anywhere, both places are tried in turn, ever slower; and when
// nothing more is sent through the tunnel, there is an end, though each call has an
// engine send for 90 s (Rekey-Attempt-Time).
func TestSeekEnds(t *testing.T) {
	t.Parallel()
	for name, before := range map[string][]netip.AddrPort{
		"it has roamed":          {endpointA, endpointB},
		"it was not seen before": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begin := time.Unix(1_700_000_000, 0)
			s := seen{address: endpointA, path: wifi, handshake: begin.Add(-patient.over)}
			var m search
			for _, s.endpoint = range before {
				m.step(begin.Add(-time.Minute), s, patient, cause{})
			}
			s.endpoint = endpointB
			var done []string
			var called time.Time
			for now := begin; now.Sub(begin) < time.Hour; now = now.Add(5 * time.Second) { // a look each: there is trouble
				if now == begin || now.Sub(called) < 90*time.Second {
					s.sent += 148
				}
				switch m.step(now, s, patient, cause{trouble: true}) {
				case stay:
					continue
				case leave:
					s.endpoint = turn(s.endpoint, []plan.Route{{Addr: endpointA, MTU: 1500}, {Addr: m.last, MTU: 1500}}, true)
				}
				called = now
				done = append(done, fmt.Sprintf("%d %v", now.Sub(begin)/time.Second, s.endpoint.Addr()))
			}
			want := []string{"0 192.0.2.9", "5 192.0.2.1", "10 192.0.2.9", "20 192.0.2.1", "30 192.0.2.9", "50 192.0.2.1",
				"70 192.0.2.9", "110 192.0.2.1", "150 192.0.2.9", "230 192.0.2.1", "310 192.0.2.9"}
			if !slices.Equal(done, want) {
				t.Errorf("%q,\nwant %q", done, want)
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
		if m.step(now, s, patient, cause{}) != leave || m.next.Sub(now) > 6*time.Minute || m.next.Sub(now) < patient.turn {
			t.Fatalf("the next try is after %v", m.next.Sub(now))
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

// atLoopback is an engine with one peer, whose endpoint is changed.
type atLoopback struct{ endpoint string }

func (e *atLoopback) Get(context.Context) ([]byte, error) {
	return fmt.Appendf(nil, "public_key=%064x\nendpoint=%s\n", 1, e.endpoint), nil
}

func (e *atLoopback) Set(_ context.Context, body []byte) error {
	_, rest, _ := strings.Cut(string(body), "endpoint=")
	e.endpoint, _, _ = strings.Cut(rest, "\n")
	return nil
}

func (e *atLoopback) Trouble() <-chan struct{} { return nil }

// A peer is taken to where the configuration has it and back to where it was found;
// after a suspend only to where its name is now.
func TestUse(t *testing.T) {
	t.Parallel()
	parse := netip.MustParseAddrPort
	address, name := conf.Endpoint{Host: "127.0.0.1", Port: 1}, conf.Endpoint{Host: "vpn.example", Port: 1}
	for what, test := range map[string]struct {
		of            conf.Endpoint
		found, now    string
		away          bool
		want          string
		places, asked int
	}{
		"to its address":          {address, "127.0.0.2:2", "127.0.0.2:2", true, "127.0.0.1:1", 2, 0},
		"back":                    {address, "127.0.0.2:2", "127.0.0.1:1", true, "127.0.0.2:2", 2, 0},
		"found at its address":    {address, "127.0.0.1:1", "127.0.0.2:2", true, "127.0.0.1:1", 1, 0},
		"back from a name":        {name, "127.0.0.2:2", "127.0.0.1:1", true, "127.0.0.2:2", 2, 1},
		"found nowhere":           {name, "", "127.0.0.2:2", true, "127.0.0.1:1", 1, 1},
		"awake":                   {name, "127.0.0.2:2", "127.0.0.2:2", false, "127.0.0.1:1", 1, 1},
		"awake, and still there":  {name, "127.0.0.2:2", "127.0.0.1:1", false, "127.0.0.1:1", 1, 1},
		"no way back":             {address, "[fe80::1]:2", "127.0.0.1:1", true, "127.0.0.1:1", 2, 0},
		"set elsewhere meanwhile": {conf.Endpoint{Host: "127.0.0.9", Port: 9}, "127.0.0.2:2", "127.0.0.2:2", true, "127.0.0.2:2", 0, 0},
	} {
		e := &atLoopback{test.now}
		m := &memory{endpoint: parse(test.now)}
		if m.search.of = test.of; test.found != "" {
			m.search.last = parse(test.found)
		}
		key := uapi.PublicKey{31: 1}
		w := &watcher{Config: Config{Engine: e, Log: func(string) {}, Resolutions: new(Resolutions)},
			peers: map[uapi.PublicKey]*memory{key: m}, resolving: map[uapi.PublicKey]bool{key: true}}
		a := answer{key, test.of, []plan.Route{{Addr: parse("127.0.0.1:1"), MTU: 65535}}, test.away, nil}
		if test.places == 0 {
			a.of = address
		}
		w.use(t.Context(), a)
		if e.endpoint != test.want || m.search.places != test.places || int(w.Resolutions.Answered.Load()) != test.asked {
			t.Errorf("%s: at %s of %d places, %d resolutions", what, e.endpoint, m.search.places, w.Resolutions.Answered.Load())
		}
	}
}
