package supervisor

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	"wireguard4netns/internal/tunnel"
	"wireguard4netns/internal/uapi"
)

// Status is how a tunnel is. Its JSON is what status --json prints: names and
// meanings stay, there may be more of them.
type Status struct {
	Name      string `json:"name"`
	Interface string `json:"interface"`

	// State is "up", "idle" (no handshake yet, and nothing was to be sent),
	// "no-handshake" (packets go out and nobody answers) or "engine-restarting".
	State string `json:"state"`
	Cause string `json:"cause"` // in words; may be empty

	Since          time.Time      `json:"since"`
	SupervisorPID  int            `json:"supervisorPid"`
	EnginePID      int            `json:"enginePid"` // 0: none at the moment
	EngineRestarts int            `json:"engineRestarts"`
	MTU            int            `json:"mtu"`
	MTUSource      string         `json:"mtuSource"`
	Addresses      []netip.Prefix `json:"addresses"`
	DNS            []netip.Addr   `json:"dns"`
	Search         []string       `json:"search"`
	Peers          []PeerStatus   `json:"peers"`
	Processes      []int          `json:"processes"` // inside
	File           string         `json:"file"`      // which reload reads; may be empty
	Directory      string         `json:"directory"`
	UAPISocket     string         `json:"uapiSocket"`
}

// PeerStatus is how one peer is.
type PeerStatus struct {
	Name          string         `json:"name"` // may be empty
	PublicKey     string         `json:"publicKey"`
	Endpoint      string         `json:"endpoint"`      // where it was last seen; may be empty
	Configured    string         `json:"configured"`    // the endpoint in the file; may be empty
	LastHandshake time.Time      `json:"lastHandshake"` // zero: never
	RxBytes       uint64         `json:"rxBytes"`
	TxBytes       uint64         `json:"txBytes"`
	AllowedIPs    []netip.Prefix `json:"allowedIPs"`
}

// statusTime bounds the question to the engine.
const statusTime = 2 * time.Second

// staleHandshake: a session that is in use has a handshake each two minutes, and
// none is used after three (whitepaper, 6.1: Reject-After-Time).
const staleHandshake = 180 * time.Second

func status(t *tunnel.Tunnel) *Status {
	p := t.Plan()
	s := &Status{
		Name: t.Dir.Name(), Interface: p.Link.Name, Since: t.Began.Truncate(time.Second),
		SupervisorPID: os.Getpid(), EnginePID: t.Engine.Pid(), EngineRestarts: t.Engine.Restarts(),
		Addresses: p.Link.Addresses, DNS: p.DNS, Search: p.Search,
		File: t.ConfPath(), Directory: t.Dir.Path(), UAPISocket: t.UAPIPath(),
	}
	s.MTU, s.MTUSource = t.MTU()
	s.Processes, _ = t.NS.Members()
	if s.EnginePID == 0 {
		s.State, s.Cause = "engine-restarting", "the engine ended and another is being started"
		return s
	}
	ctx, cancel := context.WithTimeout(context.Background(), statusTime)
	defer cancel()
	body, err := t.Engine.Get(ctx)
	if err != nil {
		s.State, s.Cause = "engine-restarting", err.Error()
		return s
	}
	d, err := uapi.Parse(bytes.NewReader(body))
	if err != nil {
		s.State, s.Cause = "engine-restarting", err.Error()
		return s
	}
	s.peers(t, d)
	s.State, s.Cause = judge(s.Peers, time.Now())
	return s
}

func (s *Status) peers(t *tunnel.Tunnel, d uapi.Device) {
	for _, p := range d.Peers {
		one := PeerStatus{
			PublicKey: p.PublicKey.String(), LastHandshake: p.LastHandshake,
			RxBytes: p.RxBytes, TxBytes: p.TxBytes, AllowedIPs: p.AllowedIPs,
		}
		if p.Endpoint.IsValid() {
			one.Endpoint = p.Endpoint.String()
		}
		for _, known := range t.Plan().Peers {
			if known.PublicKey.String() == one.PublicKey {
				one.Name, one.Configured = known.Name, known.Endpoint.String()
			}
		}
		s.Peers = append(s.Peers, one)
	}
}

// judge says in a word how a tunnel with these peers is.
func judge(peers []PeerStatus, now time.Time) (state, cause string) {
	var last time.Time
	var sent uint64
	for _, p := range peers {
		sent += p.TxBytes
		if p.LastHandshake.After(last) {
			last = p.LastHandshake
		}
	}
	switch age := now.Sub(last); {
	case len(peers) == 0:
		return "idle", "the file has no peer"
	case last.IsZero() && sent == 0:
		return "idle", "nothing was to be sent yet"
	case last.IsZero():
		return "no-handshake", "no peer has answered: a wrong key, a wrong endpoint, or a firewall that drops UDP"
	case age > staleHandshake:
		return "up", fmt.Sprintf("quiet: the last handshake was %s ago", age.Round(time.Second))
	}
	return "up", ""
}
