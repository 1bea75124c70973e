package nstest

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// peerPort is where every Peer listens.
const peerPort = 51820

// Addresses of a Peer inside its tunnel.
var (
	peerAddr4 = netip.MustParseAddr("10.77.0.1")
	peerAddr6 = netip.MustParseAddr("fd77::1")
)

// Peer is a WireGuard implementation that is not ours, at the other end of
// the tunnel under test. Its link is wg0.
type Peer struct {
	Host         *Host // where its endpoint is
	PublicKey    string
	Port         uint16
	Addr4, Addr6 netip.Addr // its own addresses inside the tunnel

	run      func(script string) (string, error)
	process  *exec.Cmd
	accounts int
}

// Account is what a VPN provider gives its user: one allowed peer.
type Account struct {
	PrivateKey   string
	PublicKey    string
	PresharedKey string // empty without
	Addr4, Addr6 netip.Addr
	PeerKey      string
	Endpoint     netip.AddrPort
	ListenPort   uint16 // 0: any
}

// AccountOptions say how an Account differs from a plain one.
type AccountOptions struct {
	PSK bool
	// Listen is where the Peer finds the account's holder, for a Peer that
	// speaks first. The account's file then has its port as ListenPort.
	Listen netip.AddrPort
}

// StartUpstream starts wireguard-go, as published, in the Host. It is the
// version that go.mod names.
func StartUpstream(t testing.TB, h *Host) *Peer {
	t.Helper()
	program, err := upstream()
	if err != nil {
		t.Fatal(err)
	}
	return startWireguardGo(t, h, program)
}

// StartUpstream2022 is StartUpstream with the last version before wireguard-go
// used the TUN's offloads.
func StartUpstream2022(t testing.TB, h *Host) *Peer {
	t.Helper()
	program, err := upstream2022()
	if err != nil {
		t.Fatal(err)
	}
	return startWireguardGo(t, h, program)
}

// StartUpstreamAcross starts wireguard-go, as published, with its UDP socket in one
// Host and its link, wg0, in another. It returns its process and the path of its
// configuration socket.
func StartUpstreamAcross(t testing.TB, outside, inside *Host) (process *os.Process, socket string) {
	t.Helper()
	program, err := upstream()
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("wg%d", inside.PID())
	cmd, socket := serveWireguardGo(t, outside, program, name)
	labPID, err := lab()
	if err != nil {
		t.Fatal(err)
	}
	// Only root of the lab has capabilities over both Hosts.
	output(t, exec.Command("nsenter", "--preserve-credentials",
		"--user="+nsPath(labPID, "user"), "--net="+nsPath(outside.PID(), "net"), "--",
		"ip", "link", "set", name, "netns", strconv.Itoa(inside.PID()), "name", "wg0"))
	return cmd.Process, socket
}

const upstreamModule = "golang.zx2c4.com/wireguard"

func upstream() (string, error) {
	version, err := moduleVersion(upstreamModule)
	if err != nil {
		return "", err
	}
	return cached("wireguard-go-"+version, func(path string) error {
		return goBuild(moduleRoot(), path, upstreamModule)
	})
}

func upstream2022() (string, error) {
	const version = "v0.0.0-20220920152132-bb719d3a6e2c"
	return cached("wireguard-go-"+version, func(path string) error {
		// Its x/net uses a link to package syscall that linkers since Go 1.23 refuse.
		cmd := exec.Command(goTool(), "install", "-ldflags=-checklinkname=0", upstreamModule+"@"+version)
		bin := filepath.Dir(path)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOBIN="+bin)
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, text)
		}
		return os.Rename(filepath.Join(bin, "wireguard"), path)
	})
}

func startWireguardGo(t testing.TB, h *Host, program string) *Peer {
	t.Helper()
	process, _ := serveWireguardGo(t, h, program, "wg0")
	p := &Peer{Host: h, process: process, run: func(script string) (string, error) {
		out, err := h.Command("sh", "-ec", script).CombinedOutput()
		return string(out), err
	}}
	p.configure(t)
	return p
}

func serveWireguardGo(t testing.TB, h *Host, program, link string) (process *exec.Cmd, socket string) {
	t.Helper()
	process = h.Command(program, "--foreground", link)
	// As a daemon is: the kernel shares out processors by session
	// (sched_autogroup, sched(7)).
	process.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	Start(t, process)
	socket = h.Path("/run/wireguard/" + link + ".sock")
	Eventually(t, 10*time.Second, func() error {
		_, err := os.Stat(socket)
		return err
	})
	return process, socket
}

// configure gives wg0, which exists, its key, port and addresses.
func (p *Peer) configure(t testing.TB) {
	t.Helper()
	private, public := newKey()
	p.PublicKey, p.Port, p.Addr4, p.Addr6 = public, peerPort, peerAddr4, peerAddr6
	p.Run(t, fmt.Sprintf(`echo 1 >/proc/sys/net/ipv6/conf/wg0/addr_gen_mode
echo %s | wg set wg0 listen-port %d private-key /dev/stdin
ip addr add %s/16 dev wg0
ip addr add %s/64 dev wg0
ip link set wg0 mtu 1420 up`, private, p.Port, p.Addr4, p.Addr6))
}

// Run runs a shell script where the Peer is and returns what it printed.
func (p *Peer) Run(t testing.TB, script string) string {
	t.Helper()
	out, err := p.run(script)
	if err != nil {
		t.Fatalf("at the peer: %v\n%s\n%s", err, script, out)
	}
	return out
}

// Stop ends the Peer for good: nothing answers at its endpoint any more.
func (p *Peer) Stop() {
	p.process.Process.Kill()
	p.process.Wait()
}

// NewAccount lets one more other end in, which reaches the Peer at the given
// address of its Host.
func (p *Peer) NewAccount(t testing.TB, reach netip.Addr, opts AccountOptions) Account {
	t.Helper()
	p.accounts++
	n := p.accounts + 1
	a := Account{
		Addr4:      netip.AddrFrom4([4]byte{10, 77, byte(n >> 8), byte(n)}),
		Addr6:      netip.MustParseAddr(fmt.Sprintf("fd77::%x", n)),
		PeerKey:    p.PublicKey,
		Endpoint:   netip.AddrPortFrom(reach, p.Port),
		ListenPort: opts.Listen.Port(),
	}
	a.PrivateKey, a.PublicKey = newKey()
	set := fmt.Sprintf("wg set wg0 peer %s allowed-ips %s/32,%s/128", a.PublicKey, a.Addr4, a.Addr6)
	if opts.Listen.IsValid() {
		set += " endpoint " + opts.Listen.String()
	}
	if opts.PSK {
		a.PresharedKey = newPSK()
		set = fmt.Sprintf("echo %s | %s preshared-key /dev/stdin", a.PresharedKey, set)
	}
	p.Run(t, set)
	return a
}

// LastHandshake tells when the Peer last completed a handshake with the
// account; the zero time if never.
func (p *Peer) LastHandshake(t testing.TB, a Account) time.Time {
	t.Helper()
	for line := range strings.Lines(p.Run(t, "wg show wg0 latest-handshakes")) {
		var key string
		var seconds int64
		if _, err := fmt.Sscan(line, &key, &seconds); err == nil && key == a.PublicKey && seconds != 0 {
			return time.Unix(seconds, 0)
		}
	}
	return time.Time{}
}

// Conf is the account's configuration file: all traffic through the tunnel.
// Lines in extra (as `DNS = 10.77.0.1`) are added to its [Interface] section.
func (a Account) Conf(extra ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[Interface]\nPrivateKey = %s\nAddress = %s/32, %s/128\n", a.PrivateKey, a.Addr4, a.Addr6)
	if a.ListenPort != 0 {
		fmt.Fprintf(&b, "ListenPort = %d\n", a.ListenPort)
	}
	for _, line := range extra {
		fmt.Fprintln(&b, line)
	}
	fmt.Fprintf(&b, "\n[Peer]\nPublicKey = %s\nEndpoint = %s\nAllowedIPs = 0.0.0.0/0, ::/0\n", a.PeerKey, a.Endpoint)
	if a.PresharedKey != "" {
		fmt.Fprintf(&b, "PresharedKey = %s\n", a.PresharedKey)
	}
	return b.String()
}

// WriteConf writes the account's file as wg0.conf in a directory of the
// test's own, readable by the test's user only, and returns its path.
func (a Account) WriteConf(t testing.TB, extra ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "wg0.conf")
	if err := os.WriteFile(path, []byte(a.Conf(extra...)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newKey() (private, public string) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		panic(err) // crypto/rand does not fail on Linux
	}
	return base64.StdEncoding.EncodeToString(key.Bytes()), base64.StdEncoding.EncodeToString(key.PublicKey().Bytes())
}

func newPSK() string {
	var key [32]byte
	rand.Read(key[:])
	return base64.StdEncoding.EncodeToString(key[:])
}
