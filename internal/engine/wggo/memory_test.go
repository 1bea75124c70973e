package wggo

import "testing"

func TestRestIsTheEndOfTraffic(t *testing.T) {
	t.Parallel()
	var r rest
	for i, c := range []struct {
		passed uint64
		ended  bool
	}{
		{0, false},                 // nothing was, so nothing ended
		{148, false},               // a handshake
		{10 * restBytes, false},    // traffic
		{20 * restBytes, false},    // more
		{20*restBytes + 32, true},  // a keepalive only
		{20*restBytes + 64, false}, // told already
		{30 * restBytes, false},
		{5, false}, // a peer was removed, with its counters: it wraps
		{5, true},
	} {
		if got := r.look(c.passed); got != c.ended {
			t.Errorf("look %d at %d: %v", i, c.passed, got)
		}
	}
}
