package monitor

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"wireguard4netns"
)

// table is a heading and entries that are not torn apart.
type table struct {
	heading string
	entries [][]string // each of so many rows
	what    string     // is in them, in the plural,
	total   int        // so many
	per     int        // of them in an entry
}

func (t table) rows() int {
	if len(t.entries) == 0 {
		return 0
	}
	return 1 + len(t.entries)*len(t.entries[0])
}

// table adds as much of a table as fits into so many rows, and how much does not.
func (v *view) table(t table, rows int) {
	if len(t.entries) == 0 || rows < 2 {
		return
	}
	v.styled(t.heading, bold)
	each := len(t.entries[0])
	shown := t.entries
	if t.rows() > rows {
		shown = shown[:(rows-2)/each]
	}
	for _, e := range shown {
		for _, row := range e {
			v.line(row)
		}
	}
	if more := t.total - len(shown)*t.per; more > 0 {
		v.line(fmt.Sprintf("and %d more %s", more, t.what))
	}
}

const numberColumns = 13 // two spaces and "1023 KiB/s", or a heading

// peers lists the peers: in two rows each, or in one where that fits.
//
//	PEER                    HANDSHAKE     RECEIVED         SENT
//	name, or start of key     age            rate          rate
//	  endpoint                              total         total
func (v *view) peers(m *Model, h *history) table {
	t := table{what: "peers", total: len(h.Status.Peers), per: 1}
	name := max(8, v.Columns-3*numberColumns)
	numbers := func(first string, texts ...string) string {
		for _, text := range texts {
			first += "  " + v.right(text, numberColumns-2)
		}
		return first
	}
	wide := v.Columns >= wideColumns
	if wide {
		name = (v.Columns - 5*numberColumns - 2) / 2
		t.heading = numbers(v.left("PEER", name)+"  "+v.left("ENDPOINT", name), "HANDSHAKE", "RX", "TX", "RECEIVED", "SENT")
	} else {
		t.heading = numbers(v.left("PEER", name), "HANDSHAKE", "RECEIVED", "SENT")
	}
	for _, p := range h.Status.Peers {
		r := h.rate(p.PublicKey)
		who, where := v.clean(peerName(p.Name, p.PublicKey)), v.clean(endpoint(p.Endpoint, p.Configured))
		age := handshakeAge(p.LastHandshake, m.at)
		rx, tx := bytesText(float64(p.RxBytes)), bytesText(float64(p.TxBytes))
		if wide {
			t.entries = append(t.entries, []string{numbers(v.left(who, name)+"  "+v.left(where, name), age, rateText(r.rx), rateText(r.tx), rx, tx)})
			continue
		}
		t.entries = append(t.entries, []string{
			numbers(v.left(who, name), age, rateText(r.rx), rateText(r.tx)),
			numbers(v.left("  "+where, name+numberColumns), rx, tx),
		})
	}
	return t
}

// peerName returns the peer's name or the start of its key, which wg(8) would
// show whole.
func peerName(name, key string) string {
	if name != "" {
		return name
	}
	return key[:min(8, len(key))]
}

// endpoint tells where a peer is, and what the file says of it.
func endpoint(seen, configured string) string {
	switch {
	case seen == "" && configured == "":
		return "no endpoint yet"
	case configured == "" || configured == seen:
		return seen
	case seen == "":
		return "(" + configured + ")"
	}
	return seen + " (" + configured + ")"
}

func handshakeAge(last, now time.Time) string {
	if last.IsZero() {
		return "never"
	}
	return ageText(now.Sub(last))
}

// processes lists the processes inside, several in a row.
func (v *view) processes(h *history) table {
	all := h.Status.Processes
	var texts []string
	widest := 0
	for _, pid := range all {
		text := fmt.Sprintf("%7d %s", pid, v.clean(strings.TrimFunc(h.Commands[pid], unicode.IsSpace)))
		widest = max(widest, textCells(text))
		texts = append(texts, text)
	}
	t := table{heading: "PROCESSES", what: "processes", total: len(all), per: max(1, (v.Columns+2)/(widest+2))}
	for row := range slices.Chunk(texts, t.per) {
		for i, text := range row {
			row[i] = v.left(text, widest)
		}
		t.entries = append(t.entries, []string{strings.TrimRight(strings.Join(row, "  "), " ")})
	}
	return t
}

func latest(s *wireguard4netns.Status) (last time.Time) {
	for _, p := range s.Peers {
		if p.LastHandshake.After(last) {
			last = p.LastHandshake
		}
	}
	return last
}

func contains(sorted []string, name string) bool {
	_, found := slices.BinarySearch(sorted, name)
	return found
}
