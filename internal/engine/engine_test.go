package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"wireguard4netns/internal/nstest"
	"wireguard4netns/internal/sandbox"
	"wireguard4netns/internal/sys"
	"wireguard4netns/internal/uapi"
)

func TestPacketsPass(t *testing.T) {
	t.Parallel()
	for _, level := range []sandbox.Level{sandbox.None, sealed} {
		t.Run(level.String(), func(t *testing.T) {
			t.Parallel()
			a, b := newPair(t, level)
			ping(t, a, b)
			peer := a.device(t).Peers[0]
			if peer.LastHandshake.IsZero() || peer.RxBytes == 0 || peer.TxBytes == 0 {
				t.Errorf("peer after a ping: %+v", peer)
			}
			transfer(t, a, b, "tcp", 1<<20)
			transfer(t, b, a, "tcp", 1<<20)
			transfer(t, a, b, "udp", 1200)
			if log := a.log() + b.log(); level != sandbox.Auto && log != "" {
				t.Errorf("logged: %s", log)
			}
		})
	}
}

var ignoreHistory = cmp.Options{
	cmpopts.IgnoreFields(uapi.Peer{}, "LastHandshake", "TxBytes", "RxBytes"),
	cmpopts.EquateComparable(netip.AddrPort{}, netip.Prefix{}, uapi.Secret{}),
	cmpopts.SortSlices(func(a, b netip.Prefix) bool { return a.String() < b.String() }),
	cmpopts.SortSlices(func(a, b uapi.Peer) bool { return a.PublicKey.String() < b.PublicKey.String() }),
}

func TestAKilledEngineComesBackAsItWas(t *testing.T) {
	t.Parallel()
	a, b := newPair(t, sandbox.Auto)
	ping(t, a, b)
	other := uapi.PeerUpdate{
		PublicKey: uapi.PublicKey{9: 1}, Endpoint: netip.MustParseAddrPort("[2001:db8::1]:5"),
		PersistentKeepalive: new(7 * time.Second),
		AllowedIPs:          []netip.Prefix{netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("0.0.0.0/0")},
	}
	b.set(t, uapi.Update{Fwmark: new(uint32(0)), Peers: []uapi.PeerUpdate{other}})
	before, first := b.device(t), b.engine.Pid()
	if before.Peers[0].Endpoint.Port() == 0 || len(before.Peers) != 2 {
		t.Fatalf("device: %+v", before)
	}

	for restarts := 1; restarts <= 3; restarts++ {
		kill(t, b.engine)
		after := b.device(t) // waits for the next
		if diff := cmp.Diff(before, after, ignoreHistory); diff != "" {
			t.Fatalf("after restart %d: %s", restarts, diff)
		}
		if got := b.engine.Restarts(); got != restarts {
			t.Errorf("%d restarts, want %d", got, restarts)
		}
		// It calls its peer by itself.
		nstest.Eventually(t, 5*time.Second, func() error {
			for _, p := range b.device(t).Peers {
				if p.PublicKey == a.publicKey() && !p.LastHandshake.IsZero() {
					return nil
				}
			}
			return fmt.Errorf("no handshake")
		})
	}
	if b.engine.Pid() == first {
		t.Error("the same process")
	}
	ping(t, a, b)
}

func kill(t testing.TB, e *Engine) {
	t.Helper()
	if err := syscall.Kill(e.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// A flow of TCP over an engine that is killed stalls for a moment and goes on.
func TestAFlowOutlivesTheEngine(t *testing.T) {
	a, b := newPair(t, sandbox.Auto)
	ping(t, a, b)
	b.device(t) // as a status command does: b learns where a is
	longest, total := stall(t, a, b, func() { kill(t, a.engine) })
	t.Logf("engine of the sender killed: longest stall %v, %d bytes", longest, total)
	if longest > 2*time.Second {
		t.Errorf("the flow stalled for %v", longest)
	}
	longest, total = stall(t, a, b, func() { kill(t, b.engine) })
	t.Logf("engine of the receiver killed: longest stall %v, %d bytes", longest, total)
	if longest > 2*time.Second {
		t.Errorf("the flow stalled for %v", longest)
	}
}

func TestAPortInUse(t *testing.T) {
	t.Parallel()
	a, b := newPair(t, sandbox.Auto)
	ping(t, a, b)
	taken, err := net.ListenPacket("udp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := uint16(taken.LocalAddr().(*net.UDPAddr).Port)
	before := b.device(t).ListenPort
	err = b.engine.Set(t.Context(), uapi.Update{ListenPort: &port}.Body())
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("set: %v, want address in use", err)
	}
	if got := b.device(t).ListenPort; got != before {
		t.Errorf("port %d, want %d as before", got, before)
	}
	ping(t, a, b)

	// At the very first configuration, too.
	c := newSite(t, "10.9.0.3", sandbox.Auto)
	err = c.engine.Set(t.Context(), uapi.Update{PrivateKey: new(c.privateKey()), ListenPort: &port}.Body())
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("first set: %v, want address in use", err)
	}
	c.set(t, uapi.Update{ListenPort: new(uint16(0))})
	if c.device(t).ListenPort == 0 {
		t.Error("no port after the second set")
	}
}

// No socket is open before somebody says on which port, and what is set wrong
// harms nothing.
func TestAnEngineWithoutConfiguration(t *testing.T) {
	t.Parallel()
	a := newSite(t, "10.9.0.1", sandbox.Auto)
	if d := a.device(t); d.ListenPort != 0 || len(d.Peers) != 0 {
		t.Errorf("device: %+v", d)
	}
	kill(t, a.engine)
	if d := a.device(t); d.ListenPort != 0 || len(d.Peers) != 0 {
		t.Errorf("device of the next process: %+v", d)
	}
	for _, body := range []string{"color=blue\n", "private_key=00\n", "public_key=zz\n", "fwmark=9\n\nfwmark=8\n", "fwmark"} {
		if err := a.engine.Set(t.Context(), []byte(body)); err == nil {
			t.Errorf("%q accepted", body)
		}
	}
	if a.engine.Restarts() != 1 {
		t.Errorf("%d restarts, want 1", a.engine.Restarts())
	}
}

// 25 engines in a row, each with packets and a change of port: what a filter
// of system calls lacks shows only now and then.
func TestManyStarts(t *testing.T) {
	t.Parallel()
	b := newSite(t, "10.9.0.2", sealed)
	for i := range 25 {
		a := newSite(t, "10.9.0.1", sealed)
		configure(t, a, b)
		ping(t, a, b)
		b.set(t, uapi.Update{ListenPort: new(uint16(0))})
		a.set(t, uapi.Update{ListenPort: new(uint16(0)), Peers: []uapi.PeerUpdate{
			b.asPeer(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), b.device(t).ListenPort))}})
		ping(t, a, b)
		if a.engine.Restarts()+b.engine.Restarts() > 0 {
			t.Fatalf("start %d: an engine died:\n%s\n%s", i, a.log(), b.log())
		}
		a.engine.Close()
	}
}

func TestPause(t *testing.T) {
	t.Parallel()
	if pause(0) != 0 || pause(1) != firstPause || pause(2) != 2*firstPause || pause(1000) != longPause {
		t.Errorf("pauses: %v %v %v %v", pause(0), pause(1), pause(2), pause(1000))
	}
}

// An engine whose processes cannot live is no busy loop, and ends when told.
func TestAnEngineThatKeepsDying(t *testing.T) {
	t.Parallel()
	a := newSite(t, "10.9.0.1", sandbox.None)
	a.set(t, uapi.Update{PrivateKey: new(a.privateKey())})
	a.engine.config.Exe = "/bin/false"
	kill(t, a.engine)
	nstest.Eventually(t, 10*time.Second, func() error {
		if n := strings.Count(a.log(), "start engine"); n < 3 {
			return fmt.Errorf("%d starts", n)
		}
		return nil
	})
	begin := time.Now()
	a.engine.Close()
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("close took %v", took)
	}
	if _, err := a.engine.Get(t.Context()); err != ErrClosed {
		t.Errorf("get: %v, want %v", err, ErrClosed)
	}
}

func TestADeletedLinkEndsTheEngine(t *testing.T) {
	t.Parallel()
	a := newSite(t, "10.9.0.1", sandbox.Auto)
	a.set(t, uapi.Update{PrivateKey: new(a.privateKey())})
	a.host.Run(t, "ip", "link", "del", "wg0")
	select {
	case <-a.engine.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the engine goes on")
	}
	if _, err := a.engine.Get(t.Context()); a.engine.Err() != ErrLinkGone || err != ErrLinkGone {
		t.Errorf("ended with %v, get: %v, want %v", a.engine.Err(), err, ErrLinkGone)
	}
}

// A process that no longer answers is as good as dead.
func TestAStoppedEngineIsReplaced(t *testing.T) {
	t.Parallel()
	e, err := Open(t.Context(), Config{
		Engine: *tested, IfName: "wg0", MTU: testMTU, TUN: openTUN(t, nstest.NewHost(t), "wg0"), answerTime: 3 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	first := e.Pid()
	if err := syscall.Kill(first, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	nstest.Eventually(t, 10*time.Second, func() error { return stopped(first) })
	if _, err := e.Get(t.Context()); err != nil || e.Pid() == first {
		t.Errorf("get: %v, process %d, want another than %d", err, e.Pid(), first)
	}
}

// stopped tells whether each thread has seen the signal: it may finish a request
// before.
func stopped(pid int) error {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return err
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			return err
		}
		if _, state, _ := strings.Cut(string(text), ") "); !strings.HasPrefix(state, "T") {
			return fmt.Errorf("%s: %s", task, state)
		}
	}
	return nil
}

func TestAnEngineEndsWithItsControlSocket(t *testing.T) {
	t.Parallel()
	p, err := Start(t.Context(), Config{Engine: *tested, IfName: "wg0", MTU: testMTU, TUN: openTUN(t, nstest.NewHost(t), "wg0")})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	_ = p.conn.Close()
	select {
	case <-p.Done():
		if got := p.Err().Error(); got != "engine ended (exit status 0)" {
			t.Error(got)
		}
	case <-time.After(10 * time.Second):
		t.Error("the engine goes on")
	}
}

// starting starts an engine in a machine that allows no more user namespaces.
var starting = nstest.NewFunc("engine-without-namespaces", func(level sandbox.Level) (lines []string, err error) {
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
		return nil, err
	}
	netns, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	tun, _, err := sys.Join(-1, int(netns.Fd()), "wg0", unix.IFF_TUN|unix.IFF_NO_PI|unix.IFF_VNET_HDR)
	if err != nil {
		return nil, err
	}
	var s site
	e, err := Open(context.Background(), Config{
		IfName: "wg0", MTU: testMTU, TUN: os.NewFile(uintptr(tun), "tun"), Sandbox: level, Log: s.keepLine,
	})
	if err != nil {
		return nil, err
	}
	err = e.Set(context.Background(), uapi.Update{ListenPort: new(uint16(0))}.Body())
	e.Close() // when it returns, the last line was kept
	return s.lines, err
})

// A machine without user namespaces for us has a sandbox with a hole, and says
// so, or no engine.
func TestWithoutNamespaces(t *testing.T) {
	t.Parallel()
	lines, err := starting.Call(nstest.NewHost(t).Command, sandbox.Auto)
	if log := strings.Join(lines, "\n"); err != nil ||
		!strings.Contains(log, "sandbox: without namespaces: fork/exec /proc/self/exe: no space left on device") ||
		!strings.Contains(log, "sandbox: without empty root: no mount namespace") {
		t.Errorf("auto: %v, logged:\n%s", err, log)
	}
	_, err = starting.Call(nstest.NewHost(t).Command, sandbox.Strict)
	if err == nil || !strings.Contains(err.Error(), "start engine: close sandbox: namespaces: ") {
		t.Errorf("strict: %v", err)
	}
}

const orphanArgv0 = "engine-test-orphan"

// orphan starts an engine on its standard input and tells its process. Its own
// memory is hidden, as a supervisor's is.
func orphan() {
	err := sandbox.HideMemory()
	var p *Process
	if err == nil {
		p, err = Start(context.Background(), Config{Engine: *tested, IfName: "wg0", MTU: testMTU, TUN: os.Stdin, Sandbox: sealed})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(p.Pid())
	select {}
}

func TestAnEngineEndsWithItsParent(t *testing.T) {
	t.Parallel()
	host := nstest.NewHost(t)
	parent := exec.Command("/proc/self/exe")
	parent.Args = []string{orphanArgv0}
	parent.Stdin = openTUN(t, host, "wg0")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", parent.Process.Pid)); os.Getuid() != 0 && !errors.Is(err, os.ErrPermission) {
		t.Errorf("read descriptors of the parent: %v, want permission denied", err)
	}
	_ = parent.Process.Kill()
	_ = parent.Wait()
	nstest.Eventually(t, 5*time.Second, func() error {
		// Whoever adopts it may take its time to reap it.
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err == nil && !strings.Contains(string(status), "State:\tZ") {
			return fmt.Errorf("engine %d is there", pid)
		}
		return nil
	})
}

func TestArguments(t *testing.T) {
	t.Parallel()
	want := options{ifName: "wg0", mtu: 1380, verbose: true, sandbox: sandbox.Strict, noNamespaces: "no space left"}
	got, err := parseOptions(want.args())
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, args := range [][]string{{}, {"--mtu=0"}, {"--mtu=1", "x"}, {"--sandbox=some"}, {"--help"}} {
		if o, err := parseOptions(args); err == nil {
			t.Errorf("%q understood as %+v", args, o)
		}
	}
}
