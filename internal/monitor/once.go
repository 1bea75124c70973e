package monitor

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Table writes what the model knows as a plain table: a line for each tunnel, no
// escape sequence, no space in a column but in the last.
func (m *Model) Table(w io.Writer, style Style) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tSTATE\tHANDSHAKE\tRX\tTX\tRECEIVED\tSENT\tPEERS\tPROCESSES\tRESTARTS\tUPTIME\tCAUSE")
	for _, name := range m.names {
		h := m.tunnels[name]
		if h == nil {
			continue
		}
		s := h.Status
		var rx, tx uint64
		handshake := "never"
		for _, p := range s.Peers {
			rx, tx = rx+p.RxBytes, tx+p.TxBytes
		}
		if last := latest(s); !last.IsZero() {
			handshake = ageText(m.at.Sub(last))
		}
		uptime := "-"
		if !s.Since.IsZero() {
			uptime = ageText(m.at.Sub(s.Since))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\t%s\n", style.clean(name), s.State, handshake,
			compact(rateText(h.total.rx)), compact(rateText(h.total.tx)), compact(bytesText(float64(rx))), compact(bytesText(float64(tx))),
			len(s.Peers), len(s.Processes), s.EngineRestarts, uptime, style.clean(s.Cause))
	}
	return t.Flush()
}

func compact(text string) string { return strings.ReplaceAll(text, " ", "") }
