package engine

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"wireguard4netns/internal/engine/enginetest"
	"wireguard4netns/internal/nstest"
	"wireguard4netns/internal/uapi"
)

// Two engines, and a wire between them.

// TCP passes over any wire, whole, and no packet is delivered twice.
func TestSuiteImpairedWire(t *testing.T) {
	wires := []struct {
		name string
		wire enginetest.Wire
	}{
		{"loss", enginetest.Wire{Lose: 0.05}},
		{"reordering", enginetest.Wire{Reorder: 0.05}},
		{"duplication", enginetest.Wire{Duplicate: 0.05}},
		{"corruption", enginetest.Wire{Corrupt: 0.01}},
		{"delay", enginetest.Wire{Delay: 10 * time.Millisecond}},
		{"all", enginetest.Wire{Lose: 0.01, Reorder: 0.02, Duplicate: 0.02, Corrupt: 0.005, Delay: 2 * time.Millisecond}},
	}
	eachPair(t, func(t *testing.T, one, other string) {
		p := newPairing(t, one, other, testMTU)
		ping(t, p.a, p.b)
		gathered := gather(t, p.b)
		last := uint32(0)
		for i, w := range wires {
			before, harmedBefore := p.relay.Seen()
			there, back := w.wire, w.wire
			there.Seed, back.Seed = uint64(i), uint64(i+100)
			p.relay.Change(there, back)
			carry(t, p.a, p.b, p.b.addr, 1<<20)
			carry(t, p.b, p.a, addr6(p.a.addr), 512<<10)
			scatter(t, p.a, netip.AddrPortFrom(p.b.addr, gathered.port),
				burst{First: last + 1, Last: last + 500, Size: 300, PauseEvery: 10, Pause: time.Millisecond})
			last += 500
			p.relay.Change(enginetest.Wire{}, enginetest.Wire{})
			nstest.Eventually(t, waiting, func() error { // a barrier, which may be lost, too
				last++
				scatter(t, p.a, netip.AddrPortFrom(p.b.addr, gathered.port), burst{First: last, Last: last, Size: 300})
				if now := gathered.tally(t); now.Highest < last {
					return fmt.Errorf("%+v, want %d", now, last)
				}
				return nil
			})
			now := gathered.tally(t)
			all, harmed := p.relay.Seen()
			if all, harmed = all-before, harmed-harmedBefore; w.wire.Delay == 0 && harmed < all/200 {
				t.Errorf("%s: only %d of %d datagrams harmed", w.name, harmed, all)
			}
			if now.Corrupt != 0 || now.Duplicates != 0 || now.Received < int(last)*8/10 {
				t.Errorf("%s: %+v", w.name, now)
			}
		}
	})
}

// What happens to the ends while a flow goes over them: it goes on.
func TestSuiteFlowGoesOn(t *testing.T) {
	eachPair(t, func(t *testing.T, one, other string) {
		p := newPairing(t, one, other, testMTU)
		ping(t, p.a, p.b)
		there := startFlow(t, p.a, p.b, p.b.addr, 4<<20)
		back := startFlow(t, p.b, p.a, addr6(p.a.addr), 4<<20)
		both := func() {
			t.Helper()
			there.pass(t, 200<<10)
			back.pass(t, 200<<10)
		}
		both()

		// a is seen at another address and port; b answers there.
		for _, at := range []string{"127.0.0.2", "127.0.0.3"} {
			if err := p.relay.Move(netip.MustParseAddr(at)); err != nil {
				t.Fatal(err)
			}
			both()
			if got, want := p.b.only(t).Endpoint, p.relay.Far(); got != want {
				t.Errorf("endpoint %v, want %v", got, want)
			}
		}
		// a changes its port.
		before := p.a.device(t).ListenPort
		p.a.set(t, uapi.Update{ListenPort: new(nstest.FreePort(t))})
		if got := p.a.device(t).ListenPort; got == before {
			t.Errorf("port %d, want another", got)
		}
		both()
		// All but the addresses of the flow, and back.
		for range 2 {
			replaced := p.a.peer(netip.AddrPort{})
			replaced.AllowedIPs = append(replaced.AllowedIPs, netip.MustParsePrefix("10.50.0.0/16"))
			p.b.set(t, uapi.Update{Peers: []uapi.PeerUpdate{replaced}})
			both()
			p.b.set(t, uapi.Update{Peers: []uapi.PeerUpdate{p.a.peer(netip.AddrPort{})}})
			both()
		}
		// The peer is removed, and is there again at once.
		p.b.set(t, uapi.Update{Peers: []uapi.PeerUpdate{{PublicKey: p.a.publicKey(), Remove: true}}})
		p.b.set(t, uapi.Update{Peers: []uapi.PeerUpdate{p.a.peer(p.relay.Far())}})
		both()
		// Another key; the other end learns of it a moment later.
		p.a.key = openKey(t)
		p.a.set(t, uapi.Update{PrivateKey: new(p.a.privateKey())})
		p.b.set(t, uapi.Update{ReplacePeers: true, Peers: []uapi.PeerUpdate{p.a.peer(p.relay.Far())}})
		both()
		// An engine dies, and its sessions with it.
		for _, s := range []*site{p.b, p.a} {
			s.kills++
			kill(t, s.engine)
			both()
		}
		there.finish(t)
		back.finish(t)
	})
}

// Every MTU there is. UDP of the sizes around each edge, and TCP.
func TestSuiteMTU(t *testing.T) {
	for _, mtu := range []int{576, 1280, testMTU, 9000, 65535} {
		t.Run(strconv.Itoa(mtu), func(t *testing.T) {
			eachPair(t, func(t *testing.T, one, other string) {
				p := newPairing(t, one, other, mtu)
				p.direct(t)
				ping(t, p.a, p.b)
				inner := min(mtu, MaxMTU)
				addrs := []netip.Addr{p.b.addr}
				if mtu >= 1280 {
					addrs = append(addrs, addr6(p.b.addr))
				}
				for i, addr := range addrs {
					want := 0
					header := 28 + 20*i
					g := gather(t, p.b)
					var sizes []uint32
					add := func(from, to int) {
						for n := max(from, numberSize); n <= to; n++ {
							sizes = append(sizes, uint32(n))
						}
					}
					// Below 70: padding, GRO's least. Around the MTU: fragments.
					add(numberSize, 70)
					add(inner-header-20, inner-header+9)
					if mtu < 9000 {
						add(2*inner-header-20, 2*inner-header)
					}
					to := netip.AddrPortFrom(addr, g.port)
					for len(sizes) > 0 {
						n := 1
						for n < len(sizes) && sizes[n] == sizes[n-1]+1 {
							n++
						}
						want += n
						waitFor(t, func() error { // one may be lost for another reason
							scatter(t, p.a, to, burst{First: sizes[0], Last: sizes[n-1], PauseEvery: 8, Pause: time.Millisecond})
							if now := g.tally(t); now.Received < want {
								return fmt.Errorf("sizes %d to %d: %+v, want %d", sizes[0], sizes[n-1], now, want)
							}
							return nil
						})
						sizes = sizes[n:]
					}
					if now := g.tally(t); now.Corrupt > 0 {
						t.Errorf("to %v: %+v", addr, now)
					}
					carry(t, p.a, p.b, addr, 1<<20)
				}
			})
		})
	}
}

// The datagrams are larger than the network can carry: they go in fragments.
func TestSuiteFragmentedOuterPackets(t *testing.T) {
	eachPair(t, func(t *testing.T, one, other string) {
		for _, at := range []string{"192.0.2.2", "2001:db8::2"} {
			// Outposts of their own for each: wireguard-go's first datagrams of
			// another family go astray (its pull request 135).
			a, b := newOutposts(t, one, other, 1300)
			a.reach(t, b, netip.MustParseAddr(at))
			carry(t, a, b, b.addr, 2<<20)
			carry(t, b, a, addr6(a.addr), 2<<20)
			if n := a.fragments(t); n < 100 {
				t.Errorf("to %s: %d fragments were made", at, n)
			}
		}
	})
}

// The way out is far slower than the engine: TCP takes all there is of it, though what
// the socket does not take is lost.
func TestSuiteSlowUplink(t *testing.T) {
	const (
		rate = 20_000_000 / 8 // bytes in a second; nine tenths are of the flow
		size = 4 << 20
	)
	eachEngine(t, func(t *testing.T, engine string) {
		a, b := newOutposts(t, engine, engine, 1500)
		a.outside.Run(t, "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "20mbit", "burst", "32k", "latency", "50ms")
		a.reach(t, b, netip.MustParseAddr("192.0.2.2"))
		f := startFlow(t, a, b, b.addr, 0)
		f.pass(t, size/8)
		began := time.Now()
		f.pass(t, size)
		took := time.Since(began)
		f.finish(t)
		t.Logf("%.2f of the uplink", size/took.Seconds()/rate)
		if took.Seconds() < size/rate/2 || took.Seconds() > 2*size/rate {
			t.Errorf("%d bytes take %v", size, took)
		}
	})
}

// reach makes two outposts, between which is a network, peers that know each other.
func (o *outpost) reach(t testing.TB, other *outpost, at netip.Addr) {
	t.Helper()
	const port = 51820
	other.tell(t, uapi.Update{PrivateKey: new(other.privateKey()), ListenPort: new(uint16(port)), Peers: []uapi.PeerUpdate{o.peer(netip.AddrPort{})}})
	o.tell(t, uapi.Update{PrivateKey: new(o.privateKey()), Peers: []uapi.PeerUpdate{other.peer(netip.AddrPortFrom(at, port))}})
	ping(t, o.site, other.site)
}

// fragments is how many the kernel has made for the engine.
func (o *outpost) fragments(t testing.TB) (n int) {
	t.Helper()
	lines := strings.Split(o.outside.Run(t, "cat", "/proc/net/snmp", "/proc/net/snmp6"), "\n")
	names, values := strings.Fields(lines[0]), strings.Fields(lines[1])
	for i, name := range names {
		if name == "FragCreates" {
			n, _ = strconv.Atoi(values[i])
		}
	}
	for _, line := range lines {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "Ip6FragCreates" {
			v, _ := strconv.Atoi(f[1])
			n += v
		}
	}
	return n
}

// newOutposts makes two machines with a link of an MTU between them, and an engine
// in each.
func newOutposts(t testing.TB, one, other string, mtu int) (a, b *outpost) {
	t.Helper()
	ends := [2]nstest.End{}
	for i := range ends {
		ends[i] = nstest.End{Host: nstest.NewHost(t), Name: "eth0", Addrs: []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("192.0.2.%d/24", i+1)), netip.MustParsePrefix(fmt.Sprintf("2001:db8::%d/64", i+1))}}
	}
	nstest.Connect(t, ends[0], ends[1])
	for _, end := range ends {
		end.Host.Run(t, "ip", "link", "set", "eth0", "mtu", strconv.Itoa(mtu))
	}
	a, b = newOutpost(t, one, "10.9.0.1", ends[0].Host, testMTU), newOutpost(t, other, "10.9.0.2", ends[1].Host, testMTU)
	return a, b
}

// The packets of one flow stay in order, one by one and in bundles, whatever
// passes beside them.
func TestSuiteOrder(t *testing.T) {
	eachPair(t, func(t *testing.T, one, other string) {
		p := newPairing(t, one, other, testMTU)
		p.direct(t)
		ping(t, p.a, p.b)
		beside := startFlow(t, p.a, p.b, p.b.addr, 8<<20)
		for _, addr := range []netip.Addr{p.b.addr, addr6(p.b.addr)} {
			for _, b := range []burst{
				{Size: 100, PauseEvery: 100},
				{Size: 1200, Together: 40, PauseEvery: 40},
			} {
				g := gather(t, p.b)
				b.First, b.Last, b.Pause = 1, 6000, 2*time.Millisecond
				scatter(t, p.a, netip.AddrPortFrom(addr, g.port), b)
				var now tally
				nstest.Eventually(t, waiting, func() error {
					if now = g.tally(t); now.Received < int(b.Last)/10 {
						return fmt.Errorf("hardly any come: %+v", now)
					}
					return nil
				})
				if now.Late > 0 || now.Corrupt > 0 || now.Duplicates > 0 {
					t.Errorf("to %v, %+v: %+v", addr, b, now)
				}
			}
		}
		beside.pass(t, 1)
		beside.finish(t)
	})
}
