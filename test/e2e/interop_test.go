package e2e_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"wireguard4netns/internal/nstest"
)

var endpointLine = regexp.MustCompile(`(?m)^Endpoint = .*\n`)

// TestUpstream: the other end is wireguard-go as published.
func TestUpstream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.checkCalls(t, func(conf string) {
		t.Helper()
		checkTraffic(t, w.inTunnel(conf), w.peer)
	})
}

// TestIPv6Endpoint: the outer packets are IPv6. In a world of its own, because
// this wireguard-go sends its first IPv6 datagrams to a wrong address when it
// has sent IPv4 ones before (WireGuard/wireguard-go, pull request 135).
func TestIPv6Endpoint(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	account := w.peer.NewAccount(t, internet6, nstest.AccountOptions{PSK: true})
	seen := nstest.StartCapture(t, w.machine, "eth0")
	checkTraffic(t, w.inTunnel(account.WriteConf(t)), w.peer)
	datagrams := 0
	for _, p := range seen.Stop(t) {
		if !p.IsWireGuard() {
			continue
		}
		if datagrams++; p.Dst != account.Endpoint && p.Src != account.Endpoint {
			t.Errorf("the endpoint is %v, but this was seen: %v", account.Endpoint, p)
		}
	}
	if datagrams == 0 {
		t.Error("no datagram of WireGuard was seen")
	}
}

// checkCalls has each end call the other, with and without a preshared key.
// traffic runs an app in a tunnel and has it exchange data with the peer.
func (w *world) checkCalls(t *testing.T, traffic func(conf string)) {
	t.Run("we call", func(t *testing.T) {
		account := w.peer.NewAccount(t, internet4, nstest.AccountOptions{})
		traffic(account.WriteConf(t))
		if w.peer.LastHandshake(t, account).IsZero() {
			t.Error("the peer knows of no handshake")
		}
	})
	t.Run("we call, preshared key", func(t *testing.T) {
		account := w.peer.NewAccount(t, internet4, nstest.AccountOptions{PSK: true})
		traffic(account.WriteConf(t))
		t.Run("wrong", func(t *testing.T) {
			account.PresharedKey = encode(newKey(t).Bytes())
			cmd := w.tool("run", "--wait=1s", account.WriteConf(t), "true")
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Error("a handshake with a wrong preshared key")
			}
			contains(t, string(out), "no handshake")
		})
	})
	for _, called := range []struct {
		name string
		psk  bool
		port uint16 // one each: the tunnel before may take a moment to go
	}{
		{"the peer calls", false, 51998},
		{"the peer calls, preshared key", true, 51999},
	} {
		t.Run(called.name, func(t *testing.T) {
			listen := netip.AddrPortFrom(machine4, called.port)
			account := w.peer.NewAccount(t, internet4, nstest.AccountOptions{PSK: called.psk, Listen: listen})
			// Without an endpoint our side has nobody to call.
			conf := endpointLine.ReplaceAllString(account.Conf(), "")
			cmd, app, _ := w.runApp(t, writeConf(t, conf))
			w.peer.Run(t, fmt.Sprintf("ping -c1 -W10 %s && ping -c1 -W10 %s", account.Addr4, account.Addr6))
			// And back: where it called from is known now.
			succeed(t, w.inApp(app)("ping", "-c1", "-w15", w.peer.Addr4.String()))
			cmd.Process.Kill()
		})
	}
}

// TestKernel: the other end is the Linux kernel's WireGuard.
func TestKernel(t *testing.T) {
	t.Parallel()
	newLinkedHosts(t).checkKernel(t)
}

// checkKernel has the machine exchange calls and data with a kernel.
func (w *world) checkKernel(t *testing.T) {
	t.Helper()
	w.peer = nstest.StartKernelPeer(t, w.internet)
	// Random text to fetch, and who sends some gets its checksum back.
	sum := strings.Fields(w.peer.Run(t, `head -c 1000000 /dev/urandom | base64 >/www/data
printf '#!/bin/sh\necho Content-Type: text/plain; echo; sha256sum\n' >/www/cgi-bin/sum
chmod 755 /www/cgi-bin/sum
sha256sum /www/data`))[0]
	w.checkCalls(t, func(conf string) {
		t.Helper()
		out, _ := outputs(t, w.inTunnel(conf)("sh", "-ec", `ping -c1 -W10 10.77.0.1
ping -c1 -W10 fd77::1
cd "$(mktemp -d)"
for address in 10.77.0.1 [fd77::1]; do
	busybox wget -q -O data http://$address/data
	sha256sum data
	busybox wget -q -O sum --post-file=data http://$address/cgi-bin/sum
	cat sum
done
rm -r "$PWD"`))
		if n := strings.Count(out, sum); n != 4 {
			t.Errorf("%d of 4 transfers have the checksum %s:\n%s", n, sum, out)
		}
	})
}

// TestEndpointName: a name's addresses are all tried. The first is nobody's.
func TestEndpointName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.machine.PrivateEtc(t)
	w.machine.WriteFile(t, "/etc/hosts", "192.0.2.9 vpn.example\n192.0.2.1 vpn.example\n")
	conf := func(t *testing.T) string {
		account := w.peer.NewAccount(t, internet4, nstest.AccountOptions{})
		return writeConf(t, strings.Replace(account.Conf(), "192.0.2.1:", "vpn.example:", 1))
	}
	contains(t, succeed(t, w.tool("run", "--dry-run", conf(t))), "endpoint vpn.example:51820: 192.0.2.9, 192.0.2.1")
	t.Run("--wait", func(t *testing.T) {
		t.Parallel()
		start := time.Now()
		succeed(t, w.tool("run", "--wait=30s", conf(t), "true"))
		t.Logf("handshake at the second address after %v", time.Since(start))
	})
	t.Run("in the background", func(t *testing.T) {
		t.Parallel()
		succeed(t, w.inTunnel(conf(t))("ping", "-c1", "-w30", w.peer.Addr4.String()))
	})
	t.Run("all dead", func(t *testing.T) {
		t.Parallel()
		text := strings.Replace(w.peer.NewAccount(t, internet4, nstest.AccountOptions{}).Conf(), "192.0.2.1:51820", "vpn.example:9", 1)
		out, err := w.tool("run", "--wait=1s", writeConf(t, text), "true").CombinedOutput()
		if err == nil {
			t.Error("a handshake with nobody")
		}
		contains(t, string(out), "vpn.example:9 (192.0.2.9, 192.0.2.1)", "no handshake")
	})
}
