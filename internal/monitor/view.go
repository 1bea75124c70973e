package monitor

import (
	"fmt"
	"strings"
)

// Size is that of the terminal, in columns and rows.
type Size struct{ Columns, Rows int }

// Widths from which there is more beside one another.
const (
	twoColumns  = 40  // labels beside their values
	wideColumns = 120 // all of a peer in one line
)

// Escape sequences (console_codes(4)): of the 16 colours only two, and the
// terminal's own for all else, so that light and dark ones do.
const (
	bold   = "\x1b[1m"
	green  = "\x1b[1;32m"
	yellow = "\x1b[1;33m"
	plain  = "\x1b[m"
)

// View returns the lines that show the chosen tunnel: at most size.Rows, none
// wider than size.Columns, without line ends.
//
//	which tunnel, of which        always
//	state and cause
//	facts                         left out when there are few rows
//	traffic
//	peers                         share what rows are left
//	processes
//	keys                          the last row
func (m *Model) View(size Size, style Style) []string {
	v := &view{Style: style, Size: size}
	v.title(m)
	h := m.tunnels[m.chosen]
	switch {
	case m.at.IsZero():
	case m.chosen == "":
		v.line("no tunnel stands; wireguard4netns up makes one")
	case h == nil && contains(m.names, m.chosen):
		v.line("it has not yet answered")
	case h == nil:
		v.line("this tunnel does not stand (any more); it is shown when it does")
	default:
		v.tunnel(m, h)
	}
	return v.finish(m.help)
}

// view is lines in the making.
type view struct {
	Style
	Size
	lines []string
}

// line adds a line and cuts it to the width.
func (v *view) line(text string) { v.lines = append(v.lines, v.cut(text, v.Columns)) }

// styled adds a line in a colour.
func (v *view) styled(text, how string) {
	v.line(text)
	if last := &v.lines[len(v.lines)-1]; v.Color && how != "" && *last != "" {
		*last = how + *last + plain
	}
}

// field adds a line with a label; without a value, none.
func (v *view) field(label, value string) { v.styledField(label, value, "") }

func (v *view) styledField(label, value, how string) {
	if value == "" {
		return
	}
	if v.Columns >= twoColumns {
		label = v.left(label, 11)
	} else {
		label += " "
	}
	v.styled(label+v.clean(value), how)
}

// rest returns how many rows are left above that of the keys.
func (v *view) rest() int { return v.Rows - 1 - len(v.lines) }

// title names the tunnels, from the chosen one on those that fit.
func (v *view) title(m *Model) {
	all := make([]string, len(m.names))
	chosen := -1
	for i, name := range m.names {
		all[i] = fmt.Sprintf(" %d %s ", i+1, name)
		if name == m.chosen {
			chosen, all[i] = i, fmt.Sprintf("[%d %s]", i+1, name)
		}
	}
	if chosen < 0 && m.chosen != "" {
		all, chosen = append([]string{"[" + m.chosen + "]"}, all...), 0
	}
	// Those before the chosen one, as long as it keeps its place on the screen.
	start, used := max(0, chosen), 0
	if chosen >= 0 {
		used = textCells(all[chosen])
	}
	for start > 0 && used+textCells(all[start-1]) <= v.Columns/2 {
		start--
		used += textCells(all[start])
	}
	v.styled(v.clean(strings.TrimRight(strings.Join(all[start:], " "), " ")), bold)
}

func (v *view) tunnel(m *Model, h *history) {
	s := h.Status
	state := s.State
	if s.Cause != "" {
		state += ": " + s.Cause
	}
	how := yellow
	switch s.State {
	case "up":
		how = green
	case "idle":
		how = ""
	}
	v.styledField("state", state, how)
	if v.Rows >= 16 && s.Interface != "" {
		restarts := ""
		if s.EngineRestarts > 0 {
			restarts = fmt.Sprintf(", engine restarted %d times", s.EngineRestarts)
		}
		v.field("uptime", ageText(m.at.Sub(s.Since))+restarts)
		v.field("link", fmt.Sprintf("%s, MTU %d from %s", s.Interface, s.MTU, s.MTUSource))
		v.field("addresses", joined(s.Addresses))
		v.field("DNS", strings.TrimSpace(joined(s.DNS)+" "+strings.Join(s.Search, ", ")))
	}
	v.traffic("received", h, received)
	v.traffic("sent", h, sent)
	v.share(v.peers(m, h), v.processes(h))
}

// traffic adds the rate of one direction and, where there is room, its course.
func (v *view) traffic(label string, h *history, of func(rates) float64) {
	values, peak := h.each(of)
	v.field(label, fmt.Sprintf("%-12speak %s", rateText(of(h.total)), rateText(peak)))
	if v.Rows >= 10 {
		v.line(v.spark(values, peak, v.Columns))
	}
}

// share adds two tables, the longer of which gets the rows that the other does
// not need. Each has a heading, of which what is cut off is told.
func (v *view) share(peers, processes table) {
	rows := v.rest()
	second := min(processes.rows(), max(rows/2, rows-peers.rows()))
	v.table(peers, rows-second)
	v.table(processes, second)
}

// finish fills up to the last row, which tells the keys.
func (v *view) finish(help bool) []string {
	keys := "? help   q quit"
	if help {
		keys = "tab/arrows/1-9 tunnel   ? less   ^L redraw   ^Z suspend   q/Esc/^C quit"
	}
	if v.Rows > 2 {
		v.lines = v.lines[:min(len(v.lines), v.Rows-1)]
		for v.rest() > 0 {
			v.line("")
		}
		v.line(keys)
	}
	return v.lines[:min(len(v.lines), max(0, v.Rows))]
}
