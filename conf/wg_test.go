package conf_test

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.zx2c4.com/wireguard/conn/bindtest"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"

	"wireguard4netns/conf"
)

// These tests compare this package with the real wg(8) and wg-quick(8) of
// wireguard-tools, run as they are.

// wg returns what wg(8) prints.
func wg(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("wg", args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("wg %v: %v", args, err)
	}
	return string(out)
}

// setconf gives text to "wg setconf" and returns what that sends to a WireGuard
// interface, which is a socket of ours: UAPI text. It is "" if wg refuses.
func setconf(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "wg0.sock"))
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan string, 1)
	go func() { sent <- answerSet(l) }()

	// wg looks for sockets in /var/run/wireguard only.
	script := `mount -t tmpfs none /run && mkdir /run/wireguard && mount --bind "$0" /run/wireguard && exec wg setconf wg0 "$1"`
	out, err := exec.Command("unshare", "-Urm", "sh", "-c", script, dir, file).CombinedOutput()
	l.Close()
	uapi := <-sent
	if refused := strings.Contains(string(out), "nfiguration"); refused == (err == nil) || refused != (uapi == "") {
		t.Fatalf("wg setconf: %v, sent %q\n%s", err, uapi, out)
	}
	return uapi
}

// answerSet serves UAPI connections until l is closed and returns the last
// text that began with set=1.
func answerSet(l net.Listener) (set string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return set
		}
		var text strings.Builder
		for lines := bufio.NewScanner(c); lines.Scan() && lines.Text() != ""; {
			fmt.Fprintln(&text, lines.Text())
		}
		if body, ok := strings.CutPrefix(text.String(), "set=1\n"); ok {
			set = body
		}
		io.WriteString(c, "errno=0\n\n")
		c.Close()
	}
}

// wireguardState gives UAPI text to an upstream WireGuard device and returns
// what it holds then, in an order that does not depend on chance.
func wireguardState(t *testing.T, uapi string) string {
	t.Helper()
	d := device.NewDevice(tuntest.NewChannelTUN().TUN(), bindtest.NewChannelBinds()[0], device.NewLogger(device.LogLevelSilent, ""))
	defer d.Close()
	if err := d.IpcSet(uapi); err != nil {
		t.Fatalf("%v\n%s", err, uapi)
	}
	state, err := d.IpcGet()
	if err != nil {
		t.Fatal(err)
	}
	state, _ = withoutNetwork(state)
	peers := strings.Split(strings.TrimSpace(state), "\npublic_key=")
	for i, peer := range peers {
		lines := strings.Split(peer, "\n")
		slices.Sort(lines[1:])
		peers[i] = strings.Join(lines, "\n")
	}
	slices.Sort(peers[1:])
	return strings.Join(peers, "\npublic_key=")
}

// uapi writes c as UAPI text.
func uapi(c *conf.Config) string {
	var b strings.Builder
	i := c.Interface
	fmt.Fprintf(&b, "private_key=%s\nlisten_port=%d\nfwmark=%d\nreplace_peers=true\n", i.PrivateKey.Hex(), i.ListenPort, i.FwMark)
	for _, p := range c.Peers {
		fmt.Fprintf(&b, "public_key=%s\npreshared_key=%s\n", p.PublicKey.Hex(), p.PresharedKey.Hex())
		if e, ok := p.Endpoint.AddrPort(); ok {
			fmt.Fprintf(&b, "endpoint=%s\n", e)
		}
		fmt.Fprintf(&b, "persistent_keepalive_interval=%d\nreplace_allowed_ips=true\n", int(p.PersistentKeepalive.Seconds()))
		for _, a := range p.AllowedIPs {
			fmt.Fprintf(&b, "allowed_ip=%s\n", a)
		}
	}
	return b.String()
}

// withoutNetwork takes the listen port and the endpoints out of UAPI text, and
// returns the last of each: the device's test network has its own.
func withoutNetwork(uapi string) (rest string, network map[string]string) {
	var b strings.Builder
	network = map[string]string{}
	peer := ""
	for line := range strings.Lines(uapi) {
		switch key, value, _ := strings.Cut(strings.TrimSpace(line), "="); key {
		case "endpoint", "listen_port":
			network[key+" "+peer] = value
		case "public_key":
			peer = value
			fallthrough
		default:
			b.WriteString(line)
		}
	}
	return b.String(), network
}

// compareWithWg fails unless wg(8) makes of wgText what Parse made of c.
func compareWithWg(t *testing.T, c *conf.Config, wgText string) {
	t.Helper()
	theirs := setconf(t, wgText)
	if theirs == "" {
		t.Fatalf("wg refuses\n%s", wgText)
	}
	wantSet, wantNetwork := withoutNetwork(theirs)
	gotSet, gotNetwork := withoutNetwork(uapi(c))
	if got, want := wireguardState(t, gotSet), wireguardState(t, wantSet); got != want {
		t.Errorf("ours:\n%s\nwg's:\n%s", got, want)
	}
	if !maps.Equal(gotNetwork, wantNetwork) {
		t.Errorf("ours %v, wg's %v", gotNetwork, wantNetwork)
	}
}

// TestWgAgrees has lines that wg(8) must take or refuse as Parse does, with
// the same outcome.
func TestWgAgrees(t *testing.T) {
	for _, text := range []string{
		head,
		"[Interface]\nPri vate\tKey = " + secret[:9] + " " + secret[9:] + "\n",
		"\v [ interface ] \f\nPRIVATEKEY=" + secret,
		head + peer,
		peer + head,
		head + peer + "[Interface]\nMTU",
		head + "[Interface] x",
		head + "[Peers]",
		head + "Foo = 1",
		head + "FooListenPort = 1",
		head + "PrivateKey = " + secret[:43],
		head + "PrivateKey = " + secret[:42] + "l=",
		head + "PrivateKey = " + secret + "=",
		head + "PrivateKey =",
		head + "PrivateKey = " + preshared,
		head + "ListenPort = 51820",
		head + "ListenPort = 1\nListenPort = 0051820",
		head + "ListenPort =",
		head + "ListenPort = x",
		head + "FwMark = 0xca6c",
		head + "FwMark = 0x",
		head + "FwMark = 010",
		head + "FwMark = -1",
		head + "FwMark = 4294967295",
		head + "FwMark = 4294967296",
		head + "FwMark = oFF",
		head + peer + "AllowedIPs = 10.1.2.3/8, 10. 9.9 .9/3 1,2001:DB8::1/32 # x",
		head + peer + "AllowedIPs = 10.0.0.1\nAllowedIPs = 10.0.0.2/032",
		head + peer + "AllowedIPs = 10.0.0.1/33",
		head + peer + "AllowedIPs = 10.0.0.1/",
		head + peer + "AllowedIPs = 10.0.0.1/-1",
		head + peer + "AllowedIPs = 10.0.0.01",
		head + peer + "AllowedIPs = 10.0.0",
		head + peer + "AllowedIPs = ::ffff:10.0.0.1/128, ::/0",
		head + peer + "AllowedIPs = ::1/129",
		head + peer + "AllowedIPs = fe80::1%lo/128",
		head + peer + "AllowedIPs = 10.0.0.1 10.0.0.2",
		head + peer + "AllowedIPs = 10.0.0.1;10.0.0.2",
		head + peer + "AllowedIPs = 10.1.0.0/16, 10.1.9.0/16",
		head + peer + "AllowedIPs = 10.1.0.0/16, 10.2.0.0/16\n[Peer]\nPublicKey=" + public2 + "\nAllowedIPs = 10.1.0.0/16, 10.1.0.0/17",
		head + peer + "AllowedIPs = 10.1.0.0/16\nPersistentKeepalive = 5\nPresharedKey = " + preshared + "\n" + peer + "AllowedIPs = 10.2.0.0/16",
		head + peer + "AllowedIPs = 10.1.0.0/16\n[Peer]\nPublicKey=" + public2 + "\nAllowedIPs = 10.1.0.0/16\n" + peer + "Endpoint = 192.0.2.1:1",
		head + peer + "AllowedIPs = 10.1.0.0/16\nPersistentKeepalive = 5\nEndpoint = 192.0.2.1:1\n" + peer + "PersistentKeepalive = off\nEndpoint=192.0.2.2:2",
		head + peer + "PresharedKey = " + preshared + "\nPresharedKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
		head + peer + "PresharedKey =",
		head + "[Peer]\nAllowedIPs = 10.0.0.1",
		head + peer + "Endpoint = 192.0.2.1:51820",
		head + peer + "Endpoint = [192.0.2.1]:51820",
		head + peer + "Endpoint = [2001:DB8::1]:51820",
		head + peer + "Endpoint = [fe80::1%lo]:51820",
		head + peer + "Endpoint = 2001:db8::1:51820",
		head + peer + "Endpoint = [2001:db8::1]",
		head + peer + "Endpoint = [2001:db8::1:51820",
		head + peer + "Endpoint = [2001:db8::1]51820",
		head + peer + "Endpoint = 192.0.2.1",
		head + peer + "Endpoint = 192.0.2.1:",
		head + peer + "Endpoint =",
		head + peer + "PersistentKeepalive = 0",
		head + peer + "PersistentKeepalive = 65535",
		head + peer + "PersistentKeepalive = 65536",
		head + peer + "PersistentKeepalive = 0x10",
		head + peer + "PersistentKeepalive = -1",
		head + peer + "PersistentKeepalive = OFF",
		head + peer + "PersistentKeepalive =",
		head + peer + "= 1",
		head + "; comment",
		head + "a line",
		"MTU = 1",
	} {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			c, _, err := parse(text)
			if err == nil {
				compareWithWg(t, c, text)
			} else if uapi := setconf(t, text); uapi != "" {
				t.Errorf("%v; but wg takes\n%s", err, text)
			}
		})
	}
}
