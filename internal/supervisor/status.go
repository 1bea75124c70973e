package supervisor

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
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
	// "no-handshake" (packets go out and nobody answers), "endpoint-unresolved" (no
	// peer has answered, and a name has no address) or "engine-restarting".
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
	RxRate        *float64       `json:"rxRate"` // bytes a second of late; null: not known
	TxRate        *float64       `json:"txRate"`
	AllowedIPs    []netip.Prefix `json:"allowedIPs"`
}

// statusTime bounds the question to the engine.
const statusTime = 2 * time.Second

// staleHandshake: a session that is in use has a handshake each two minutes, and
// none is used after three (whitepaper, 6.1: Reject-After-Time).
const staleHandshake = 180 * time.Second

// status tells of a tunnel all but Processes.
func status(t *tunnel.Tunnel) *Status {
	p := t.Plan()
	s := &Status{
		Name: t.Dir.Name(), Interface: p.Link.Name, Since: t.Began.Truncate(time.Second),
		SupervisorPID: os.Getpid(), EnginePID: t.Engine.Pid(), EngineRestarts: t.Engine.Restarts(),
		Addresses: p.Link.Addresses, DNS: p.DNS, Search: p.Search,
		File: t.ConfPath(), Directory: t.Dir.Path(), UAPISocket: t.UAPIPath(),
	}
	s.MTU, s.MTUSource = t.MTU()
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
	now := time.Now()
	s.peers(t, d)
	s.rates(t, now)
	s.judge(t.Unresolved(), t.Began, now)
	return s
}

// longestRate is how old the counters may be from which a rate is told: in a longer
// time much can have happened.
const longestRate = 30 * time.Second

func (s *Status) rates(t *tunnel.Tunnel, now time.Time) {
	before, at := t.Before(now)
	if at.IsZero() || now.Sub(at) > longestRate {
		return
	}
	for i := range s.Peers {
		p := &s.Peers[i]
		for _, b := range before {
			if b.PublicKey.String() == p.PublicKey {
				p.RxRate, p.TxRate = rate(b.RxBytes, p.RxBytes, now.Sub(at)), rate(b.TxBytes, p.TxBytes, now.Sub(at))
			}
		}
	}
}

// rate is nil if a counter went back: it is that of another engine.
func rate(before, now uint64, took time.Duration) *float64 {
	if now < before {
		return nil
	}
	r := float64(now-before) / took.Seconds()
	return &r
}

func (s *Status) peers(t *tunnel.Tunnel, d uapi.Device) {
	for _, p := range d.Peers {
		one := PeerStatus{
			PublicKey: p.PublicKey.String(), LastHandshake: t.LastHandshake(p),
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

// judge says in a word how a tunnel with these peers is, which began then and has
// these names without an address.
func (s *Status) judge(unresolved []string, began, now time.Time) {
	var last time.Time
	var sent uint64
	for _, p := range s.Peers {
		sent += p.TxBytes
		if p.LastHandshake.After(last) {
			last = p.LastHandshake
		}
	}
	switch age := now.Sub(last); {
	case last.IsZero() && len(unresolved) > 0:
		s.State, s.Cause = "endpoint-unresolved", "no address is known of "+strings.Join(unresolved, ", ")
	case len(s.Peers) == 0:
		s.State, s.Cause = "idle", "it has no peer"
	case last.IsZero() && sent == 0:
		s.State, s.Cause = "idle", "nothing was to be sent yet"
	case last.IsZero():
		s.State, s.Cause = "no-handshake", fmt.Sprintf("no peer has answered for %s: a wrong key, a wrong endpoint, a firewall that drops UDP, or a clock that was set back", now.Sub(began).Round(time.Second))
	case age > staleHandshake:
		s.State, s.Cause = "up", fmt.Sprintf("quiet: the last handshake was %s ago", age.Round(time.Second))
	default:
		s.State, s.Cause = "up", ""
	}
}
