package tunnel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"wireguard4netns/internal/plan"
	"wireguard4netns/internal/uapi"
)

// Errors that a caller can tell apart with errors.Is.
var (
	ErrNoHandshake = errors.New("no handshake")
	ErrPortInUse   = errors.New("the ListenPort is in use")
)

// configureError says what the engine's errno means.
func configureError(p *plan.Plan, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listen on UDP port %d: %w", *p.Device.ListenPort, ErrPortInUse)
	}
	return fmt.Errorf("configure engine: %w", err)
}

const (
	firstLook = 2 * time.Millisecond
	nextLook  = 25 * time.Millisecond

	// WireGuard sends an initiation at once, and another each 5 to 5.3 s: the
	// next of several addresses of a name is there just before that.
	firstAddress = 4500 * time.Millisecond
	nextAddress  = 5 * time.Second
)

// awaitHandshake waits for the first handshake with any peer and calls the peers
// by all their addresses meanwhile.
func (t *Tunnel) awaitHandshake(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := t.Engine.Call(ctx); err != nil {
		return configureError(t.Plan(), err)
	}
	next := time.Now().Add(firstAddress)
	for look, round := firstLook, 1; ; look = nextLook {
		done, err := t.shaken(ctx)
		if done || err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait %s for %s: %w", limit, t.endpoints(), ErrNoHandshake)
		case <-time.After(look):
		}
		if time.Now().After(next) {
			t.tryAddresses(ctx, round)
			next, round = time.Now().Add(nextAddress), round+1
		}
	}
}

// shaken tells whether a handshake was completed.
func (t *Tunnel) shaken(ctx context.Context) (bool, error) {
	body, err := t.Engine.Get(ctx)
	if err != nil {
		return false, err
	}
	d, err := uapi.Parse(bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	for _, p := range d.Peers {
		if !p.LastHandshake.IsZero() {
			return true, nil
		}
	}
	return false, nil
}

// tryAddresses turns to the round-th address of each name and calls there.
func (t *Tunnel) tryAddresses(ctx context.Context, round int) {
	var u uapi.Update
	for _, p := range t.Plan().Peers {
		if n := len(p.Candidates); n > 1 {
			u.Peers = append(u.Peers, uapi.PeerUpdate{
				PublicKey: uapi.PublicKey(p.PublicKey), UpdateOnly: true,
				Endpoint: p.Candidates[round%n].Addr,
			})
		}
	}
	if len(u.Peers) > 0 && t.Engine.Set(ctx, u.Body()) == nil {
		t.Engine.Call(ctx)
	}
}

// endpoints names where the peers were called, for a message.
func (t *Tunnel) endpoints() string {
	var list []string
	for _, p := range t.Plan().Peers {
		if p.Endpoint.IsZero() {
			continue
		}
		name := p.Endpoint.String()
		if _, ok := p.Endpoint.AddrPort(); !ok && len(p.Candidates) > 0 {
			var addrs []string
			for _, c := range p.Candidates {
				addrs = append(addrs, shortAddr(c.Addr))
			}
			name += " (" + strings.Join(addrs, ", ") + ")"
		}
		list = append(list, name)
	}
	if len(list) == 0 {
		return "a peer to call (no Endpoint in the file)"
	}
	return strings.Join(list, ", ")
}

func shortAddr(a netip.AddrPort) string { return a.Addr().String() }
