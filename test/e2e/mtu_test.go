package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"wireguard4netns/internal/nstest"
)

// newRoutedWorld is newWorld with a router between the machine and the Internet,
// so that a link which is not the machine's can be the narrow one. A router asks for
// its neighbours from link-local addresses only.
//
//	machine                    router                     internet
//	  eth0 192.0.2.2 ── eth0 192.0.2.254
//	                            eth1 198.51.100.254 ── eth0 198.51.100.1
//	       2001:db8::2          2001:db8:1::fe             2001:db8:1::1
func newRoutedWorld(t *testing.T) (w *world, router *nstest.Host) {
	t.Helper()
	prefixes := func(list ...string) (out []netip.Prefix) {
		for _, s := range list {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	router = nstest.NewHost(t)
	w = &world{machine: nstest.NewHost(t), internet: nstest.NewHost(t), program: nstest.Build(t)}
	nstest.Connect(t,
		nstest.End{Host: w.machine, Name: "eth0", Addrs: prefixes("192.0.2.2/24", "2001:db8::2/64")},
		nstest.End{Host: router, Name: "eth0", Addrs: prefixes("192.0.2.254/24", "2001:db8::fe/64", "fe80::1/64")})
	nstest.Connect(t,
		nstest.End{Host: router, Name: "eth1", Addrs: prefixes("198.51.100.254/24", "2001:db8:1::fe/64", "fe80::2/64")},
		nstest.End{Host: w.internet, Name: "eth0", Addrs: prefixes("198.51.100.1/24", "2001:db8:1::1/64")})
	router.Run(t, "sh", "-ec", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
	for host, via := range map[*nstest.Host][2]string{w.machine: {"192.0.2.254", "2001:db8::fe"}, w.internet: {"198.51.100.254", "2001:db8:1::fe"}} {
		host.Run(t, "ip", "route", "add", "default", "via", via[0])
		host.Run(t, "ip", "-6", "route", "add", "default", "via", via[1])
	}
	w.peer = nstest.StartUpstream(t, w.internet)
	w.user = login(t, w.machine)
	return w, router
}

// TestPathBecomesNarrow drops the MTU of a link on the way to 1280 while a file is
// sent: the router's "too big" is heeded, the link inside follows, and the file
// arrives as it was. When the kernel has forgotten, the link is as before.
func TestPathBecomesNarrow(t *testing.T) {
	t.Parallel()
	for family, c := range map[string]struct {
		reach        netip.Addr
		before, then int
	}{
		"IPv4": {netip.MustParseAddr("198.51.100.1"), 1440, 1280},
		"IPv6": {netip.MustParseAddr("2001:db8:1::1"), 1420, 1280},
	} {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			w, router := newRoutedWorld(t)
			conf := w.peer.NewAccount(t, c.reach, nstest.AccountOptions{}).WriteConf(t)
			w.mustRun(t, "up", "--name", "home", conf)
			w.flows(t, "home", 10*time.Second)
			w.hasMTU(t, "home", c.before, comesBack)

			get := w.internet.Command("sh", "-ec", "busybox nc -l -p 9000 | sha256sum")
			sum := new(lockedBuffer)
			get.Stdout = sum
			if _, err := get.StdinPipe(); err != nil { // at its end nc would say so to the other
				t.Fatal(err)
			}
			nstest.Start(t, get)
			w.internet.WaitListen(t, 9000)
			send := w.tool("exec", "home", "--", "busybox", "nc", w.peer.Addr4.String(), "9000")
			input, err := send.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			nstest.Start(t, send)
			want := sha256.New()
			data := io.TeeReader(rand.NewChaCha8([32]byte{1}), want)
			write := func(bytes int64) time.Duration {
				start := time.Now()
				if _, err := io.CopyN(input, data, bytes); err != nil {
					t.Fatalf("send: %v", err)
				}
				return time.Since(start)
			}
			write(8 << 20)
			for _, link := range []struct {
				host *nstest.Host
				name string
			}{{router, "eth1"}, {w.internet, "eth0"}} {
				link.host.Run(t, "ip", "link", "set", link.name, "mtu", "1280")
			}
			t.Logf("8 MiB through the narrow path in %v", write(8<<20))
			w.hasMTU(t, "home", c.then, comesBack)
			input.Close()
			if code := exitCode(t, send, 20*time.Second); code != 0 {
				t.Errorf("send: exit code %d", code)
			}
			exitCode(t, get, 20*time.Second)
			if got, _, _ := strings.Cut(sum.String(), " "); got != hex.EncodeToString(want.Sum(nil)) {
				t.Errorf("what arrived has the sum %q, want %x", got, want.Sum(nil))
			}

			for _, link := range []struct {
				host *nstest.Host
				name string
			}{{router, "eth1"}, {w.internet, "eth0"}} {
				link.host.Run(t, "ip", "link", "set", link.name, "mtu", "1500")
			}
			w.machine.Run(t, "ip", "route", "flush", "cache") // else after ten minutes
			w.machine.Run(t, "ip", "-6", "route", "flush", "cache")
			p := w.pings(t, "home", w.peer.Addr4)
			w.hasMTU(t, "home", c.before, 15*time.Second)
			p.end()
			w.mustRun(t, "down", "home")
		})
	}
}

// hasMTU waits until the link of a tunnel has an MTU and status says so.
func (w *world) hasMTU(t *testing.T, name string, want int, limit time.Duration) {
	t.Helper()
	start := time.Now()
	nstest.Eventually(t, limit, func() error {
		out := w.mustRun(t, "exec", name, "--", "cat", "/sys/class/net/wg0/mtu")
		if s := w.status(t, name); strings.TrimSpace(out) != fmt.Sprint(want) || s.MTU != want {
			text, _ := os.ReadFile(w.machine.Path(s.Directory + "/log"))
			return fmt.Errorf("the MTU is %s, status says %d from %s, want %d\n%s\n%s", out, s.MTU, s.MTUSource, want,
				w.machine.Run(t, "ip", "route", "show", "cache"), text)
		}
		return nil
	})
	t.Logf("MTU %d after %v", want, time.Since(start))
}
