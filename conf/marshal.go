package conf

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Marshal returns c as a wg-quick(8) file, keys included. [Parse] of it gives
// an equal Config. A Config that could not have come out of Parse, such as one
// without a private key or with a line break in a hook, is an error; so is one
// whose file would be over 1 MiB.
func (c *Config) Marshal() ([]byte, error) {
	var w writer
	w.interfaceSection(&c.Interface)
	for i := range c.Peers {
		w.peerSection(&c.Peers[i])
	}
	if w.err != nil {
		return nil, fmt.Errorf("marshal config: %w", w.err)
	}
	if _, _, err := Parse(bytes.NewReader(w.Bytes()), "config"); err != nil {
		return nil, fmt.Errorf("marshal %w", err)
	}
	return w.Bytes(), nil
}

// WriteTo writes what Marshal returns.
func (c *Config) WriteTo(w io.Writer) (int64, error) {
	data, err := c.Marshal()
	if err != nil {
		return 0, err
	}
	n, err := w.Write(data)
	return int64(n), err
}

// writer keeps the first error.
type writer struct {
	bytes.Buffer
	err error
}

func (w *writer) interfaceSection(i *Interface) {
	w.WriteString("[Interface]\n")
	w.field("PrivateKey", i.PrivateKey.Base64())
	if i.ListenPort != 0 {
		w.field("ListenPort", i.ListenPort)
	}
	if i.FwMark != 0 {
		w.field("FwMark", fmt.Sprintf("%#x", i.FwMark))
	}
	w.prefixes("Address", i.Addresses)
	if names := dnsNames(i); len(names) > 0 {
		w.field("DNS", strings.Join(names, ", "))
	}
	if i.MTU != 0 {
		w.field("MTU", i.MTU)
	}
	if i.Table != TableAuto {
		w.field("Table", i.Table)
	}
	w.hooks("PreUp", i.PreUp)
	w.hooks("PostUp", i.PostUp)
	w.hooks("PreDown", i.PreDown)
	w.hooks("PostDown", i.PostDown)
	if i.SaveConfig {
		w.field("SaveConfig", true)
	}
}

func (w *writer) hooks(key string, hooks []string) {
	for _, hook := range hooks {
		w.field(key, hook)
	}
}

func dnsNames(i *Interface) []string {
	var names []string
	for _, addr := range i.DNS {
		names = append(names, addr.String())
	}
	return append(names, i.Search...)
}

func (w *writer) peerSection(p *Peer) {
	w.WriteString("\n[Peer]\n")
	if name := cleanName(p.Name); name != "" {
		w.WriteString("# friendly_name = " + name + "\n")
	}
	w.field("PublicKey", p.PublicKey)
	if !p.PresharedKey.IsZero() {
		w.field("PresharedKey", p.PresharedKey.Base64())
	}
	w.prefixes("AllowedIPs", p.AllowedIPs)
	if !p.Endpoint.IsZero() {
		w.field("Endpoint", p.Endpoint)
	}
	if p.PersistentKeepalive != 0 {
		w.field("PersistentKeepalive", int64(p.PersistentKeepalive/time.Second))
	}
}

// perLine is how many prefixes a person can read in a line.
const perLine = 16

// prefixes breaks long lists into lines.
func (w *writer) prefixes(key string, prefixes []netip.Prefix) {
	for line := range slices.Chunk(prefixes, perLine) {
		var list []string
		for _, p := range line {
			list = append(list, p.String())
		}
		w.field(key, strings.Join(list, ", "))
	}
}

// field refuses what would not be read back as the value of this key alone.
func (w *writer) field(key string, value any) {
	text := fmt.Sprint(value)
	if text == "" || strings.Trim(text, space) != text || strings.ContainsAny(text, "#\n\x00") {
		w.err = cmp.Or(w.err, fmt.Errorf("%s is empty, or has a line break, a # or space around it", key))
	}
	fmt.Fprintf(w, "%s = %s\n", key, text)
}
