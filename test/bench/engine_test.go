//go:build bench

package bench_test

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/unix"

	"wireguard4netns/internal/aead"
	"wireguard4netns/internal/engine"
	"wireguard4netns/internal/nstest"
	"wireguard4netns/internal/sandbox"
	"wireguard4netns/internal/uapi"
)

var (
	engineRounds = flag.Int("engine-rounds", 7, "how often each pair of engines is measured")
	engineExe    = flag.String("engine-program", "", "the program to measure; default: this module's")
	engineOther  = flag.String("engine-other", "", "another build: only its native engine is measured beside the program's")
	engineTests  = flag.String("engine-tests", "", "only the rows whose names hold this")
)

// pairing is two engines over the loopback of the test's network namespace, each
// with a machine behind it. What it costs is counted at the near one, which runs
// the engine that the column is about; traffic up leaves from it.
type pairing struct {
	name      string
	near, far *site
	figures   map[string][]float64
}

// site is an engine and the machine that has it as network.
type site struct {
	host   *nstest.Host
	engine speaker
	addr   netip.Addr
	key    *ecdh.PrivateKey
	shell  *shell
}

// speaker is a process that speaks WireGuard: an engine of ours, or wireguard-go
// as a program.
type speaker interface {
	Pid() int
	Get(context.Context) ([]byte, error)
	Set(ctx context.Context, body []byte) error
}

// kind says how a site is made.
type kind struct {
	engine string
	flags  uint16       // of the TUN device
	at     *nstest.Host // where wireguard-go runs as a program of its own; nil: engine does
}

const offloads = unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR

// TestBenchEngine measures engines beside each other: one table, one run, in
// turn round by round.
func TestBenchEngine(t *testing.T) {
	program := *engineExe
	if program == "" {
		program = nstest.Build(t)
	}
	native, wggo := kind{engine: engine.Native, flags: offloads}, kind{engine: engine.WireGuardGo, flags: offloads}
	plain := kind{engine: engine.WireGuardGo, flags: unix.IFF_TUN | unix.IFF_NO_PI}
	if *engineOther != "" {
		benchEngines(t, []*pairing{newPairing(t, program, "native", native, native), newPairing(t, *engineOther, "other", native, native)})
		return
	}
	asProgram := kind{at: nstest.NewHost(t)}
	benchEngines(t, []*pairing{
		newPairing(t, program, "native", native, native),
		newPairing(t, program, "wireguard-go", wggo, wggo),
		newPairing(t, program, "native, peer wireguard-go", native, wggo),
		newPairing(t, program, "wireguard-go, peer native", wggo, native),
		newPairing(t, program, "wireguard-go, no offload", plain, plain),
		newPairing(t, program, "wireguard-go, as published", asProgram, asProgram),
	})
}

func benchEngines(t *testing.T, all []*pairing) {
	for round := range *engineRounds {
		for i := range all {
			all[(i+round)%len(all)].measure(t)
		}
	}
	reportEngines(t, all)
}

func newPairing(t *testing.T, program, name string, near, far kind) *pairing {
	p := &pairing{name: name, figures: map[string][]float64{}}
	p.near = newSite(t, program, "10.9.0.1", near)
	p.far = newSite(t, program, "10.9.0.2", far)
	var free uint16
	set(t, p.far, uapi.Update{PrivateKey: new(uapi.Secret(p.far.key.Bytes())), ListenPort: &free,
		Peers: []uapi.PeerUpdate{p.near.asPeer(netip.AddrPort{})}})
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), p.far.state(t).ListenPort)
	set(t, p.near, uapi.Update{PrivateKey: new(uapi.Secret(p.near.key.Bytes())), ListenPort: &free,
		Peers: []uapi.PeerUpdate{p.far.asPeer(at)}})
	p.far.host.ServeIperf3(t)
	return p
}

func newSite(t *testing.T, program, addr string, k kind) *site {
	s := &site{host: nstest.NewHost(t), addr: netip.MustParseAddr(addr)}
	if k.at != nil {
		s.engine = newPublished(t, k.at, s.host)
	} else {
		s.engine = newOwn(t, program, s.host, k)
	}
	s.host.Run(t, "ip", "addr", "add", addr+"/24", "dev", "wg0")
	s.host.Run(t, "ip", "link", "set", "wg0", "mtu", strconv.Itoa(mtu), "up")
	var err error
	if s.key, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	s.shell = newShell(t, s.host.Command("sh"))
	return s
}

func newOwn(t *testing.T, program string, h *nstest.Host, k kind) *engine.Engine {
	tun, _ := h.OpenTUN(t, "wg0", k.flags)
	e, err := engine.Open(t.Context(), engine.Config{
		Exe: program, IfName: "wg0", MTU: mtu, TUN: tun, Engine: k.engine, Sandbox: sandbox.Auto,
		Log: func(line string) { t.Log(line) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// published is wireguard-go as a program of its own, asked over its socket.
type published struct {
	*uapi.Conn
	pid int
}

func newPublished(t *testing.T, outside, inside *nstest.Host) published {
	process, socket := nstest.StartUpstreamAcross(t, outside, inside)
	conn, err := uapi.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return published{conn, process.Pid}
}

func (p published) Pid() int { return p.pid }

func (s *site) asPeer(endpoint netip.AddrPort) uapi.PeerUpdate {
	return uapi.PeerUpdate{
		PublicKey: uapi.PublicKey(s.key.PublicKey().Bytes()), Endpoint: endpoint,
		AllowedIPs: []netip.Prefix{netip.PrefixFrom(s.addr, s.addr.BitLen())},
	}
}

func set(t *testing.T, s *site, u uapi.Update) {
	if err := s.engine.Set(t.Context(), u.Body()); err != nil {
		t.Fatal(err)
	}
}

func (s *site) state(t *testing.T) uapi.Device {
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

// usage is the processor time that the engine has used, and its largest size.
func (s *site) usage(t *testing.T) (seconds, peak float64) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.engine.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	for _, ticks := range fields[11:13] { // utime, stime
		n, _ := strconv.ParseFloat(ticks, 64)
		seconds += n / 100
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.engine.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			peak = n / 1024
		}
	}
	return seconds, peak
}

// tcpRows are iperf3's flags for each way of TCP.
var tcpRows = []struct{ name, flags string }{
	{"TCP up", ""},
	{"TCP down", "-R"},
	{"TCP 8 flows up", "-P 8"},
	{"TCP 8 flows down", "-P 8 -R"},
	{"TCP both ways", "--bidir"},
}

func (p *pairing) measure(t *testing.T) {
	if own, ok := p.near.engine.(*engine.Engine); ok && p.wants("start") {
		p.add("start to handshake, ms", p.startToHandshake(t, own))
	}
	p.pings(t, "ping idle", 300)
	for _, row := range tcpRows {
		if p.wants(row.name) {
			p.tcp(t, row.name, row.flags)
		}
	}
	for _, size := range []int{1400, 64} {
		if name := fmt.Sprintf("UDP %d B", size); p.wants(name) {
			p.udp(t, name, size)
		}
	}
	if p.wants("ping under load") {
		p.near.shell.run(t, fmt.Sprintf("iperf3 -c %s -t 4 >/dev/null & sleep 0.5", p.far.addr))
		p.pings(t, "ping under load", 300)
		p.near.shell.run(t, "wait")
	}
	_, peak := p.near.usage(t)
	p.add("peak RSS, MiB", peak)
	t.Logf("measured %s", p.name)
}

func (p *pairing) wants(name string) bool { return strings.Contains(name, *engineTests) }

func (p *pairing) add(figure string, value float64) {
	p.figures[figure] = append(p.figures[figure], value)
}

// startToHandshake kills the near engine: the next one starts, is configured and
// calls its peer by itself.
func (p *pairing) startToHandshake(t *testing.T, near *engine.Engine) float64 {
	began := time.Now()
	before := near.Restarts()
	if err := unix.Kill(near.Pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(100 * time.Microsecond)
	defer tick.Stop()
	for near.Restarts() == before || p.near.state(t).Peers[0].LastHandshake.IsZero() {
		if time.Since(began) > 10*time.Second {
			t.Fatalf("%s: no handshake", p.name)
		}
		<-tick.C
	}
	return time.Since(began).Seconds() * 1e3
}

type iperfResult struct {
	End struct {
		Sum      iperfSum `json:"sum"`
		Received iperfSum `json:"sum_received"`
		Reverse  iperfSum `json:"sum_received_bidir_reverse"`
	} `json:"end"`
	Error string `json:"error"`
}

type iperfSum struct {
	Bytes   float64 `json:"bytes"`
	Rate    float64 `json:"bits_per_second"`
	Packets float64 `json:"packets"`
	Lost    float64 `json:"lost_packets"`
	Seconds float64 `json:"seconds"`
}

// iperf runs iperf3 once, and again when its server is not back from the run
// before: it opens its port anew.
func (p *pairing) iperf(t *testing.T, flags string) (r iperfResult) {
	nstest.Eventually(t, 20*time.Second, func() error {
		r = iperfResult{}
		out := p.near.shell.run(t, fmt.Sprintf("iperf3 -c %s -t %d --json %s", p.far.addr, *transfer, flags))
		if err := json.Unmarshal([]byte(out), &r); err != nil || r.Error != "" {
			return fmt.Errorf("%s: iperf3: %w %s: %s", p.name, err, r.Error, out)
		}
		return nil
	})
	return r
}

func (p *pairing) tcp(t *testing.T, name, flags string) {
	before, _ := p.near.usage(t)
	r := p.iperf(t, flags)
	after, _ := p.near.usage(t)
	p.add(name+", Gbit/s", (r.End.Received.Rate+r.End.Reverse.Rate)/1e9)
	p.add(name+", CPU-s/GiB", (after-before)/((r.End.Received.Bytes+r.End.Reverse.Bytes)/(1<<30)))
}

func (p *pairing) udp(t *testing.T, name string, size int) {
	before, _ := p.near.usage(t)
	r := p.iperf(t, fmt.Sprintf("-u -b 0 -l %d", size))
	after, _ := p.near.usage(t)
	arrived := r.End.Sum.Packets - r.End.Sum.Lost
	p.add(name+", kpackets/s", arrived/r.End.Sum.Seconds/1e3)
	p.add(name+", CPU-µs/packet", (after-before)/r.End.Sum.Packets*1e6)
}

// pings adds the median and the 99th percentile of round trips.
func (p *pairing) pings(t *testing.T, name string, count int) {
	if !p.wants(name) {
		return
	}
	out := p.near.shell.run(t, fmt.Sprintf("ping -n -i 0.01 -w 10 -c %d %s", count, p.far.addr))
	var times []float64
	for line := range strings.Lines(out) {
		if _, rest, ok := strings.Cut(line, "time="); ok {
			v, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				t.Fatal(err)
			}
			times = append(times, v)
		}
	}
	if len(times) < count/2 {
		t.Fatalf("%s: ping: %s", p.name, out)
	}
	slices.Sort(times)
	p.add(name+" p50, ms", times[len(times)/2])
	p.add(name+" p99, ms", times[len(times)*99/100])
}

// cipherCost is what a cipher alone costs, in seconds per GiB that is sealed, in
// packets of the link's MTU: the least of several tries.
func cipherCost(t *testing.T, create func(key []byte) (cipher.AEAD, error)) float64 {
	c, err := create(make([]byte, chacha20poly1305.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	packet := make([]byte, mtu, mtu+c.Overhead())
	var nonce [chacha20poly1305.NonceSize]byte
	best := math.Inf(1)
	for range 20 {
		const n = 20000
		began := time.Now()
		for range n {
			c.Seal(packet[:0], nonce[:], packet, nil)
		}
		best = min(best, time.Since(began).Seconds()/(n*mtu)*(1<<30))
	}
	return best
}

func reportEngines(t *testing.T, all []*pairing) {
	var b strings.Builder
	fmt.Fprintf(&b, "\nmedians (least–most) of %d; MTU %d; the AEAD alone, CPU-s/GiB: %.2f of golang.org/x/crypto, %.2f of package aead\n\n| |",
		*engineRounds, mtu, cipherCost(t, chacha20poly1305.New), cipherCost(t, aead.New))
	for _, p := range all {
		fmt.Fprintf(&b, " %s |", p.name)
	}
	fmt.Fprintf(&b, " %s / %s |\n|%s\n", all[0].name, all[1].name, strings.Repeat("---|", len(all)+2))
	var figures []string
	for figure := range all[0].figures {
		figures = append(figures, figure)
	}
	slices.Sort(figures)
	for _, figure := range figures {
		fmt.Fprintf(&b, "| %s |", figure)
		for _, p := range all {
			v := p.figures[figure]
			if len(v) == 0 {
				b.WriteString(" – |")
				continue
			}
			fmt.Fprintf(&b, " %.2f (%.2f–%.2f) |", median(v), slices.Min(v), slices.Max(v))
		}
		fmt.Fprintf(&b, " %.2f |\n", median(all[0].figures[figure])/median(all[1].figures[figure]))
	}
	fmt.Println(b.String())
}
