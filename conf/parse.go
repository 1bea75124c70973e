package conf

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"strings"
)

const (
	maxFile = 1 << 20   // bytes in a file
	maxLine = 256 << 10 // bytes in a line; lists of AllowedIPs get long
)

// space is what isspace(3) means in the C locale, as wg(8) and wg-quick(8).
const space = " \t\n\v\f\r"

// Parse reads a wg-quick(8) file. Messages call it name. Warnings come in the
// order of their lines. An error about the text is an *[Error], the first that
// Parse meets; one of r is returned wrapped.
func Parse(r io.Reader, name string) (*Config, []Warning, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", name, err)
	}
	p := parser{file: name, addresses: map[netip.Prefix]bool{}}
	if wrong := p.parse(data); wrong != nil {
		wrong.File = name
		return nil, nil, wrong
	}
	return &p.config, p.warnings, nil
}

// parser holds what is known between two lines.
type parser struct {
	file     string
	line     int
	config   Config
	peers    []peerDraft
	warnings []Warning

	section   *section       // nil before the first header
	seen      map[string]int // line of each key of this section
	header    int            // line of [Interface]; 0: none yet
	addresses map[netip.Prefix]bool
	name      pendingName
}

// section is one of the two kinds of section, with its keys in the order in
// which they are written.
type section struct {
	title string
	keys  []key
}

// key is what may stand before "=". Its set is given the text after it without
// comment and surrounding space, and says what is wrong as a predicate.
type key struct {
	name     string
	repeated bool // every occurrence counts, not only the last
	set      func(p *parser, value string) *Error
}

// fault is an error whose file, line and key are still to be filled in.
func fault(problem, hint string) *Error { return &Error{Problem: problem, Hint: hint} }

func (p *parser) parse(data []byte) *Error {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	switch {
	case len(data) > maxFile:
		return fault("file is over 1 MiB", "this is not a WireGuard file")
	case bytes.IndexByte(data, 0) >= 0:
		return fault("file is not plain text", "save it as UTF-8")
	case len(bytes.TrimSpace(data)) == 0:
		return fault("file is empty", "a wg-quick file begins with [Interface]")
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		p.line++
		if wrong := p.parseLine(line); wrong != nil {
			wrong.Line = p.line
			return wrong
		}
	}
	return p.finish()
}

func (p *parser) parseLine(line string) *Error {
	if len(line) > maxLine {
		return fault("line is over 256 KiB", "split the list: a key may be repeated")
	}
	text, comment, _ := strings.Cut(line, "#")
	text = strings.Trim(text, space)
	if text == "" {
		p.name.read(p, comment)
		return nil
	}
	if wrong := p.parseText(text); wrong != nil {
		return wrong
	}
	p.name.read(p, comment)
	p.name.settle(p)
	return nil
}

func (p *parser) parseText(text string) *Error {
	if text[0] == '[' {
		return p.open(squeeze(text))
	}
	p.name.settle(p)
	name, value, ok := strings.Cut(text, "=")
	switch {
	case !ok:
		return fault("line is neither a [Section] nor KEY = VALUE", "a comment begins with #")
	case p.section == nil:
		return fault("line stands before any section", "the first line is to be [Interface]")
	}
	name = squeeze(name)
	for _, k := range p.section.keys {
		if strings.EqualFold(k.name, name) {
			return p.assign(k, strings.Trim(value, space))
		}
	}
	return p.unknown(name)
}

// open begins a section.
func (p *parser) open(title string) *Error {
	switch {
	case strings.EqualFold(title, peerSection.title):
		p.section = peerSection
		p.peers = append(p.peers, peerDraft{line: p.line, replace: true})
		p.name.give(p)
	case !strings.EqualFold(title, interfaceSection.title):
		wrong := fault("unknown section", "the sections are [Interface] and [Peer]")
		if near := nearest(title, []string{interfaceSection.title, peerSection.title}); near != "" {
			wrong.Hint = "did you mean " + near + "?"
		}
		return wrong
	case p.header != 0:
		return fault(fmt.Sprintf("second [Interface] section, the first is in line %d", p.header), "one file is one interface: split it")
	default:
		p.name.settle(p)
		p.section, p.header = interfaceSection, p.line
	}
	p.seen = map[string]int{}
	return nil
}

func (p *parser) assign(k key, value string) *Error {
	if line, ok := p.seen[k.name]; ok && !k.repeated {
		p.warn(RepeatedKey, "%s again, after line %d: this one counts", k.name, line)
	}
	p.seen[k.name] = p.line
	wrong := k.set(p, value)
	if wrong != nil {
		wrong.Key, wrong.Problem = k.name, k.name+" "+wrong.Problem
	}
	return wrong
}

func (p *parser) warn(kind WarningKind, format string, args ...any) {
	p.warnings = append(p.warnings, Warning{p.file, p.line, kind, fmt.Sprintf(format, args...)})
}

// squeeze drops all white space, as wg(8) does with each line.
func squeeze(s string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(space, r) {
			return -1
		}
		return r
	}, s)
}
