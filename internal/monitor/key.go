package monitor

import "strings"

// Key is what a key of the terminal asks for.
type Key int

// Keys. Tunnel keys are Nth + 0 to Nth + 8.
const (
	Other Key = iota
	Next
	Previous
	Help
	Quit
	Suspend
	Redraw
	Nth
)

const escape = "\x1b"

// sequences are the keys that send more than one byte (console_codes(4)), in
// normal and in application mode.
var sequences = map[string]Key{
	escape:        Quit, // before another: Esc was pressed twice
	escape + "[C": Next, escape + "OC": Next,
	escape + "[D": Previous, escape + "OD": Previous, escape + "[Z": Previous,
}

// ReadKey takes the first key from what the terminal sent. It returns no bytes
// as used when more have to come; a terminal that sends nothing more after an
// escape for a moment has sent the key Esc: Quit.
func ReadKey(b []byte) (k Key, used int) {
	if len(b) == 0 {
		return Other, 0
	}
	switch c := b[0]; {
	case c == escape[0]:
		used = sequence(b)
		return sequences[string(b[:used])], used
	case c >= '1' && c <= '9':
		return Nth + Key(c-'1'), 1
	case c == '\t':
		return Next, 1
	case strings.IndexByte("?hH", c) >= 0:
		return Help, 1
	case strings.IndexByte("qQ\x03", c) >= 0:
		return Quit, 1
	case c == '\x1a':
		return Suspend, 1
	case c == '\x0c':
		return Redraw, 1
	}
	return Other, 1
}

// sequence returns the length of the escape sequence that b begins with, or 0 if
// it is not yet whole: ESC O x, ESC [ parameters x, or a key with Alt.
func sequence(b []byte) int {
	switch {
	case len(b) < 2:
		return 0
	case b[1] == escape[0]:
		return 1
	case b[1] == 'O':
		return min(3, len(b)) / 3 * 3
	case b[1] != '[':
		return 2
	}
	for i, c := range b[2:] {
		if c >= 0x40 && c <= 0x7e { // the final byte (ECMA-48, 5.4)
			return i + 3
		}
	}
	return 0
}

// Press does what the key asks for, as far as that is the view's.
func (m *Model) Press(k Key) {
	switch {
	case k == Next:
		m.step(1)
	case k == Previous:
		m.step(-1)
	case k == Help:
		m.help = !m.help
	case k >= Nth && int(k-Nth) < len(m.names):
		m.chosen = m.names[k-Nth]
	}
}
