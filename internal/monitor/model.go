// Package monitor is the live view of tunnels: what they told over the last
// samples, and the lines of text that show it. It does nothing to the machine:
// its caller asks the tunnels and owns the terminal.
//
//	Sample ──▶ Model.Add ──▶ rates, history ──▶ Model.View ──▶ lines
//	bytes  ──▶ ReadKey ──▶ Model.Press ──▶ tunnel, help ──▲
package monitor

import (
	"slices"
	"time"

	"wireguard4netns"
)

// Sample is what was seen at one time.
type Sample struct {
	At      time.Time
	Names   []string // of all tunnels that stand, sorted
	Tunnels []Tunnel // those that were asked
}

// Tunnel is what one tunnel told.
type Tunnel struct {
	Status   *wireguard4netns.Status
	At       time.Time      // of the answer, which may be an earlier one
	Commands map[int]string // names of the processes inside, by PID
}

// Model is what the view shows. The zero Model has seen nothing.
type Model struct {
	at      time.Time
	names   []string
	chosen  string
	help    bool
	tunnels map[string]*history
}

// Choose shows the tunnel of this name, also when it does not stand.
func (m *Model) Choose(name string) { m.chosen = name }

// Chosen returns the name of the tunnel that is shown, or "" if there was none.
func (m *Model) Chosen() string { return m.chosen }

// Add takes the next sample. A tunnel that is not named in it is forgotten; the
// chosen one stays chosen, for it may come back.
func (m *Model) Add(s Sample) {
	m.at, m.names = s.At, s.Names
	if m.tunnels == nil {
		m.tunnels = map[string]*history{}
	}
	for name := range m.tunnels {
		if !slices.Contains(s.Names, name) {
			delete(m.tunnels, name)
		}
	}
	for _, t := range s.Tunnels {
		h := m.tunnels[t.Status.Name]
		if h == nil {
			h = &history{peers: map[string]*meter{}}
			m.tunnels[t.Status.Name] = h
		}
		h.add(t)
	}
	if m.chosen == "" && len(m.names) > 0 {
		m.chosen = m.names[0]
	}
}

// step chooses the tunnel so many further on, or back. From one that is gone,
// the first step is to its neighbour.
func (m *Model) step(by int) {
	if len(m.names) == 0 {
		return
	}
	at, stands := slices.BinarySearch(m.names, m.chosen)
	if !stands && by > 0 {
		at--
	}
	at = (at + by + len(m.names)) % len(m.names)
	m.chosen = m.names[at]
}
