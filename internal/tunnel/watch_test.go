package tunnel

import (
	"testing"
	"time"

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
