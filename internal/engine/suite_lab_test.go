package engine

import (
	"crypto/ecdh"
	"crypto/rand"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/engine/enginetest"
	"wireguard4netns/internal/nstest"
	"wireguard4netns/internal/sandbox"
	"wireguard4netns/internal/uapi"
)

// The suite that every engine passes (suite_*_test.go), against three kinds of
// other end:
//
//	site ── engine ──────────────── party              by hand: one message at a time (guest)
//	site ── engine ── relay ─────── engine ── site     (pairing)
//	site ── engine ── veth ──────── engine ── site     each in its own machine (outpost)
//
// A site is a machine with wg0; its engine is on the loopback of the test. What
// passes inside is in suite_traffic_test.go.

var loopback = netip.MustParseAddr("127.0.0.1")

// waiting is how long what must happen may take.
const waiting = 20 * time.Second

func waitFor(t testing.TB, cond func() error) {
	t.Helper()
	nstest.Eventually(t, waiting, cond)
}

// eachEngine runs a test on every engine.
func eachEngine(t *testing.T, test func(t *testing.T, engine string)) {
	t.Parallel()
	tests := make(map[string]func(*testing.T))
	for _, name := range Names {
		tests[name] = func(t *testing.T) { test(t, name) }
	}
	atOnce(t, tests)
}

// eachPair runs a test on two engines that speak to each other: each with its
// like, of which one has many threads, and the two with each other.
func eachPair(t *testing.T, test func(t *testing.T, one, other string)) {
	t.Parallel()
	tests := make(map[string]func(*testing.T))
	for _, pair := range [][2]string{{Native, manyThreads}, {Native, WireGuardGo}, {WireGuardGo, WireGuardGo}} {
		tests[pair[0]+","+pair[1]] = func(t *testing.T) { test(t, pair[0], pair[1]) }
	}
	atOnce(t, tests)
}

// atOnce runs tests that mostly wait side by side, also where there are no
// processors for so many (-test.parallel).
func atOnce(t *testing.T, tests map[string]func(*testing.T)) {
	var all sync.WaitGroup
	for name, test := range tests {
		all.Go(func() { t.Run(name, test) })
	}
	all.Wait()
}

// openSite opens an engine without configuration for a new machine, whose link has
// the MTU, or the most that there is. From that of IPv6 on it has an address of that,
// too. What is behind the engine's name and a plus says which of tunings it has, or
// which of lacks.
func openSite(t testing.TB, engine, addr string, mtu int) *site {
	t.Helper()
	s := &site{host: nstest.NewHost(t), addr: netip.MustParseAddr(addr), key: openKey(t)}
	name, special, _ := strings.Cut(engine, "+")
	var without []int
	if special == noVnet {
		without = append(without, unix.IFF_VNET_HDR)
	}
	tun := openTUN(t, s.host, "wg0", without...)
	configureLink(t, s, min(mtu, MaxMTU))
	var err error
	if s.engine, err = Open(t.Context(), Config{
		IfName: "wg0+" + special, MTU: mtu, TUN: tun, Engine: name, Sandbox: sandbox.Auto, Log: s.keepLine, Verbose: true,
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if n := s.engine.Restarts(); n != s.kills {
			t.Errorf("%s died %d times, of which the test knows %d", engine, n, s.kills)
		}
		s.engine.Close()
		if strings.Contains(s.log(), "DATA RACE") { // of an engine built with -race
			t.Errorf("%s has a race:\n%s", engine, s.log())
		}
		if t.Failed() {
			log := s.log()
			t.Logf("the end of the log of %v:\n%s", s.addr, log[max(0, len(log)-4000):])
		}
	})
	return s
}

func configureLink(t testing.TB, s *site, mtu int) {
	t.Helper()
	script := fmt.Sprintf("ip addr add %v/16 dev wg0; ip link set wg0 addrgenmode none; ip link set wg0 mtu %d up", s.addr, mtu)
	if mtu >= 1280 {
		script += fmt.Sprintf("; ip addr add %v/64 dev wg0 nodad", addr6(s.addr))
	}
	s.host.Run(t, "sh", "-ec", script)
}

func openKey(t testing.TB) *ecdh.PrivateKey {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// addr6 is the IPv6 address beside an IPv4 one.
func addr6(a netip.Addr) netip.Addr {
	b, four := netip.MustParseAddr("fd09::").As16(), a.As4()
	copy(b[12:], four[:])
	return netip.AddrFrom16(b)
}

func prefixesOf(a netip.Addr) []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(a, 32), netip.PrefixFrom(addr6(a), 128)}
}

// peer is how others see s.
func (s *site) peer(endpoint netip.AddrPort) uapi.PeerUpdate {
	p := s.asPeer(endpoint)
	p.AllowedIPs = prefixesOf(s.addr)
	return p
}

// up gives the site's engine its key and a port, and returns where it is.
func (s *site) up(t testing.TB) netip.AddrPort {
	t.Helper()
	s.set(t, uapi.Update{PrivateKey: new(s.privateKey()), ListenPort: new(uint16(0))})
	return netip.AddrPortFrom(loopback, s.device(t).ListenPort)
}

// only is the site's one peer.
func (s *site) only(t testing.TB) uapi.Peer {
	t.Helper()
	d := s.device(t)
	if len(d.Peers) != 1 {
		t.Fatalf("%d peers, want 1", len(d.Peers))
	}
	return d.Peers[0]
}

// A pairing is two sites with a wire between them.
type pairing struct {
	a, b  *site
	relay *enginetest.Relay
}

// newPairing opens two sites whose engines speak over a relay; a finds b.
func newPairing(t testing.TB, one, other string, mtu int) *pairing {
	t.Helper()
	p := &pairing{a: openSite(t, one, "10.9.0.1", mtu), b: openSite(t, other, "10.9.0.2", mtu)}
	_, _ = rand.Read(p.a.psk[:])
	p.b.psk = p.a.psk
	p.a.up(t)
	var err error
	if p.relay, err = enginetest.NewRelay(p.b.up(t), enginetest.Wire{}, enginetest.Wire{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.relay.Close)
	p.b.set(t, uapi.Update{Peers: []uapi.PeerUpdate{p.a.peer(netip.AddrPort{})}})
	p.a.set(t, uapi.Update{Peers: []uapi.PeerUpdate{p.b.peer(p.relay.Near())}})
	return p
}
