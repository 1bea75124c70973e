package supervisor

import (
	"slices"
	"testing"
	"time"

	"wireguard4netns/internal/tunnel"
	"wireguard4netns/internal/uapi"
)

// When --on-handshake is run: at the first and after a long silence, not at each
// handshake, nor because an engine or a supervisor is another.
func TestHandshakeEvents(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	for name, c := range map[string]struct {
		known time.Time
		looks []time.Time // the last handshake at each look
		want  []int       // looks that are told
	}{
		"never":                    {looks: []time.Time{{}, {}}},
		"first":                    {looks: []time.Time{{}, at(1), at(1)}, want: []int{1}},
		"each two minutes":         {looks: []time.Time{at(0), at(120), at(245)}, want: []int{0}},
		"after a silence":          {looks: []time.Time{at(0), at(181), at(300)}, want: []int{0, 1}},
		"another engine":           {looks: []time.Time{at(0), {}, at(10)}, want: []int{0}},
		"another engine, later":    {looks: []time.Time{at(0), {}, at(500)}, want: []int{0, 2}},
		"taken over":               {known: at(0), looks: []time.Time{{}, at(5), at(125)}},
		"taken over, then silence": {known: at(0), looks: []time.Time{{}, at(5), at(200)}, want: []int{2}},
	} {
		a := &attendant{
			outside: tunnel.Outside{Handshake: "true"}, events: make(chan tunnel.Event, 10),
			handshakes: map[uapi.PublicKey]time.Time{}, known: c.known,
		}
		var told []int
		for i, look := range c.looks {
			a.noteHandshakes(uapi.Device{Peers: []uapi.Peer{{PublicKey: uapi.PublicKey{1}, LastHandshake: look}}})
			if len(a.events) > 0 {
				if e := <-a.events; e.Name != "handshake" || e.Peer.PublicKey != (uapi.PublicKey{1}) {
					t.Errorf("%s: %+v", name, e)
				}
				told = append(told, i)
			}
		}
		if !slices.Equal(told, c.want) {
			t.Errorf("%s: told at looks %v, not %v", name, told, c.want)
		}
	}
}
