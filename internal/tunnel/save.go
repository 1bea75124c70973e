package tunnel

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"wireguard4netns/conf"
	"wireguard4netns/internal/engine"
	"wireguard4netns/internal/plan"
	"wireguard4netns/internal/savefile"
	"wireguard4netns/internal/uapi"
)

// SaveConfig = true writes the running tunnel back to its file at its end, as
// "wg-quick down" does, but touches only what differs (conf.Save). What is compared
// is what the tunnel was asked for, last by Reload, and what the engine has now:
//
//	keys, AllowedIPs, keepalive    the engine's
//	ListenPort                     the engine's, unless it chose that itself
//	Endpoint that is an address    where the peer was last, as wg(8) shows it
//	Endpoint that is a name        the name, unless somebody set another
//	FwMark                         the file's, which no tunnel heeds
//	all else                       the file's
//
// A file that was edited meanwhile is left alone: what would have been saved is
// written beside it.

const (
	saveTimeout = 5 * time.Second
	besideExt   = ".saved"
)

// save is the undo of a start with SaveConfig. That it cannot be done is said, and
// keeps no tunnel from its end.
func (t *Tunnel) save(say func(string)) {
	asked, _, err := conf.Parse(bytes.NewReader(t.request.Conf), t.request.ConfName)
	if err != nil || !asked.Interface.SaveConfig {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
	defer cancel()
	note, err := t.saveOver(ctx, asked)
	if err != nil {
		note = fmt.Sprintf("warning: %v: what was changed while the tunnel ran is not saved, as SaveConfig asks", err)
	}
	if note != "" {
		t.unsaved = note
		say(note)
	}
}

// Unsaved returns, after Close, what SaveConfig could not do; it may be empty.
func (t *Tunnel) Unsaved() string { return t.unsaved }

// saveOver returns what the user should know.
func (t *Tunnel) saveOver(ctx context.Context, asked *conf.Config) (note string, err error) {
	body, err := t.Engine.Get(ctx)
	if err != nil {
		return "", fmt.Errorf("read the tunnel's state: %w", err)
	}
	defer clear(body)
	d, err := uapi.Parse(bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	running := t.running(asked, d)
	plain, err := conf.Save(t.request.Conf, running)
	if err != nil || bytes.Equal(plain, t.request.Conf) {
		return "", err
	}
	if t.request.ConfPath == "" {
		return "", fmt.Errorf("%s is not a file", t.request.ConfName)
	}
	text, err := os.ReadFile(t.request.ConfPath)
	if err != nil {
		return "", err
	}
	// Comments may have been edited: they stay.
	now, _, parseErr := conf.Parse(bytes.NewReader(text), t.request.ConfName)
	if parseErr != nil {
		return t.saveBeside(plain)
	}
	saved, err := conf.Save(text, running)
	if err != nil {
		return "", err
	}
	if form, err := now.Marshal(); err != nil || !bytes.Equal(form, t.request.Conf) {
		return t.saveBeside(saved)
	}
	if err := savefile.Replace(t.request.ConfPath, text, saved); err != nil {
		return "", err
	}
	t.log.Line("saved to " + t.request.ConfPath)
	return "", nil
}

func (t *Tunnel) saveBeside(text []byte) (note string, err error) {
	beside := t.request.ConfPath + besideExt
	if err := savefile.Write(beside, text); err != nil {
		return "", err
	}
	return fmt.Sprintf("warning: %s was edited while the tunnel ran and stays as it is: what SaveConfig would have made of it is in %s", t.request.ConfPath, beside), nil
}

// running is what was asked for with what the engine has now.
func (t *Tunnel) running(asked *conf.Config, d uapi.Device) *conf.Config {
	c := &conf.Config{Interface: asked.Interface}
	// Engines clamp the key (X25519, RFC 7748, 5), which keeps its meaning.
	if key := conf.NewPrivateKey(d.PrivateKey); key.IsZero() || key.PublicKey() != asked.Interface.PrivateKey.PublicKey() {
		c.Interface.PrivateKey = key
	}
	if asked.Interface.ListenPort != 0 || t.given.get().Port {
		c.Interface.ListenPort = d.ListenPort
	}
	for _, p := range d.Peers {
		peer := conf.Peer{
			PublicKey:           conf.PublicKey(p.PublicKey),
			PresharedKey:        conf.NewPresharedKey(p.PresharedKey),
			AllowedIPs:          p.AllowedIPs,
			PersistentKeepalive: p.PersistentKeepalive,
		}
		i := slices.IndexFunc(asked.Peers, func(a conf.Peer) bool { return a.PublicKey == peer.PublicKey })
		if i >= 0 {
			peer.Name, peer.Endpoint = asked.Peers[i].Name, asked.Peers[i].Endpoint
		}
		peer.Endpoint = t.endpoint(peer, p.Endpoint)
		c.Peers = append(c.Peers, peer)
	}
	// Engines tell their peers in any order; new ones are appended in one.
	slices.SortFunc(c.Peers, func(a, b conf.Peer) int { return strings.Compare(a.PublicKey.String(), b.PublicKey.String()) })
	return c
}

// endpoint decides what stands in the file for a peer that is at now.
func (t *Tunnel) endpoint(p conf.Peer, now netip.AddrPort) conf.Endpoint {
	_, literal := p.Endpoint.AddrPort()
	switch {
	case !now.IsValid(), t.answers(p, now):
		return p.Endpoint
	case !p.Endpoint.IsZero() && !literal && t.given.endpoint(p.PublicKey).IsZero():
		return p.Endpoint // a roamed peer, or another answer, is still behind its name
	}
	return endpointAt(now)
}

func endpointAt(a netip.AddrPort) conf.Endpoint {
	return conf.Endpoint{Host: a.Addr().Unmap().String(), Port: a.Port()}
}

// answers tells whether now is what the file's endpoint stands for.
func (t *Tunnel) answers(p conf.Peer, now netip.AddrPort) bool {
	return slices.ContainsFunc(t.Plan().Peers, func(q plan.Peer) bool {
		return q.PublicKey == p.PublicKey && q.Endpoint == p.Endpoint && resolved(q, now)
	})
}

// resolved tells whether at is one of the addresses that the endpoint of p had in the
// beginning.
func resolved(p plan.Peer, at netip.AddrPort) bool {
	return slices.ContainsFunc(p.Candidates, func(r plan.Route) bool { return sameAddr(r.Addr, at) })
}

func sameAddr(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && a.Addr().Unmap().WithZone("") == b.Addr().Unmap().WithZone("")
}

// Given is what somebody chose through the UAPI socket, and not what came of
// itself: an engine that is told no port chooses one, and peers roam.
type Given struct {
	Port   bool
	Places map[conf.PublicKey]conf.Endpoint // of peers; each is an address
}

// given is a Given that changes.
type given struct {
	mu sync.Mutex
	is Given
}

func (g *given) get() Given {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Given{Port: g.is.Port, Places: maps.Clone(g.is.Places)}
}

// endpoint returns where somebody said that a peer is; zero: nobody did.
func (g *given) endpoint(peer conf.PublicKey) conf.Endpoint {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.is.Places[peer]
}

// forget is told of a peer that the file has a newer endpoint for.
func (g *given) forget(peer conf.PublicKey) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.is.Places, peer)
}

// take notes what the body of a set request gives. The engine took it.
func (g *given) take(body []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.is.Places == nil {
		g.is.Places = map[conf.PublicKey]conf.Endpoint{}
	}
	var peer conf.PublicKey
	for line := range bytes.Lines(body) {
		key, value, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte("="))
		switch string(key) {
		case "listen_port":
			g.is.Port = string(value) != "0"
		case "replace_peers":
			clear(g.is.Places)
		case "public_key":
			hex.Decode(peer[:], value)
		case "remove":
			delete(g.is.Places, peer)
		case "endpoint":
			if at, err := netip.ParseAddrPort(string(value)); err == nil {
				g.is.Places[peer] = endpointAt(at)
			}
		}
	}
}

// noted is the engine as the UAPI socket serves it.
type noted struct {
	*engine.Engine
	given *given
}

// Set implements uapi.Engine.
func (n noted) Set(ctx context.Context, body []byte) error {
	err := n.Engine.Set(ctx, body)
	if err == nil {
		n.given.take(body)
	}
	return err
}
