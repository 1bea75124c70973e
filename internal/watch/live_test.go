package watch

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/conf"
	"wireguard4netns/internal/engine"
	"wireguard4netns/internal/nstest"
	"wireguard4netns/internal/plan"
	"wireguard4netns/internal/sandbox"
	"wireguard4netns/internal/uapi"

	"os/exec"
)

// Here a watcher with a clock of the test's keeps a real engine in reach of a real
// peer, in a machine of the test's:
//
//	test ── machine.Command ──▶ live: Run, engine      peer
//	                             UDP eth0 ── veth ── eth0 UDP
//	        ping ──────────────▶ wg0 ══════════════ wg0

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == engine.Argv0 {
		os.Exit(engine.Main(os.Args[1:], os.Stderr))
	}
	nstest.Main(m)
}

// liveIn is what a process of a test is to do: to watch until the peer has answered at
// Until.
type liveIn struct {
	PrivateKey, PeerKey []byte
	Endpoint            netip.AddrPort
	Configured          conf.Endpoint // zero: vpn.example
	Engine              string
	Until               netip.AddrPort
	Suspend             bool // when Ready is there
	Ready               string
}

// liveOut is what came of it.
type liveOut struct {
	Log  []string
	Took time.Duration // from the suspend's end
}

var live = nstest.NewFunc("live", func(in liveIn) (out liveOut, err error) {
	ctx, end := context.WithTimeout(context.Background(), 40*time.Second)
	var running sync.WaitGroup
	defer running.Wait()
	defer end()
	e, err := engine.Open(ctx, engine.Config{IfName: "wg0", MTU: 1420, TUN: os.NewFile(3, "tun"), Engine: in.Engine, Sandbox: sandbox.None})
	if err != nil {
		return out, err
	}
	defer e.Close()
	private := uapi.Secret(in.PrivateKey)
	if err := e.Set(ctx, uapi.Update{PrivateKey: &private, Peers: []uapi.PeerUpdate{{
		PublicKey: uapi.PublicKey(in.PeerKey), Endpoint: in.Endpoint,
		AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.77.0.1/32")},
	}}}.Body()); err != nil {
		return out, err
	}
	var mu sync.Mutex
	var slept time.Duration
	jumps, looked := make(chan struct{}, 1), make(chan uapi.Peer, 100)
	running.Go(func() {
		Run(ctx, Config{
			Engine: e, Endpoint: func(uapi.PublicKey) conf.Endpoint { return in.Configured }, Routes: func([]plan.Route) {},
			Looked: func(_ time.Time, peers []uapi.Peer) { looked <- peers[0] },
			Log:    func(line string) { mu.Lock(); out.Log = append(out.Log, line); mu.Unlock() },
			seams: seams{
				patience: patience{stale: 3 * time.Second, unanswered: time.Second, over: 3 * time.Second, away: time.Second, turn: time.Second},
				slept:    func() time.Duration { mu.Lock(); defer mu.Unlock(); return slept },
				jumps:    jumps,
			},
		})
	})
	// A handshake since then ends it: since the machine woke, or the first endpoint
	// was left, which is not the answer.
	var since time.Time
	for {
		select {
		case <-ctx.Done():
			return out, fmt.Errorf("no answer from %s: %s", in.Until, strings.Join(out.Log, "; "))
		case <-looked:
		case <-time.After(20 * time.Millisecond):
		}
		if _, err := os.Stat(in.Ready); in.Suspend && since.IsZero() && err == nil {
			mu.Lock()
			slept, since = slept+time.Hour, time.Now()
			mu.Unlock()
			jumps <- struct{}{}
		}
		p, err := peerOf(ctx, e)
		if err != nil {
			return out, err
		}
		if !in.Suspend && since.IsZero() && p.Endpoint != in.Endpoint {
			since = time.Now()
		}
		if !since.IsZero() && p.Endpoint == in.Until && p.LastHandshake.After(since) {
			out.Took = time.Since(since)
			end()
			running.Wait()
			return out, nil
		}
	}
})

func peerOf(ctx context.Context, e *engine.Engine) (uapi.Peer, error) {
	body, err := e.Get(ctx)
	if err != nil {
		return uapi.Peer{}, err
	}
	d, err := uapi.Parse(bytes.NewReader(body))
	if err != nil || len(d.Peers) == 0 {
		return uapi.Peer{}, errors.Join(err, errors.New("no peer"))
	}
	return d.Peers[0], nil
}

// place is a machine and the Internet beside it, with a peer that answers at all
// addresses there.
type place struct {
	machine, internet *nstest.Host
	peer              *nstest.Peer
	account           nstest.Account
	tun               *os.File
}

func newPlace(t *testing.T) *place {
	t.Helper()
	prefixes := func(list ...string) (out []netip.Prefix) {
		for _, s := range list {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	p := &place{machine: nstest.NewHost(t), internet: nstest.NewHost(t)}
	nstest.Connect(t,
		nstest.End{Host: p.machine, Name: "eth0", Addrs: prefixes("192.0.2.2/24", "2001:db8::2/64")},
		nstest.End{Host: p.internet, Name: "eth0", Addrs: prefixes("192.0.2.1/24", "2001:db8::1/64")})
	p.peer = nstest.StartUpstream(t, p.internet)
	p.account = p.peer.NewAccount(t, netip.MustParseAddr("192.0.2.1"), nstest.AccountOptions{})
	p.machine.PrivateEtc(t)
	p.tun, _ = p.machine.OpenTUN(t, "wg0", unix.IFF_TUN|unix.IFF_NO_PI|unix.IFF_VNET_HDR)
	p.machine.Run(t, "ip", "addr", "add", p.account.Addr4.String()+"/16", "dev", "wg0")
	p.machine.Run(t, "ip", "link", "set", "wg0", "mtu", "1420", "up")
	nstest.Start(t, p.machine.Command("ping", "-q", "-i", "0.2", p.peer.Addr4.String()))
	return p
}

// names tells the machine where vpn.example is.
func (p *place) names(t *testing.T, addrs ...string) {
	t.Helper()
	var hosts strings.Builder
	for _, a := range addrs {
		fmt.Fprintln(&hosts, a, "vpn.example")
	}
	p.machine.WriteFile(t, "/etc/hosts", hosts.String())
}

// start runs live; what is returned waits for its end.
func (p *place) start(t *testing.T, in liveIn) (wait func() liveOut) {
	t.Helper()
	in.PrivateKey, in.PeerKey = key(t, p.account.PrivateKey), key(t, p.account.PeerKey)
	in.Endpoint = p.account.Endpoint
	if in.Configured.IsZero() {
		in.Configured = conf.Endpoint{Host: "vpn.example", Port: in.Endpoint.Port()}
	}
	var out liveOut
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		out, err = live.Call(func(name string, args ...string) *exec.Cmd {
			cmd := p.machine.Command(name, args...)
			cmd.ExtraFiles = []*os.File{p.tun}
			return cmd
		}, in)
	}()
	t.Cleanup(func() { <-done })
	return func() liveOut {
		t.Helper()
		if <-done; err != nil {
			t.Fatal(err)
		}
		return out
	}
}

func key(t *testing.T, text string) []byte {
	t.Helper()
	k, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// answered waits until the peer has had a handshake.
func (p *place) answered(t *testing.T) {
	t.Helper()
	nstest.Eventually(t, 20*time.Second, func() error {
		if p.peer.LastHandshake(t, p.account).IsZero() {
			return errors.New("no handshake")
		}
		return nil
	})
}

// TestLivePeerMoves: a peer with a session goes silent, and its name has three
// addresses now, of both families. All are tried until one answers.
func TestLivePeerMoves(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.names(t, "192.0.2.1")
	at := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.7"), p.account.Endpoint.Port())
	wait := p.start(t, liveIn{Until: at})
	p.answered(t)
	p.internet.Run(t, "ip", "addr", "del", "192.0.2.1/24", "dev", "eth0")
	p.internet.Run(t, "ip", "addr", "add", "192.0.2.7/24", "dev", "eth0")
	p.names(t, "2001:db8::9", "192.0.2.9", "192.0.2.7")
	var tried []string
	for _, line := range wait().Log {
		if _, to, ok := strings.Cut(line, " to "); ok {
			tried = append(tried, to)
		}
		t.Log(line)
	}
	slices.Sort(tried)
	for _, want := range []string{at.String(), "[2001:db8::9]:51820"} {
		if !slices.Contains(tried, want) {
			t.Errorf("%s was not tried, but %v", want, tried)
		}
	}
}

// TestLiveSuspend: when the machine wakes, the peer is called at once, at the address
// that its name has by then, though the session is young by the clock that stood
// still.
func TestLiveSuspend(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.names(t, "192.0.2.1")
	at := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.7"), p.account.Endpoint.Port())
	wait := p.start(t, liveIn{Until: at, Suspend: true, Ready: "/run/ready"})
	p.answered(t)
	p.internet.Run(t, "ip", "addr", "del", "192.0.2.1/24", "dev", "eth0")
	p.internet.Run(t, "ip", "addr", "add", "192.0.2.7/24", "dev", "eth0")
	p.names(t, "192.0.2.7")
	p.machine.WriteFile(t, "/run/ready", "")
	out := wait()
	t.Logf("a handshake %v after the machine woke: %v", out.Took, out.Log)
	if out.Took > 2*time.Second {
		t.Errorf("a handshake %v after the machine woke", out.Took)
	}
}

// TestLiveBothMove: a peer has roamed away from the address that is configured. Then it
// is there again, and we are elsewhere, so that neither knows the other's place.
func TestLiveBothMove(t *testing.T) {
	t.Parallel()
	for _, engine := range engine.Names {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			at := p.account.Endpoint
			wait := p.start(t, liveIn{Configured: conf.Endpoint{Host: at.Addr().String(), Port: at.Port()}, Engine: engine, Until: at})
			p.answered(t)
			p.internet.Run(t, "ip", "addr", "del", "192.0.2.1/24", "dev", "eth0")
			p.internet.Run(t, "ip", "addr", "add", "192.0.2.7/24", "dev", "eth0")
			p.peer.Run(t, "ping -q -c 1 -w 15 "+p.account.Addr4.String()) // to which we answer

			p.machine.Run(t, "ip", "link", "set", "eth0", "down")
			p.internet.Run(t, "ip", "addr", "del", "192.0.2.7/24", "dev", "eth0")
			p.internet.Run(t, "ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
			p.machine.Run(t, "ip", "addr", "del", "192.0.2.2/24", "dev", "eth0")
			p.machine.Run(t, "ip", "addr", "add", "192.0.2.3/24", "dev", "eth0")
			p.machine.Run(t, "ip", "link", "set", "eth0", "up")
			moved := time.Now()
			out := wait()
			took := time.Since(moved)
			t.Logf("a handshake %v after both had moved: %v", took, out.Log)
			// Silence, a question where it was, and an engine that waits five seconds.
			if took > 15*time.Second {
				t.Errorf("a handshake %v after both had moved", took)
			}
		})
	}
}
