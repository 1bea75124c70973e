package monitor

import (
	"time"

	"wireguard4netns"
)

// window is how many samples are kept, and shown.
const window = 60

// unknown is the rate of which nothing can be said.
const unknown = -1

// rates are bytes per second, or unknown.
type rates struct{ rx, tx float64 }

// meter is a pair of counters and what they grew by. An engine that starts
// counts from zero again, so a counter that is less than before has grown by all
// of what it shows.
type meter struct {
	rx, tx uint64
	rates
}

func grown(before, now uint64) uint64 {
	if now < before {
		return now
	}
	return now - before
}

// history is one tunnel over the last samples.
type history struct {
	Tunnel
	counted time.Time // when the peers' counters were last seen
	peers   map[string]*meter
	total   rates
	last    []rates // at most window, the latest at the end
}

func (h *history) add(t Tunnel) {
	fresh := t.At.After(h.At)
	h.Tunnel = t
	switch {
	case !fresh || h.counted.IsZero():
		h.total = rates{unknown, unknown}
	default:
		h.total = rates{}
	}
	// While the engine restarts there are no peers: their counters are those of
	// before until it is back.
	if fresh && len(t.Status.Peers) > 0 {
		h.count(t.Status, t.At)
	} else {
		for _, p := range h.peers {
			p.rates = h.total
		}
	}
	h.last = append(h.last, h.total)
	if len(h.last) > window {
		h.last = h.last[1:]
	}
}

func (h *history) count(s *wireguard4netns.Status, at time.Time) {
	seconds := at.Sub(h.counted).Seconds()
	before := h.peers
	h.peers = make(map[string]*meter, len(s.Peers))
	for _, p := range s.Peers {
		m := &meter{rx: p.RxBytes, tx: p.TxBytes, rates: rates{unknown, unknown}}
		if old := before[p.PublicKey]; old != nil {
			m.rates = rates{float64(grown(old.rx, m.rx)) / seconds, float64(grown(old.tx, m.tx)) / seconds}
			h.total.rx += m.rates.rx
			h.total.tx += m.rates.tx
		}
		h.peers[p.PublicKey] = m
	}
	h.counted = at
}

// rate returns that of a peer.
func (h *history) rate(key string) rates {
	if m := h.peers[key]; m != nil {
		return m.rates
	}
	return rates{unknown, unknown}
}

// each returns one direction of the last samples, and its peak.
func (h *history) each(of func(rates) float64) (values []float64, peak float64) {
	for _, r := range h.last {
		values = append(values, of(r))
		peak = max(peak, of(r))
	}
	return values, peak
}

func received(r rates) float64 { return r.rx }
func sent(r rates) float64     { return r.tx }
