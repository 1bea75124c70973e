package tunnel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"wireguard4netns/conf"
	"wireguard4netns/internal/ns/inside"
	"wireguard4netns/internal/plan"
	"wireguard4netns/internal/uapi"
	"wireguard4netns/internal/wg"
)

// Reload makes the tunnel what the text of a file says, with the options it was
// started with, and touches only what differs: sessions of peers that stay, and
// connections over addresses that stay, live on. say gets a line for each thing
// that the user should know, among them what cannot change while the tunnel runs.
// After an error a part may be done; the next Reload does the rest.
func (t *Tunnel) Reload(ctx context.Context, text []byte, name string, say func(string)) error {
	config, _, err := conf.Parse(bytes.NewReader(text), name)
	if err != nil {
		return err
	}
	facts, err := t.request.look(ctx, config, say)
	if err != nil {
		return err
	}
	p, err := plan.New(config, t.request.Options, facts)
	if errors.Is(err, plan.ErrNoAddress) {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err != nil {
		return err
	}
	for _, warning := range p.Warnings {
		say(warning)
	}
	for _, fixed := range t.adapt(p) {
		say("not changed while the tunnel runs: " + fixed)
	}
	if err := errors.Join(t.changePeers(ctx, p), t.changeLink(p), t.changeNames(p)); err != nil {
		return err
	}
	t.request.Conf, t.request.ConfName = text, name
	t.plan.Store(p)
	if err := t.rewriteState(); err != nil {
		return err
	}
	select {
	case t.reloaded <- struct{}{}:
	default:
	}
	t.log.Line("reloaded " + name)
	return nil
}

// ConfPath returns where the tunnel's file is; it may be empty.
func (t *Tunnel) ConfPath() string { return t.request.ConfPath }

// adapt takes back what p has and a running tunnel cannot have, and names it.
func (t *Tunnel) adapt(p *plan.Plan) (fixed []string) {
	old := t.Plan()
	if !old.Hooks.Equal(p.Hooks) {
		p.Hooks = old.Hooks
		fixed = append(fixed, "PreUp, PostUp, PreDown and PostDown")
	}
	if p.Lower(t.engineMTU) {
		fixed = append(fixed, fmt.Sprintf("MTU, which can be at most the %d it began with", t.engineMTU))
	}
	if old.Device.ListenPort != nil && *old.Device.ListenPort != 0 && *p.Device.ListenPort == 0 {
		fixed = append(fixed, fmt.Sprintf("ListenPort, which stays %d", *old.Device.ListenPort))
	}
	return fixed
}

// changePeers tells the engine of keys, port and peers. A peer whose Endpoint the
// file has as before stays where it is: it may have roamed, or been set elsewhere.
func (t *Tunnel) changePeers(ctx context.Context, p *plan.Plan) error {
	body, err := t.Engine.Get(ctx)
	if err != nil {
		return err
	}
	defer clear(body)
	have, err := uapi.Parse(bytes.NewReader(body))
	if err != nil {
		return err
	}
	want := p.Device
	want.Peers = slices.Clone(want.Peers)
	for i, peer := range p.Peers {
		there := slices.ContainsFunc(have.Peers, func(h uapi.Peer) bool {
			return h.PublicKey == uapi.PublicKey(peer.PublicKey) && h.Endpoint.IsValid()
		})
		same := slices.ContainsFunc(t.Plan().Peers, func(o plan.Peer) bool {
			return o.PublicKey == peer.PublicKey && o.Endpoint.String() == peer.Endpoint.String()
		})
		if there && same {
			want.Peers[i].Endpoint = netip.AddrPort{}
		} else {
			t.given.forget(peer.PublicKey)
		}
	}
	change := wg.Sync(have, want)
	if change.PrivateKey == nil && change.ListenPort == nil && len(change.Peers) == 0 {
		return nil
	}
	if err := t.Engine.Set(ctx, change.Body()); err != nil {
		return configureError(p, err)
	}
	return nil
}

func (t *Tunnel) changeLink(p *plan.Plan) error {
	t.changing.Lock()
	defer t.changing.Unlock()
	old := t.Plan().Link
	old.MTU, _ = t.MTU()
	if err := t.links.Change(old, p.Link); err != nil {
		return err
	}
	t.mtu.Store(nil) // the watcher looks at the routes anew
	return nil
}

// changeNames gives apps, also those that run, another resolv.conf. The masks are
// those of the start: they do not depend on the file.
func (t *Tunnel) changeNames(p *plan.Plan) error {
	if t.NS.Etc == nil || p.Inside == nil {
		return nil
	}
	changed := map[string][]byte{}
	for name, content := range p.Inside.Etc {
		if !bytes.Equal(content, t.Plan().Inside.Etc[name]) {
			changed[name] = content
		}
	}
	return inside.Rewrite(t.NS.Etc, changed)
}
