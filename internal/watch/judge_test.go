package watch

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"wireguard4netns/internal/host"
	"wireguard4netns/internal/uapi"
)

var (
	endpointA = netip.MustParseAddrPort("192.0.2.1:51820")
	endpointB = netip.MustParseAddrPort("192.0.2.9:51820")

	wifi      = host.Path{Source: netip.MustParseAddr("192.0.2.2"), Link: 2, MTU: 1500}
	wifiAgain = host.Path{Source: netip.MustParseAddr("192.0.2.2"), Link: 7, MTU: 1500}
	narrow    = host.Path{Source: netip.MustParseAddr("192.0.2.2"), Link: 2, MTU: 1400}
	mobile    = host.Path{Source: netip.MustParseAddr("198.51.100.2"), Link: 3, MTU: 1500}
	none      = host.Path{}
)

// look is one look at a peer, seconds after the first, and whether it is called.
type look struct {
	at        float64
	endpoint  netip.AddrPort
	path      host.Path
	handshake float64 // seconds after the first look; 0: never
	woke      bool
	call      bool
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for name, looks := range map[string][]look{
		"nothing happens": {
			{0, endpointA, wifi, 0, false, false}, {10, endpointA, wifi, 0, false, false}},
		"another source address": {
			{0, endpointA, wifi, 0.5, false, false}, {9, endpointA, mobile, 0.5, false, true}, {10, endpointA, mobile, 9.1, false, false}, {11, endpointA, mobile, 9.1, false, false}},
		"the interface comes back with its address": {
			{0, endpointA, wifi, 0.5, false, false}, {9, endpointA, wifiAgain, 0.5, false, true}},
		"the route goes and comes back": {
			{0, endpointA, wifi, 0.5, false, false}, {5, endpointA, none, 0.5, false, false}, {9, endpointA, wifi, 0.5, false, true}},
		"started before the network": {
			{0, endpointA, none, 0, false, false}, {9, endpointA, wifi, 0, false, true}},
		"another MTU only": {
			{0, endpointA, wifi, 0.5, false, false}, {9, endpointA, narrow, 0.5, false, false}},
		"the peer roams": {
			{0, endpointA, wifi, 0.5, false, false}, {9, endpointB, mobile, 0.5, false, false}, {20, endpointB, wifi, 0.5, false, true}},
		"no endpoint": {
			{0, netip.AddrPort{}, none, 0, false, false}, {9, netip.AddrPort{}, none, 0, true, false}},
		"the machine wakes": {
			{0, endpointA, wifi, 0.5, false, false}, {9, endpointA, wifi, 0.5, true, true}, {10, endpointA, wifi, 9.1, false, false}},
		"it wakes without a network": {
			{0, endpointA, wifi, 0.5, false, false}, {9, endpointA, none, 0.5, true, false}, {12, endpointA, wifi, 0.5, false, true}},
		"nobody answers": {
			{0, endpointA, wifi, 0.5, false, false}, {9, endpointA, mobile, 0.5, false, true},
			{9.5, endpointA, mobile, 0.5, false, false}, {10, endpointA, mobile, 0.5, false, true}, {11, endpointA, mobile, 0.5, false, true},
			{12, endpointA, mobile, 0.5, false, false}, {13, endpointA, mobile, 0.5, false, false}, {60, endpointA, mobile, 0.5, false, false}},
		"the route goes while a call is open": {
			{0, endpointA, wifi, 0.5, false, false}, {9, endpointA, mobile, 0.5, false, true}, {10, endpointA, none, 0.5, false, false}, {11, endpointA, mobile, 0.5, false, true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Unix(1_700_000_000, 0)
			after := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
			var m memory
			for i, l := range looks {
				s := seen{endpoint: l.endpoint, path: l.path}
				if l.handshake != 0 {
					s.handshake = after(l.handshake)
				}
				if got := m.judge(after(l.at), s, l.woke); got != l.call {
					t.Errorf("look %d: call is %v", i, got)
				}
			}
			if last := looks[len(looks)-1]; !last.call && m.open() {
				t.Error("at the end a call is open")
			}
		})
	}
}

func TestSleepClock(t *testing.T) {
	t.Parallel()
	asleep := 5 * time.Hour // before we were started
	c := newSleepClock(func() time.Duration { return asleep })
	for i, step := range []struct {
		sleep time.Duration
		woke  bool
	}{{0, false}, {time.Microsecond, false}, {-time.Microsecond, false}, {2 * time.Second, true}, {0, false}, {time.Hour, true}} {
		asleep += step.sleep
		if got := c.woke(); got != step.woke {
			t.Errorf("step %d: %v", i, got)
		}
	}
	if d := timeAsleep(); d < -time.Second {
		t.Errorf("the machine was asleep for %v", d)
	}
}

func TestRest(t *testing.T) {
	t.Parallel()
	var r rest
	for i, step := range []struct {
		passed uint64
		pause  time.Duration
	}{
		{0, busyPause}, {148, 4 * busyPause}, {180, 16 * busyPause},
		{5000, busyPause}, {9000, busyPause}, {9032, 4 * busyPause},
		{0, busyPause}, // an engine began anew
		{0, 4 * busyPause}, {0, 16 * busyPause}, {0, restPause}, {0, restPause},
	} {
		if got := r.next(step.passed); got != step.pause {
			t.Errorf("step %d: %v, want %v", i, got, step.pause)
		}
	}
}

// A call expires the sessions of all peers, so it does only where none is lost that
// is not called.
func TestCalls(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	a := uapi.Peer{PublicKey: uapi.PublicKey{1}, Endpoint: endpointA, LastHandshake: now.Add(-time.Minute)}
	b := uapi.Peer{PublicKey: uapi.PublicKey{2}, Endpoint: endpointB, LastHandshake: now.Add(-time.Minute)}
	old := uapi.Peer{PublicKey: uapi.PublicKey{3}, LastHandshake: now.Add(-time.Hour)}
	for name, test := range map[string]struct {
		peers, called []uapi.Peer
		expires       bool
	}{
		"the only one":           {[]uapi.Peer{a}, []uapi.Peer{a}, true},
		"both":                   {[]uapi.Peer{a, b}, []uapi.Peer{a, b}, true},
		"one of two":             {[]uapi.Peer{a, b}, []uapi.Peer{a}, false},
		"the other has no more":  {[]uapi.Peer{a, old}, []uapi.Peer{a}, true},
		"this one has no more":   {[]uapi.Peer{a, old}, []uapi.Peer{old}, false},
		"the other had none yet": {[]uapi.Peer{a, {PublicKey: uapi.PublicKey{4}}}, []uapi.Peer{a}, true},
	} {
		body := string(calls(uapi.Device{PrivateKey: uapi.Secret{1}, Peers: test.peers}, test.called, now))
		if got := strings.HasPrefix(body, "private_key="); got != test.expires {
			t.Errorf("%s: expires is %v", name, got)
		}
		if got := strings.Count(body, "public_key="); got != 2*len(test.called) {
			t.Errorf("%s: %d peers", name, got)
		}
	}
}

// The clock of this machine is not set while tests run: only that the wait for it
// says nothing and ends.
func TestClockJumpsEnd(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	jumps := make(chan struct{}, 1)
	if err := clockJumps(ctx, jumps); err != nil {
		t.Error(err)
	}
	if len(jumps) > 0 {
		t.Error("the clock jumped")
	}
}
