//go:build !cgo

package engine

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/engine/enginetest"
	"wireguard4netns/internal/uapi"
)

// A thousand peers in one request, fifty of them at work at once.
func TestSuiteManyPeers(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		const peers, speaking = 1000, 50
		s := openSite(t, engine, "10.9.0.1", testMTU)
		s.up(t)
		idle := resident(t, s.engine, "VmRSS")
		guests := make([]*guest, speaking)
		var u uapi.Update
		for i := range peers {
			addr := netip.AddrFrom4([4]byte{10, 9, byte(1 + i/250), byte(1 + i%250)})
			if i%(peers/speaking) == 0 {
				g := &guest{site: s, addr: addr, index: uint32(i) << 8, conn: listenUDP(t, loopback)}
				g.at = netip.AddrPortFrom(loopback, s.device(t).ListenPort)
				g.Party = enginetest.NewParty(s.publicKey(), g.psk)
				guests[i/(peers/speaking)] = g
				u.Peers = append(u.Peers, g.peer(true))
				continue
			}
			key := openKey(t)
			u.Peers = append(u.Peers, uapi.PeerUpdate{PublicKey: uapi.PublicKey(key.PublicKey().Bytes()),
				Endpoint: netip.AddrPortFrom(loopback, 9), AllowedIPs: prefixesOf(addr)})
		}
		begun := time.Now()
		s.set(t, u)
		took := time.Since(begun)
		begun = time.Now()
		d := s.device(t)
		t.Logf("%d peers set in %v, read in %v", len(d.Peers), took, time.Since(begun))
		if len(d.Peers) != peers {
			t.Errorf("%d peers, want %d", len(d.Peers), peers)
		}
		for _, p := range d.Peers {
			if len(p.AllowedIPs) != 2 {
				t.Fatalf("%v has allowed IPs %v", p.PublicKey, p.AllowedIPs)
			}
		}

		gathered := gather(t, s)
		var all sync.WaitGroup
		for i, g := range guests {
			g.gather = gathered
			all.Go(func() {
				session := g.call(t)
				for n := range uint32(100) {
					g.send(t, session.Seal(g.packet(uint32(i)*100+n+1, 200)))
				}
			})
		}
		all.Wait()
		want := speaking * 100
		waitFor(t, func() error {
			if now := gathered.tally(t); now.Received != want || now.Corrupt+now.Duplicates > 0 {
				return fmt.Errorf("%+v, want %d", now, want)
			}
			return nil
		})
		for _, p := range s.device(t).Peers {
			if p.RxBytes > 0 && p.LastHandshake.IsZero() {
				t.Errorf("%v has sent without a handshake", p.PublicKey)
			}
		}
		after := resident(t, s.engine, "VmRSS")
		t.Logf("%d KiB resident without peers, %d with", idle, after)
		if limit := map[string]int{Native: 20 << 10, WireGuardGo: 80 << 10}[engine]; after > idle+limit {
			t.Errorf("%d KiB for %d peers", after-idle, peers)
		}
		s.set(t, uapi.Update{ReplacePeers: true})
		if d := s.device(t); len(d.Peers) != 0 {
			t.Errorf("%d peers after all were removed", len(d.Peers))
		}
	})
}

// A flood of initiations by somebody who knows the public key, and of garbage, from
// another address, as fast as one processor can send: sessions go on, the sender is
// asked for cookies, who has one is answered, and no memory is lost.
func TestSuiteFlood(t *testing.T) {
	for _, engine := range []string{Native, manyThreads, WireGuardGo} {
		t.Run(engine, func(t *testing.T) { // one after the other: it takes all there is
			limit, most := 50*time.Millisecond, 16<<10
			if engine == WireGuardGo {
				// It may lose more than half on a busy machine.
				limit, most = time.Hour, 160<<10
			}
			p := newPairing(t, engine, engine, testMTU)
			ping(t, p.a, p.b)
			g := p.a.invite(t, "10.9.1.1", true)
			g.listens(t)
			session := g.call(t)
			g.say(t, session)
			quiet := roundTrips(t, p)
			before := resident(t, p.a.engine, "VmRSS")

			f := startFlood(t, p.a, 0)
			loud := roundTrips(t, p)
			for range 2 { // the machine may have had something else to do
				if loud > limit {
					loud = min(loud, roundTrips(t, p))
				}
			}
			f.stop()
			if f.cookies.Load() == 0 {
				t.Error("no cookie was demanded")
			}
			// Who takes the cookie gets through, as long as messages reach the
			// engine at all.
			slow := startFlood(t, p.a, time.Millisecond)
			waitFor(t, func() error {
				if slow.cookies.Load() == 0 {
					return errors.New("no cookie is demanded")
				}
				return nil
			})
			next := g.call(t)
			slow.stop()
			g.say(t, next)
			carry(t, p.a, p.b, p.b.addr, 1<<20)

			peak := resident(t, p.a.engine, "VmHWM")
			t.Logf("%d messages, %d cookies; ping %v idle, %v in the flood; %d KiB before, %d at most",
				f.sent.Load(), f.cookies.Load(), quiet, loud, before, peak)
			if loud > limit {
				t.Errorf("ping takes %v in the flood", loud)
			}
			if peak > before+most {
				t.Errorf("%d KiB more in the flood", peak-before)
			}
			if n := f.responses.Load() + slow.responses.Load(); n > 0 {
				t.Errorf("%d responses to nobody", n)
			}
		})
	}
}

// roundTrips is the median of what pings from a to b take; one that is lost takes
// longest.
func roundTrips(t testing.TB, p *pairing) time.Duration {
	t.Helper()
	const count = 30
	out, _ := p.a.host.Command("ping", "-c"+strconv.Itoa(count), "-i0.02", "-W2", p.b.addr.String()).CombinedOutput()
	var times []time.Duration
	for line := range strings.Lines(string(out)) {
		if _, after, ok := strings.Cut(line, "time="); ok {
			ms, err := strconv.ParseFloat(strings.Fields(after)[0], 64)
			if err != nil {
				t.Fatal(err)
			}
			times = append(times, time.Duration(ms*float64(time.Millisecond)))
		}
	}
	for len(times) < count {
		times = append(times, time.Hour)
	}
	slices.Sort(times)
	return times[count/2]
}

type flood struct {
	sent, cookies, responses atomic.Int64
	stop                     func()
}

// startFlood sends initiations with the right mac1, and others, from an address
// of its own: some by one call, which the engine's socket gets as they are, with a
// pause after each.
func startFlood(t testing.TB, s *site, pause time.Duration) *flood {
	t.Helper()
	c := listenUDP(t, netip.MustParseAddr("127.0.0.66"))
	stranger := enginetest.NewParty(s.publicKey(), [32]byte{})
	const together = 16
	var run []byte
	for i := range together {
		b := make([]byte, enginetest.InitiationSize)
		_, _ = rand.Read(b)
		binary.LittleEndian.PutUint32(b, enginetest.Initiation)
		if i%4 != 0 {
			stranger.Sign(b) // else garbage
		}
		run = append(run, b...)
	}
	control := make([]byte, unix.CmsgSpace(2))
	binary.NativeEndian.PutUint64(control, uint64(unix.CmsgLen(2)))
	binary.NativeEndian.PutUint32(control[8:], unix.SOL_UDP)
	binary.NativeEndian.PutUint32(control[12:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(control[16:], enginetest.InitiationSize)
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, s.device(t).ListenPort))

	f := new(flood)
	var stopping atomic.Bool
	var running sync.WaitGroup
	running.Go(func() {
		for !stopping.Load() {
			if _, _, err := c.WriteMsgUDP(run, control, to); err == nil {
				f.sent.Add(together)
			}
			time.Sleep(pause)
		}
	})
	running.Go(func() {
		buffer := make([]byte, 1<<16)
		for {
			n, _, err := c.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			switch enginetest.Kind(buffer[:n]) {
			case enginetest.Cookie:
				f.cookies.Add(1)
			case enginetest.Response:
				f.responses.Add(1)
			}
		}
	})
	f.stop = sync.OnceFunc(func() {
		stopping.Store(true)
		_ = c.SetReadDeadline(time.Now())
		running.Wait()
	})
	t.Cleanup(f.stop)
	return f
}
