package conf

import (
	"strings"
	"unicode"
)

// A friendly_name comment names the peer whose section it stands in, as
// prometheus_wireguard_exporter has it; or the next peer, if its header
// follows with no blank line between. Which one is known one line later.

// maxName bounds a name in runes; it is for people to read.
const maxName = 128

// pendingName is a name whose peer is not yet known.
type pendingName string

// read takes the comment of a line, which is empty on a blank line.
func (n *pendingName) read(p *parser, comment string) {
	if comment == "" {
		n.settle(p)
	}
	field, value, ok := strings.Cut(comment, "=")
	if ok && strings.EqualFold(strings.Trim(field, space), "friendly_name") {
		n.settle(p)
		*n = pendingName(cleanName(value))
	}
}

// settle gives a pending name to the section that is open.
func (n *pendingName) settle(p *parser) {
	if p.section == peerSection {
		n.give(p)
	}
	*n = ""
}

// give gives a pending name to the last peer.
func (n *pendingName) give(p *parser) {
	if *n != "" {
		p.peers[len(p.peers)-1].Name = string(*n)
	}
	*n = ""
}

// cleanName keeps what may be printed on a terminal.
func cleanName(s string) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s))
	if runes := []rune(s); len(runes) > maxName {
		s = strings.TrimSpace(string(runes[:maxName]))
	}
	return s
}
