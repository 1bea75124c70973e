package conf

import (
	"bytes"
	"slices"
	"strings"
)

// An editor changes lines of a file that Parse has taken. It reads them as the
// parser does.
type editor struct {
	bom   bool
	crlf  bool // new lines end so
	list  []*row
	parts []*part
	added []*Peer
	trim  bool // the last section went
}

// row is a line without its "\n".
type row struct {
	text    string
	key     string // as the tables of keys spell it; empty: a header or a comment
	header  bool
	deleted bool
	gone    bool     // with its section
	after   []string // new lines below this one
}

// part is a section: its rows from the header to the next header.
type part struct {
	section   *section
	publicKey PublicKey
	first     int // its header's, in the editor's list
	list      []*row
}

func newEditor(text []byte) *editor {
	e := &editor{crlf: bytes.Contains(text, []byte("\r\n"))}
	text, e.bom = bytes.CutPrefix(text, []byte("\ufeff"))
	for i, line := range strings.Split(string(text), "\n") {
		r := &row{text: line}
		e.list = append(e.list, r)
		content, _, _ := strings.Cut(line, "#")
		content = strings.Trim(content, space)
		if r.header = strings.HasPrefix(content, "["); r.header {
			s := interfaceSection
			if strings.EqualFold(squeeze(content), peerSection.title) {
				s = peerSection
			}
			e.parts = append(e.parts, &part{section: s, first: i})
		}
		if len(e.parts) > 0 {
			e.parts[len(e.parts)-1].take(r, content)
		}
	}
	return e
}

// take adds a row, whose text without comment is content.
func (p *part) take(r *row, content string) {
	p.list = append(p.list, r)
	name, value, ok := strings.Cut(content, "=")
	if r.header || !ok {
		return
	}
	name = squeeze(name)
	i := slices.IndexFunc(p.section.keys, func(k key) bool { return strings.EqualFold(k.name, name) })
	r.key = p.section.keys[i].name // Parse has taken it
	if r.key == "PublicKey" {
		p.publicKey, _ = ParsePublicKey(squeeze(value))
	}
}

// rows are those of a key that are still there.
func (p *part) rows(key string) (list []*row) {
	for _, r := range p.list {
		if r.key == key && !r.deleted {
			list = append(list, r)
		}
	}
	return list
}

// lastKey is the row below which a new key has its place. Each section has a key
// that stays.
func (p *part) lastKey() (i int) {
	for n, r := range p.list {
		if r.key != "" && !r.deleted {
			i = n
		}
	}
	return i
}

// comment is what follows the first #.
func (r *row) comment() string {
	_, comment, _ := strings.Cut(r.text, "#")
	return comment
}

// onlyComment tells a comment from what ends a block of comments. A lone # does:
// so pendingName has it.
func (r *row) onlyComment() bool { return isComment(r.text) }

func isComment(line string) bool {
	content, comment, _ := strings.Cut(line, "#")
	return strings.Trim(content, space) == "" && comment != ""
}

// blank tells that there is nothing at all.
func isBlank(line string) bool { return strings.Trim(line, space) == "" }

// names tells whether the row's comment gives a peer its name.
func (r *row) names() bool {
	field, _, ok := strings.Cut(r.comment(), "=")
	return ok && strings.EqualFold(strings.Trim(field, space), "friendly_name")
}

// setValue replaces what is between "=" and the comment, without the space around
// it.
func (r *row) setValue(value string) {
	end := strings.IndexByte(r.text, '#')
	if end < 0 {
		end = len(r.text)
	}
	start := strings.IndexByte(r.text, '=') + 1
	old := strings.Trim(r.text[start:end], space)
	if old == "" {
		r.text = r.text[:start] + " " + value + r.text[start:]
		return
	}
	start += strings.Index(r.text[start:end], old)
	r.text = r.text[:start] + value + r.text[start+len(old):]
}

// takenBack are the values that stand for none.
var takenBack = map[string]string{
	"ListenPort": "0", "FwMark": "off", "Table": "auto", "SaveConfig": "false", "PersistentKeepalive": "off",
}

// set gives a key, whose rows are in parts, these values.
func (e *editor) set(parts []*part, name string, values []string) {
	var rows []*row
	for _, p := range parts {
		rows = append(rows, p.rows(name)...)
	}
	if off := takenBack[name]; off != "" && len(values) == 0 && len(rows) > 0 {
		values = []string{off}
	}
	last := parts[len(parts)-1]
	repeated := slices.ContainsFunc(last.section.keys, func(k key) bool { return k.name == name && k.repeated })
	if !repeated && len(values) > 0 && len(rows) > 0 {
		rows = rows[len(rows)-1:] // the last one counts
	}
	below := last.list[last.lastKey()]
	for _, r := range rows {
		if len(values) == 0 {
			r.deleted = true
			continue
		}
		r.setValue(values[0])
		values, below = values[1:], r
	}
	e.insert(below, name, values)
}

// insert puts new lines below r.
func (e *editor) insert(r *row, name string, values []string) {
	for _, value := range values {
		r.after = append(r.after, e.line(name+" = "+value))
	}
}

func (e *editor) line(text string) string {
	if e.crlf {
		return text + "\r"
	}
	return text
}

// element is one of AllowedIPs, as it is written.
type element struct {
	change
	text   string
	signed bool
}

func elements(r *row) (list []element) {
	content, _, _ := strings.Cut(r.text, "#")
	_, value, _ := strings.Cut(content, "=")
	for text := range strings.SplitSeq(value, ",") {
		s := squeeze(text)
		if s == "" {
			continue
		}
		el := element{text: strings.Trim(text, space), signed: s[0] == '+' || s[0] == '-'}
		if el.signed {
			el.remove, s = s[0] == '-', s[1:]
		}
		prefix, _ := parsePrefix(s)
		el.prefix = prefix.Masked()
		list = append(list, el)
	}
	return list
}

// allowedIPs are all of a section; signed tells that they change what an earlier
// section of the peer gives, and do not replace it.
func (p *part) allowedIPs() (list []element, signed bool) {
	for _, r := range p.rows("AllowedIPs") {
		of := elements(r)
		signed = slices.ContainsFunc(of, func(el element) bool { return el.signed })
		list = append(list, of...)
	}
	return list, signed
}

// drop takes a section away: with the comment right above its header and right
// below its last key, and what names its peer. Other comments after it stay.
func (e *editor) drop(p *part) {
	end := len(p.list)
	if p.first+end == len(e.list) {
		e.trim = true
	} else { // what is right above the next header is its own
		for end > 0 && p.list[end-1].onlyComment() {
			end--
		}
	}
	e.dropAbove(p)
	own := p.lastKey() + 1
	for own < end && p.list[own].onlyComment() {
		own++
	}
	for _, r := range p.list[:own] {
		r.gone = true
	}
	for _, r := range p.list[own:end] {
		r.gone = r.names()
	}
	e.closeGap(p.list[own:end], p.first)
}

// dropAbove takes the comment above a header away. Of two names there the upper is
// that of the section before, and is not to come right above the next.
func (e *editor) dropAbove(p *part) {
	named := false
	for i := p.first - 1; i >= 0 && e.list[i].onlyComment(); i-- {
		r := e.list[i]
		if r.names() && named {
			r.after = []string{e.line("")}
			return
		}
		named = named || r.names()
		r.gone = true
	}
}

// closeGap leaves one of two gaps: tail comes after rows that went, up to which
// first leads.
func (e *editor) closeGap(tail []*row, first int) {
	for i := first; i > 0 && e.list[i-1].gone; i-- {
		first = i - 1
	}
	if first > 0 && !isBlank(e.list[first-1].text) {
		return
	}
	for _, r := range tail {
		if !r.gone && !isBlank(r.text) {
			return
		}
		r.gone = true
	}
}

// add appends a section.
func (e *editor) add(p *Peer) { e.added = append(e.added, p) }

// bytes returns the text as it is now.
func (e *editor) bytes() []byte {
	var out []string
	for i, r := range e.list {
		switch {
		case r.gone:
			continue
		case r.deleted:
			out = e.keepNames(out, i)
		default:
			out = append(out, r.text)
		}
		if n := len(out); len(r.after) > 0 && i == len(e.list)-1 {
			out[n-1] = e.ended(out[n-1])
			r.after = append(r.after, "")
		}
		out = append(out, r.after...)
	}
	if e.trim || len(e.added) > 0 {
		out = e.trimEnd(out)
	}
	for _, p := range e.added {
		var w writer
		w.peerSection(p)
		for line := range strings.Lines(w.String()) {
			out = append(out, e.line(strings.TrimSuffix(line, "\n")))
		}
	}
	if len(e.added) > 0 {
		out = append(out, "")
	}
	text := strings.Join(out, "\n")
	if e.bom {
		text = "\ufeff" + text
	}
	return []byte(text)
}

// keepNames writes what is left of a key that is deleted: a name in its comment,
// and the end of a block of comments above it, which must not come to be right
// above the next header.
func (e *editor) keepNames(out []string, i int) []string {
	if r := e.list[i]; r.names() {
		out = append(out, "#"+r.comment())
	}
	next := slices.IndexFunc(e.list[i+1:], func(r *row) bool { return !r.deleted && !r.gone })
	if len(out) == 0 || !isComment(out[len(out)-1]) || next < 0 {
		return out
	}
	if r := e.list[i+1+next]; r.header || r.onlyComment() {
		out = append(out, e.line(""))
	}
	return out
}

// trimEnd leaves the last line that is not blank as the last, ended.
func (e *editor) trimEnd(out []string) []string {
	for len(out) > 0 && isBlank(out[len(out)-1]) {
		out = out[:len(out)-1]
	}
	if n := len(out); n > 0 {
		out[n-1] = e.ended(out[n-1])
	}
	if len(e.added) > 0 {
		return out
	}
	return append(out, "")
}

// ended is a line as it is when another follows.
func (e *editor) ended(line string) string {
	if e.crlf && !strings.HasSuffix(line, "\r") {
		return line + "\r"
	}
	return line
}
