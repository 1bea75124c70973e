package engine

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/nstest"
	"wireguard4netns/internal/sandbox"
	"wireguard4netns/internal/uapi"
)

// tested is the engine that the tests of this package are about.
var tested = flag.String("engine", "", "the engine to test: wireguard-go or native")

func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case Argv0:
		if err := takeAway(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(mainTuned(os.Args[1:], os.Stderr, tuningOf(os.Args[1:])))
	case orphanArgv0:
		orphan()
	}
	if len(os.Args) > 1 {
		runRole(os.Args[1:])
	}
	nstest.Main(m)
}

// site is one end of a tunnel in these tests: a machine whose wg0 is a TUN
// device of ours, and an engine outside of it, over the loopback of the test's
// own network namespace.
type site struct {
	host   *nstest.Host
	engine *Engine
	addr   netip.Addr
	key    *ecdh.PrivateKey
	psk    uapi.Secret
	kills  int // deaths of the engine's process that the suite has seen to

	mu    sync.Mutex
	lines []string
}

// keepLine is the site's Config.Log.
func (s *site) keepLine(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, line)
}

func (s *site) log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines, "\n")
}

func openTUN(t testing.TB, h *nstest.Host, name string, without ...int) *os.File {
	t.Helper()
	flags := unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR
	for _, flag := range without {
		flags &^= flag
	}
	tun, _ := h.OpenTUN(t, name, uint16(flags))
	return tun
}

const testMTU = 1420

// newSite opens an engine without configuration for a new machine with the
// given address.
func newSite(t testing.TB, addr string, level sandbox.Level) *site {
	t.Helper()
	s := &site{host: nstest.NewHost(t), addr: netip.MustParseAddr(addr), key: openKey(t)}
	tun := openTUN(t, s.host, "wg0")
	s.host.Run(t, "ip", "addr", "add", addr+"/24", "dev", "wg0")
	s.host.Run(t, "ip", "link", "set", "wg0", "mtu", strconv.Itoa(testMTU), "up")
	engine, err := Open(t.Context(), Config{
		IfName: "wg0", MTU: testMTU, TUN: tun, Engine: *tested, Sandbox: level, Log: s.keepLine,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.engine = engine
	t.Cleanup(func() {
		s.engine.Close()
		if t.Failed() {
			t.Logf("log of %v:\n%s", s.addr, s.log())
		}
	})
	return s
}

func (s *site) publicKey() uapi.PublicKey { return uapi.PublicKey(s.key.PublicKey().Bytes()) }

// privateKey is the key in the form in which engines keep it (RFC 7748,
// section 5: "clamped").
func (s *site) privateKey() uapi.Secret {
	k := uapi.Secret(s.key.Bytes())
	k[0] &= 248
	k[31] = k[31]&127 | 64
	return k
}

func (s *site) set(t testing.TB, u uapi.Update) {
	t.Helper()
	if err := s.engine.Set(t.Context(), u.Body()); err != nil {
		t.Fatal(err)
	}
}

func (s *site) device(t testing.TB) uapi.Device {
	t.Helper()
	body, err := s.engine.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d, err := uapi.Parse(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// configure gives a and b keys, a preshared one too, and a the endpoint of b.
func configure(t testing.TB, a, b *site) {
	t.Helper()
	var psk uapi.Secret
	_, _ = rand.Read(psk[:])
	a.psk, b.psk = psk, psk
	var free uint16
	b.set(t, uapi.Update{PrivateKey: new(b.privateKey()), ListenPort: &free, ReplacePeers: true,
		Peers: []uapi.PeerUpdate{a.asPeer(netip.AddrPort{})}})
	endpoint := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), b.device(t).ListenPort)
	a.set(t, uapi.Update{PrivateKey: new(a.privateKey()), ReplacePeers: true,
		Peers: []uapi.PeerUpdate{b.asPeer(endpoint)}})
}

// asPeer is how the other end sees s.
func (s *site) asPeer(endpoint netip.AddrPort) uapi.PeerUpdate {
	return uapi.PeerUpdate{
		PublicKey: s.publicKey(), PresharedKey: &s.psk, Endpoint: endpoint,
		ReplaceAllowedIPs: true, AllowedIPs: []netip.Prefix{netip.PrefixFrom(s.addr, s.addr.BitLen())},
	}
}

func newPair(t testing.TB, level sandbox.Level) (a, b *site) {
	t.Helper()
	a, b = newSite(t, "10.9.0.1", level), newSite(t, "10.9.0.2", level)
	configure(t, a, b)
	return a, b
}

// ping waits until a packet of a's machine to b's is answered.
func ping(t testing.TB, a, b *site) {
	t.Helper()
	nstest.Eventually(t, 10*time.Second, func() error {
		out, err := a.host.Command("ping", "-nqc1", "-W1", b.addr.String()).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ping: %w\n%s", err, out)
		}
		return nil
	})
}
