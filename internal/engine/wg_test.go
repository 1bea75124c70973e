package engine

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"testing"

	"wireguard4netns/internal/nstest"
	"wireguard4netns/internal/sandbox"
	"wireguard4netns/internal/uapi"
)

// wg(8) knows one place for sockets, which is in the machine of the test.
const wgSocket = "/run/wireguard/wg0.sock"

// serve makes the engine reachable for wg in the site's own machine.
func (s *site) serve(t *testing.T) {
	t.Helper()
	l, err := uapi.Listen(s.host.Path(wgSocket))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- l.Serve(context.Background(), s.engine) }()
	t.Cleanup(func() {
		_ = l.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// wg runs wg(8) with a file as its standard input.
func (s *site) wg(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	cmd := s.host.Command("wg", args...)
	cmd.Stdin = strings.NewReader(stdin)
	var errors bytes.Buffer
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("wg %v: %v\n%s", args, err, errors.String())
	}
	return string(out)
}

func base64Of(key [32]byte) string { return base64.StdEncoding.EncodeToString(key[:]) }

func TestWgTools(t *testing.T) {
	t.Parallel()
	a, b := newPair(t, sandbox.Auto)
	b.serve(t)
	ping(t, a, b)

	show := b.wg(t, "", "show", "wg0")
	for _, want := range []string{
		"interface: wg0", "public key: " + b.publicKey().String(), "private key: (hidden)",
		fmt.Sprintf("listening port: %d", b.device(t).ListenPort),
		"peer: " + a.publicKey().String(), "preshared key: (hidden)", "endpoint: 127.0.0.1:",
		"allowed ips: 10.9.0.1/32", "latest handshake: ", "transfer: ",
	} {
		if !strings.Contains(show, want) {
			t.Errorf("wg show has no %q:\n%s", want, show)
		}
	}
	if got := b.wg(t, "", "show", "interfaces"); got != "wg0\n" {
		t.Errorf("interfaces: %q", got)
	}

	second := uapi.PublicKey{5: 7}
	b.wg(t, "", "set", "wg0", "peer", second.String(), "endpoint", "[::1]:7", "persistent-keepalive", "21",
		"allowed-ips", "10.20.0.0/16,fd01::/64")
	dump := b.wg(t, "", "show", "wg0", "dump")
	if want := second.String() + "\t(none)\t[::1]:7\t10.20.0.0/16,fd01::/64\t0\t0\t"; !strings.Contains(dump, want) {
		t.Errorf("dump has no %q:\n%s", want, dump)
	}
	b.wg(t, base64Of(b.psk), "set", "wg0", "peer", second.String(), "preshared-key", "/dev/stdin")
	if got := b.wg(t, "", "show", "wg0", "preshared-keys"); !strings.Contains(got, second.String()+"\t"+base64Of(b.psk)) {
		t.Errorf("preshared keys:\n%s", got)
	}
	b.wg(t, "", "set", "wg0", "peer", second.String(), "remove")
	if got := b.wg(t, "", "show", "wg0", "peers"); got != a.publicKey().String()+"\n" {
		t.Errorf("peers: %q", got)
	}

	// showconf and the three ways to give it back.
	conf := b.wg(t, "", "showconf", "wg0")
	if !strings.Contains(conf, "PrivateKey = "+base64Of(b.privateKey())) {
		t.Errorf("showconf has no private key")
	}
	extra := conf + "\n[Peer]\nPublicKey = " + second.String() + "\nAllowedIPs = 10.30.0.0/16\n"
	handshake := b.device(t).Peers[0].LastHandshake
	b.wg(t, extra, "syncconf", "wg0", "/dev/stdin")
	if d := b.device(t); len(d.Peers) != 2 || handshakeOf(d, a) != handshake {
		t.Errorf("after syncconf: %d peers, last handshake %v, want 2 and %v", len(d.Peers), handshakeOf(d, a), handshake)
	}
	b.wg(t, conf, "setconf", "wg0", "/dev/stdin")
	if d := b.device(t); len(d.Peers) != 1 {
		t.Errorf("after setconf: %d peers, want 1", len(d.Peers))
	}
	b.wg(t, extra, "addconf", "wg0", "/dev/stdin")
	if d := b.device(t); len(d.Peers) != 2 {
		t.Errorf("after addconf: %d peers, want 2", len(d.Peers))
	}
	ping(t, b, a) // b lost the session with the peer, so it is b's turn

	// The socket stays while the engine is replaced.
	before := b.wg(t, "", "showconf", "wg0")
	kill(t, b.engine)
	if after := b.wg(t, "", "showconf", "wg0"); !sameLines(before, after) {
		t.Errorf("after a restart, the configuration is not what it was")
	}
	ping(t, b, a)

	// Errors of the engine are errors of wg.
	cmd := b.host.Command("wg", "set", "wg0", "listen-port", "1")
	if out, err := cmd.CombinedOutput(); os.Getuid() != 0 && (err == nil || !strings.Contains(string(out), "Permission denied")) {
		t.Errorf("privileged port: %v, %s", err, out)
	}
}

func handshakeOf(d uapi.Device, s *site) any {
	for _, p := range d.Peers {
		if p.PublicKey == s.publicKey() {
			return p.LastHandshake
		}
	}
	return nil
}

func sameLines(a, b string) bool {
	count := make(map[string]int)
	for line := range strings.Lines(a) {
		count[line]++
	}
	for line := range strings.Lines(b) {
		count[line]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

// What can be seen of an engine process: no key, and no file that is not its.
func TestAnEngineShowsNoKeys(t *testing.T) {
	t.Parallel()
	host := nstest.NewHost(t)
	var s site // for its log
	e, err := Open(t.Context(), Config{
		Engine: *tested, IfName: "wg0", MTU: testMTU, TUN: openTUN(t, host, "wg0"), Verbose: true,
		Log: s.keepLine,
	})
	if err != nil {
		t.Fatal(err)
	}
	secret := uapi.Secret{1, 2, 3, 31: 64}
	u := uapi.Update{PrivateKey: &secret, Peers: []uapi.PeerUpdate{{PublicKey: uapi.PublicKey{9}, PresharedKey: &secret}}}
	if err := e.Set(t.Context(), u.Body()); err != nil {
		t.Error(err)
	}
	// Mistakes that a log might quote.
	for _, body := range []string{fmt.Sprintf("private_key=%x00\n", secret[:]), fmt.Sprintf("%x\n", secret[:]), fmt.Sprintf("preshared_key=%x\n", secret[:])} {
		if err := e.Set(t.Context(), []byte(body)); err == nil {
			t.Errorf("%q accepted", body)
		} else {
			s.keepLine(err.Error())
		}
	}
	for _, name := range []string{"cmdline", "environ"} {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", e.Pid(), name))
		s.keepLine(string(text))
	}
	e.Close()
	shown := s.log()
	if !strings.Contains(shown, Argv0) || !strings.Contains(shown, "UAPI: Updating private key") {
		t.Errorf("this test did not see what it is about:\n%s", shown)
	}
	for _, form := range []string{fmt.Sprintf("%x", secret[:])[:16], base64Of(secret)[:8], "[1 2 3 0"} {
		if strings.Contains(shown, form) {
			t.Errorf("%q is shown in\n%s", form, shown)
		}
	}
}
