package monitor

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"golang.org/x/text/width"
)

// Style is what the terminal can show.
type Style struct {
	ASCII bool // nothing but ASCII
	Color bool // and bold
}

// clean makes text from outside harmless: no control character reaches the
// terminal, nor one that changes the direction of what follows.
func (s Style) clean(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar || s.ASCII && r > unicode.MaxASCII {
			return '?'
		}
		return r
	}, text)
}

// cells returns how many columns of a terminal a character takes.
func cells(r rune) int {
	if r <= unicode.MaxASCII {
		return 1
	}
	if unicode.In(r, unicode.Mn, unicode.Me) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

func textCells(text string) (n int) {
	for _, r := range text {
		n += cells(r)
	}
	return n
}

// cut returns as much of text as fits into so many columns, with a mark at its
// end if that is not all.
func (s Style) cut(text string, columns int) string {
	if textCells(text) <= columns {
		return text
	}
	mark := "…"
	if s.ASCII {
		mark = ">"
	}
	if columns <= 0 {
		return ""
	}
	used := 0
	for i, r := range text {
		if used += cells(r); used > columns-1 {
			return text[:i] + mark
		}
	}
	return text
}

// left and right fill text with spaces to so many columns, or cut it.
func (s Style) left(text string, columns int) string {
	text = s.cut(text, columns)
	return text + strings.Repeat(" ", max(0, columns-textCells(text)))
}

func (s Style) right(text string, columns int) string {
	text = s.cut(text, columns)
	return strings.Repeat(" ", max(0, columns-textCells(text))) + text
}

// bytesText writes a number of bytes in at most eight columns.
func bytesText(n float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	unit := 0
	for n >= 1023.5 && unit < len(units)-1 {
		n /= 1024
		unit++
	}
	digits := 0
	switch {
	case unit == 0 || n >= 99.95:
	case n >= 9.995:
		digits = 1
	default:
		digits = 2
	}
	return fmt.Sprintf("%.*f %s", digits, n, units[unit])
}

func rateText(r float64) string {
	if r < 0 {
		return "-"
	}
	return bytesText(r) + "/s"
}

// ageText writes a duration in at most six columns for a year.
func ageText(d time.Duration) string {
	d = max(0, d.Truncate(time.Second))
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
}

func joined[T fmt.Stringer](values []T) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = v.String()
	}
	return strings.Join(texts, ", ")
}

// spark draws the last values that fit into so many columns, against their peak.
// Nothing at all is the lowest step, so that the least traffic can be told from
// none; what is unknown is left blank.
func (s Style) spark(values []float64, peak float64, columns int) string {
	steps := []rune("▁▂▃▄▅▆▇█")
	if s.ASCII {
		steps = []rune("_.-:=+*#")
	}
	values = values[max(0, len(values)-max(0, columns)):]
	var b strings.Builder
	for _, v := range values {
		switch {
		case v < 0:
			b.WriteByte(' ')
		case v == 0 || peak <= 0:
			b.WriteRune(steps[0])
		default:
			top := len(steps) - 1
			b.WriteRune(steps[1+min(top-1, int(v/peak*float64(top)))])
		}
	}
	return b.String()
}
