package conf

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// errNotAFile: what is to be saved could not have come out of Parse.
var errNotAFile = errors.New("a file cannot say this: a key is missing, or two peers claim the same")

// Save returns text, a file that [Parse] takes, edited so that it means c. What
// says the same already stays byte for byte: comments, order, spelling, line
// ends. A value that is another is replaced in its line. A peer that is gone goes
// with its section and the comment right above it; a new one comes at the end, as
// Marshal writes it.
//
// The order of peers and of AllowedIPs means nothing, and the name of a peer that
// is in text is its comment's, not c's. A text that means c is returned as it is.
func Save(text []byte, c *Config) ([]byte, error) {
	before, _, err := Parse(bytes.NewReader(text), "text")
	if err != nil {
		return nil, fmt.Errorf("save over %w", err)
	}
	// Which peers count depends on the private key: one that has the interface's
	// own public key is left out.
	e := newEditor(text)
	e.saveInterface(&before.Interface, &c.Interface)
	text = e.bytes()
	if before, _, err = Parse(bytes.NewReader(text), "text"); err != nil {
		return nil, fmt.Errorf("save: %w: %w", errNotAFile, err)
	}
	e = newEditor(text)
	if err := e.savePeers(before, c); err != nil {
		return nil, err
	}
	text = e.bytes()
	if after, _, err := Parse(bytes.NewReader(text), "text"); err != nil || !meansSame(after, c) {
		return nil, errors.Join(fmt.Errorf("save: %w", errNotAFile), err)
	}
	return text, nil
}

// fields are the lines of a section, as Marshal writes them, by their key.
func fields(section func(*writer)) (map[string][]string, error) {
	var w writer
	section(&w)
	values := map[string][]string{}
	for line := range strings.Lines(w.String()) {
		if key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " = "); ok && line[0] != '#' {
			values[key] = append(values[key], value)
		}
	}
	return values, w.err
}

func interfaceFields(i *Interface) (map[string][]string, error) {
	return fields(func(w *writer) { w.interfaceSection(i) })
}

func peerFields(p *Peer) (map[string][]string, error) {
	return fields(func(w *writer) { w.peerSection(p) })
}

func meansSame(a, b *Config) bool {
	fa, errA := interfaceFields(&a.Interface)
	fb, errB := interfaceFields(&b.Interface)
	if errA != nil || errB != nil || !equalFields(fa, fb) || len(a.Peers) != len(b.Peers) {
		return false
	}
	for i := range a.Peers {
		p := &a.Peers[i]
		q := b.peer(p.PublicKey)
		if q == nil || p.PresharedKey != q.PresharedKey || p.Endpoint != q.Endpoint ||
			p.PersistentKeepalive != q.PersistentKeepalive || !samePrefixes(p.AllowedIPs, q.AllowedIPs) {
			return false
		}
	}
	return true
}

func equalFields(a, b map[string][]string) bool {
	for _, k := range interfaceSection.keys {
		if !slices.Equal(a[k.name], b[k.name]) {
			return false
		}
	}
	return true
}

func (c *Config) peer(k PublicKey) *Peer {
	i := slices.IndexFunc(c.Peers, func(p Peer) bool { return p.PublicKey == k })
	if i < 0 {
		return nil
	}
	return &c.Peers[i]
}

func samePrefixes(a, b []netip.Prefix) bool {
	in := prefixSet(a)
	return len(a) == len(b) && len(prefixSet(b)) == len(in) && !slices.ContainsFunc(b, func(p netip.Prefix) bool { return !in[p] })
}

func prefixSet(list []netip.Prefix) map[netip.Prefix]bool {
	set := map[netip.Prefix]bool{}
	for _, p := range list {
		set[p] = true
	}
	return set
}

func (e *editor) saveInterface(before, after *Interface) {
	was, _ := interfaceFields(before)
	is, _ := interfaceFields(after) // what it cannot write is found in the end
	all := e.parts[slices.IndexFunc(e.parts, func(p *part) bool { return p.section == interfaceSection })]
	for _, k := range interfaceSection.keys {
		if !slices.Equal(was[k.name], is[k.name]) {
			e.set([]*part{all}, k.name, is[k.name])
		}
	}
}

func (e *editor) savePeers(before, after *Config) error {
	own := after.Interface.PrivateKey.PublicKey()
	parts := map[PublicKey][]*part{}
	for _, p := range e.parts {
		switch {
		case p.section != peerSection || p.publicKey == own:
		case after.peer(p.publicKey) == nil:
			e.drop(p)
		default:
			parts[p.publicKey] = append(parts[p.publicKey], p)
		}
	}
	moved := len(before.Peers) != len(after.Peers)
	for i := range after.Peers {
		p := before.peer(after.Peers[i].PublicKey)
		moved = moved || p == nil || !samePrefixes(p.AllowedIPs, after.Peers[i].AllowedIPs)
	}
	for i := range after.Peers {
		p := &after.Peers[i]
		is, err := peerFields(p)
		if err != nil {
			return fmt.Errorf("save: %w", err)
		}
		own := parts[p.PublicKey]
		if len(own) == 0 {
			e.add(p)
			continue
		}
		was, _ := peerFields(before.peer(p.PublicKey))
		for _, k := range peerSection.keys {
			if !k.repeated && !slices.Equal(was[k.name], is[k.name]) {
				e.set(own, k.name, is[k.name])
			}
		}
		// If a prefix has moved, a claim that an earlier section lost to a later
		// one may count again: then each section is to claim what is its own.
		if moved && !claim(own, p.AllowedIPs) {
			e.setAllowedIPs(own, p.AllowedIPs)
		}
	}
	return nil
}

// claim tells whether the sections of one peer claim want and nothing else: also a
// claim that is taken back later takes a prefix from another peer.
func claim(parts []*part, want []netip.Prefix) bool {
	in := prefixSet(want)
	claimed := map[netip.Prefix]bool{}
	for _, p := range parts {
		elements, signed := p.allowedIPs()
		if !signed {
			clear(claimed) // as peerDraft.replace
		}
		for _, el := range elements {
			if el.remove {
				delete(claimed, el.prefix)
				continue
			}
			if !in[el.prefix] {
				return false
			}
			claimed[el.prefix] = true
		}
	}
	return len(claimed) == len(in)
}

// setAllowedIPs edits the elements where they stand, if that is plain to do.
func (e *editor) setAllowedIPs(parts []*part, want []netip.Prefix) {
	last := parts[len(parts)-1]
	all, _ := last.allowedIPs()
	signed := slices.ContainsFunc(all, func(el element) bool { return el.signed })
	if len(parts) > 1 || signed || len(last.rows("AllowedIPs")) == 0 {
		for _, p := range parts[:len(parts)-1] {
			e.set([]*part{p}, "AllowedIPs", nil)
		}
		e.set([]*part{last}, "AllowedIPs", prefixLines(want))
		return
	}
	missing := prefixSet(want)
	rows := last.rows("AllowedIPs")
	for i, r := range rows {
		var kept []string
		for _, el := range elements(r) {
			if missing[el.prefix] {
				kept = append(kept, el.text)
				delete(missing, el.prefix)
			}
		}
		var more []netip.Prefix
		if i == len(rows)-1 {
			more = slices.DeleteFunc(slices.Clone(want), func(p netip.Prefix) bool { return !missing[p] })
		}
		e.setElements(r, kept, more)
	}
}

// prefixLines are the values of the lines that Marshal writes for a list.
func prefixLines(list []netip.Prefix) []string {
	values, _ := fields(func(w *writer) { w.prefixes("AllowedIPs", list) })
	return values["AllowedIPs"]
}

// setElements gives a row of AllowedIPs what it keeps and what comes to it.
func (e *editor) setElements(r *row, kept []string, more []netip.Prefix) {
	switch {
	case len(kept) == len(elements(r)) && len(more) == 0:
	case len(kept)+len(more) == 0:
		r.deleted = true
	case len(kept) == 0:
		lines := prefixLines(more)
		r.setValue(lines[0])
		e.insert(r, "AllowedIPs", lines[1:])
	case len(kept)+len(more) > perLine:
		if len(kept) < len(elements(r)) {
			r.setValue(strings.Join(kept, ", "))
		}
		e.insert(r, "AllowedIPs", prefixLines(more))
	default:
		for _, p := range more {
			kept = append(kept, p.String())
		}
		r.setValue(strings.Join(kept, ", "))
	}
}
