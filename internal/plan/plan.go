// Package plan decides what will be done for a tunnel before anything is
// touched. It is pure: a configuration, the user's options and the facts of the
// host go in, a Plan comes out, and the same in gives the same out.
package plan

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"wireguard4netns/conf"
	"wireguard4netns/internal/dns"
	"wireguard4netns/internal/link"
	"wireguard4netns/internal/ns/inside"
	"wireguard4netns/internal/uapi"
)

// ErrNoAddress: a file without Address gives an app no network.
var ErrNoAddress = errors.New("no Address in [Interface]: the app would have no network")

// ErrNotServer: of what is given for DNS nothing can be asked.
var ErrNotServer = errors.New("not an IP address, and no other server is given")

// Options is what the user asks beyond the file.
type Options struct {
	IfName string

	// Attach: the namespaces are somebody else's; no mounts are made there.
	Attach bool
	// Configure sets addresses, routes and the link up. Without it (attach)
	// the link has its MTU and nothing more.
	Configure bool

	DNS       []string // servers and search domains in place of the file's; nil: the file's
	HostDNS   bool     // lookups go by the host: nothing of it is masked
	Hooks     bool     // run PreUp, PostUp, PreDown and PostDown
	Expose    []string // paths that stay visible inside
	HideDirs  []string // directories that the app must not see
	HideFiles []string
}

// Host is what was found out about the host, and nothing that can change what
// the file says.
type Host struct {
	UID      int
	Nsswitch []byte // content of /etc/nsswitch.conf

	// Endpoints are the addresses of each endpoint of the file in order of
	// preference, by Endpoint.String().
	Endpoints map[string][]Route
}

// Route is an endpoint's address and the MTU, in bytes, of the host's route to
// it; 0 when there is no route.
type Route struct {
	Addr netip.AddrPort
	MTU  int
}

// Plan is what will be done.
type Plan struct {
	Link      link.Config
	MTUSource string // where Link.MTU came from
	DNS       []netip.Addr
	Search    []string
	Inside    *inside.Config // nil: no namespaces are made
	Masks     []dns.Mask
	Device    uapi.Update
	Peers     []Peer
	Hooks     Hooks
	Warnings  []string

	fixedMTU bool // the file has one
	v6       bool // inside
}

// Peer is how a peer is reached.
type Peer struct {
	PublicKey  conf.PublicKey
	Name       string
	Endpoint   conf.Endpoint
	Candidates []Route // the first is tried first
}

// Title returns the peer's name, or its key.
func (p Peer) Title() string {
	if p.Name != "" {
		return p.Name
	}
	return p.PublicKey.String()
}

// Hooks are shell commands with %i replaced.
type Hooks struct{ PreUp, PostUp, PreDown, PostDown []string }

// Empty tells that there is nothing to run.
func (h Hooks) Empty() bool {
	return len(h.PreUp)+len(h.PostUp)+len(h.PreDown)+len(h.PostDown) == 0
}

// Equal tells that the same would be run.
func (h Hooks) Equal(o Hooks) bool {
	return slices.Equal(h.PreUp, o.PreUp) && slices.Equal(h.PostUp, o.PostUp) &&
		slices.Equal(h.PreDown, o.PreDown) && slices.Equal(h.PostDown, o.PostDown)
}

// New decides.
func New(c *conf.Config, o Options, h Host) (*Plan, error) {
	p := &Plan{Link: link.Config{Name: o.IfName}}
	if o.Configure && len(c.Interface.Addresses) == 0 {
		return nil, ErrNoAddress
	}
	p.peers(c, h)
	p.mtu(c, o)
	if o.Configure {
		p.network(c)
	}
	if !o.Attach {
		if err := p.names(c, o, h); err != nil {
			return nil, err
		}
	}
	p.device(c)
	p.hooks(c, o)
	if c.Interface.FwMark != 0 {
		p.warn("FwMark is ignored: marking packets needs CAP_NET_ADMIN outside, and the tunnel does not need it")
	}
	return p, nil
}

func (p *Plan) warn(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

func (p *Plan) peers(c *conf.Config, h Host) {
	for _, peer := range c.Peers {
		found := h.Endpoints[peer.Endpoint.String()]
		// An address that the host has a route to comes before one it has not.
		slices.SortStableFunc(found, func(a, b Route) int {
			return boolInt(a.MTU == 0) - boolInt(b.MTU == 0)
		})
		p.Peers = append(p.Peers, Peer{PublicKey: peer.PublicKey, Name: peer.Name, Endpoint: peer.Endpoint, Candidates: found})
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// network decides addresses and routes. A family without an address gets no
// route: "network is unreachable" at once, and not a black hole.
func (p *Plan) network(c *conf.Config) {
	p.Link.Addresses = c.Interface.Addresses
	p.Link.Up, p.Link.Loopback = true, true
	v4, v6 := families(c.Interface.Addresses)
	if c.Interface.Table == conf.TableOff {
		return
	}
	p.Link.Table = int(c.Interface.Table)
	left := map[string]bool{}
	for _, peer := range c.Peers {
		for _, r := range peer.AllowedIPs {
			switch is4 := r.Addr().Is4(); {
			case is4 && !v4:
				left["IPv4"] = true
			case !is4 && !v6:
				left["IPv6"] = true
			case !slices.Contains(p.Link.Routes, r):
				p.Link.Routes = append(p.Link.Routes, r)
			}
		}
	}
	for _, family := range []string{"IPv4", "IPv6"} {
		if left[family] {
			p.warn("AllowedIPs has %s but Address has not: %s is unreachable inside", family, family)
		}
	}
}

func families(addresses []netip.Prefix) (v4, v6 bool) {
	for _, a := range addresses {
		if a.Addr().Is4() {
			v4 = true
		} else {
			v6 = true
		}
	}
	return v4, v6
}

// device decides what the engine is told. It holds the keys.
func (p *Plan) device(c *conf.Config) {
	private := secret(c.Interface.PrivateKey.Bytes())
	port := c.Interface.ListenPort
	p.Device = uapi.Update{PrivateKey: &private, ListenPort: &port, ReplacePeers: true}
	for i, peer := range c.Peers {
		u := uapi.PeerUpdate{
			PublicKey:         uapi.PublicKey(peer.PublicKey),
			ReplaceAllowedIPs: true,
			AllowedIPs:        peer.AllowedIPs,
		}
		if !peer.PresharedKey.IsZero() {
			psk := secret(peer.PresharedKey.Bytes())
			u.PresharedKey = &psk
		}
		if keepalive := peer.PersistentKeepalive; keepalive != 0 {
			u.PersistentKeepalive = new(time.Duration)
			*u.PersistentKeepalive = keepalive
		}
		if found := p.Peers[i].Candidates; len(found) > 0 {
			u.Endpoint = found[0].Addr
		}
		p.Device.Peers = append(p.Device.Peers, u)
	}
}

func secret(b []byte) (s uapi.Secret) {
	copy(s[:], b)
	return s
}

func (p *Plan) hooks(c *conf.Config, o Options) {
	i := c.Interface.Expand(o.IfName)
	h := Hooks{i.PreUp, i.PostUp, i.PreDown, i.PostDown}
	switch {
	case h.Empty():
	case !o.Hooks:
		p.warn("PreUp, PostUp, PreDown and PostDown are not run; --hooks runs them inside")
	default:
		p.Hooks = h
	}
}
