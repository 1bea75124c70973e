// Package metrics tells Prometheus how a tunnel is, in its text format over HTTP.
//
// The text is written here and not by prometheus/client_golang: linked in, that
// makes each process of a tunnel start slower, whether metrics are on or not, and
// opens a file in each before main, which the engine may not. Tests read the text
// with Prometheus' own parser and linter.
package metrics

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// ContentType is that of the text.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Tunnel is what is told of one. It has no keys but the public ones of peers.
type Tunnel struct {
	Name, Interface string
	Began           time.Time
	MTU             int
	EngineRestarts  int

	// Up says that the engine answered; without, there are no peers.
	Up    bool
	Peers []Peer

	// How lookups of endpoints' names ended since the tunnel began.
	Resolved, Unresolved uint64
}

// Peer is what is told of one.
type Peer struct {
	Name             string // may be empty, and need not be unique
	PublicKey        string
	LastHandshake    time.Time // zero: never
	RxBytes, TxBytes uint64    // since the engine started
}

// A sample is one line: the value, and the label by which it differs from others.
type sample struct {
	labels string // between braces; may be empty
	value  string
}

// WriteTo writes the text.
func (t Tunnel) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	family := func(name, kind, help string, samples ...sample) {
		if len(samples) == 0 {
			return
		}
		name = "wireguard4netns_" + name
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
		for _, s := range samples {
			if s.labels != "" {
				s.labels = "{" + s.labels + "}"
			}
			fmt.Fprintf(&b, "%s%s %s\n", name, s.labels, s.value)
		}
	}
	family("info", "gauge", "The tunnel that is told of.", sample{label("tunnel", t.Name) + "," + label("interface", t.Interface), "1"})
	family("up", "gauge", "Whether the engine runs and answers.", sample{"", count(btoi(t.Up))})
	family("start_time_seconds", "gauge", "When the tunnel was made, in seconds since 1970.", sample{"", seconds(t.Began)})
	family("link_mtu_bytes", "gauge", "The MTU of the link inside.", sample{"", count(uint64(t.MTU))})
	family("engine_restarts_total", "counter", "Engines that took over from one that died.", sample{"", count(uint64(t.EngineRestarts))})
	family("endpoint_resolutions_total", "counter", "Lookups of endpoints' names after the start, by how they ended.",
		sample{label("result", "answered"), count(t.Resolved)}, sample{label("result", "failed"), count(t.Unresolved)})

	var handshakes, received, sent []sample
	for i, peer := range t.labels() {
		p := t.Peers[i]
		handshakes = append(handshakes, sample{peer, seconds(p.LastHandshake)})
		received = append(received, sample{peer, count(p.RxBytes)})
		sent = append(sent, sample{peer, count(p.TxBytes)})
	}
	family("peer_last_handshake_timestamp_seconds", "gauge", "When the last handshake with the peer was, in seconds since 1970; 0: never.", handshakes...)
	family("peer_receive_bytes_total", "counter", "Bytes received from the peer, with what WireGuard adds.", received...)
	family("peer_transmit_bytes_total", "counter", "Bytes sent to the peer, with what WireGuard adds.", sent...)

	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// labels returns those of the peers: the name where it is there and unique, else
// the public key.
func (t Tunnel) labels() []string {
	named := map[string]int{}
	for _, p := range t.Peers {
		named[p.Name]++
	}
	list := make([]string, len(t.Peers))
	for i, p := range t.Peers {
		name := p.Name
		if name == "" || named[name] > 1 {
			name = p.PublicKey
		}
		list[i] = label("peer", name)
	}
	return list
}

var escapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func label(name, value string) string {
	return name + `="` + escapes.Replace(strings.ToValidUTF8(value, "�")) + `"`
}

func count(n uint64) string { return strconv.FormatUint(n, 10) }

func seconds(t time.Time) string {
	if t.IsZero() {
		return "0"
	}
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', -1, 64)
}

func btoi(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
