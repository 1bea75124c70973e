package watch

import (
	"net/netip"
	"testing"
	"time"

	"wireguard4netns/internal/host"
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
				if want := map[bool]time.Duration{true: restPause, false: callPause}[m.called.IsZero()]; m.pause() != want {
					t.Errorf("look %d: pause %v, want %v", i, m.pause(), want)
				}
			}
			if last := looks[len(looks)-1]; !last.call && m.pause() != restPause {
				t.Errorf("at the end it looks again after %v", m.pause())
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
