package wggo

import (
	"net/netip"
	"testing"
	"time"
)

// event is what happens at an address, seconds after the start.
type event struct {
	at   float64
	do   byte // 's'end or 'h'ear
	kind kind
	addr int
}

func TestSilences(t *testing.T) {
	t.Parallel()
	every := func(from, to, step float64, do byte, addr int) (list []event) {
		for at := from; at < to; at += step {
			list = append(list, event{at, do, data, addr})
		}
		return list
	}
	for name, test := range map[string]struct {
		events []event
		until  float64
		found  []float64 // when silence was told of
		asked  []float64 // when a session was asked for, of those
		timers int       // ends of the timer, at most
	}{
		"nothing is sent":      {nil, 1000, nil, nil, 0},
		"one packet, answered": {[]event{{0, 's', data, 0}, {0.1, 'h', data, 0}}, 1000, nil, nil, 1},
		"one packet":           {[]event{{0, 's', data, 0}}, 1000, []float64{5}, []float64{5}, 1},
		"a keepalive answers":  {[]event{{0, 's', data, 0}, {4.9, 'h', noMatter, 0}}, 1000, nil, nil, 1},
		"answers to all": {append(every(0, 60, 1, 's', 0), every(0.1, 60, 1, 'h', 0)...), 1000,
			nil, nil, 15},
		"it forgets, and knows again": {append(append(every(0, 24.8, 0.2, 's', 0), every(0.1, 10, 0.2, 'h', 0)...),
			append(every(15.3, 20, 0.2, 'h', 0), event{15.2, 'h', noMatter, 0})...), 30,
			[]float64{15, 25}, []float64{15, 25}, 8},
		"it is gone": {every(0, 300, 0.5, 's', 0), 300, nil, []float64{5, 125, 245}, 80},
		"a stream one way": {append(every(0, 100, 0.5, 's', 0),
			[]event{{5.1, 'h', noMatter, 0}, {15.1, 'h', noMatter, 0}, {25.1, 'h', noMatter, 0}}...), 30,
			nil, []float64{5}, 20},
		"a handshake under way": {[]event{{0, 's', data, 0}, {0.1, 's', initiation, 0}}, 1000, []float64{5}, nil, 1},
		"one of two is silent": {append(append(every(0, 20, 0.5, 's', 0), every(0.1, 20, 0.5, 'h', 0)...), every(0, 4, 1, 's', 1)...), 20,
			[]float64{5}, []float64{5}, 8},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Unix(1_700_000_000, 0)
			now, end := start, time.Time{}
			var found, asked []float64
			timers := 0
			s := newSilences(func(_ netip.AddrPort, ask bool) {
				found = append(found, now.Sub(start).Seconds())
				if ask {
					asked = append(asked, now.Sub(start).Seconds())
				}
			})
			s.now = func() time.Time { return now }
			s.start = func(d time.Duration) { end = now.Add(d) }
			// One step is a tenth of a second.
			for step := range int(test.until*10) + 1 {
				now = start.Add(time.Duration(step) * time.Second / 10)
				if !end.IsZero() && !now.Before(end) {
					end = time.Time{}
					timers++
					s.tick()
				}
				for _, e := range test.events {
					if int(e.at*10+0.5) != step {
						continue
					}
					addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(e.addr)}), 51820)
					if e.do == 's' {
						s.sent(addr, e.kind)
					} else {
						s.heard(addr, e.kind)
					}
				}
			}
			if test.found != nil && !near(found, test.found) {
				t.Errorf("told at %v, want %v", found, test.found)
			}
			if !near(asked, test.asked) {
				t.Errorf("asked at %v, want %v", asked, test.asked)
			}
			if timers > test.timers {
				t.Errorf("the timer ended %d times, want at most %d", timers, test.timers)
			}
		})
	}
}

// near tells that the times are those wanted, or come less than a second later.
func near(got, want []float64) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		if got[i] < want[i] || got[i] >= want[i]+1 {
			return false
		}
	}
	return true
}
