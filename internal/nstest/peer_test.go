package nstest_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"wireguard4netns/internal/nstest"
)

// pair is the usual scene: the user's machine, and the Internet with a VPN
// peer in it.
func pair(t *testing.T) (user, internet *nstest.Host) {
	user, internet = nstest.NewHost(t), nstest.NewHost(t)
	nstest.Connect(t,
		nstest.End{Host: user, Name: "eth0", Addrs: prefixes("192.0.2.1/24")},
		nstest.End{Host: internet, Name: "eth0", Addrs: prefixes("192.0.2.2/24")})
	return user, internet
}

var internetAddr = netip.MustParseAddr("192.0.2.2")

// bringUp makes wg0 on the user's machine by programs that are not ours, to
// prove the scene itself.
func bringUp(t *testing.T, user *nstest.Host, a nstest.Account, extra ...string) {
	near := nstest.StartUpstream(t, user)
	near.Run(t, "ip addr flush dev wg0")
	conf := a.WriteConf(t, extra...)
	near.Run(t, "wg-quick strip "+conf+" | wg setconf wg0 /dev/stdin")
	near.Run(t, "ip addr add "+a.Addr4.String()+"/16 dev wg0; ip addr add "+a.Addr6.String()+"/64 dev wg0")
}

func TestUpstreamPeer(t *testing.T) {
	for _, version := range []struct {
		name  string
		start func(testing.TB, *nstest.Host) *nstest.Peer
	}{
		{"current", nstest.StartUpstream},
		{"2022", nstest.StartUpstream2022},
	} {
		t.Run(version.name, func(t *testing.T) {
			t.Parallel()
			user, internet := pair(t)
			peer := version.start(t, internet)
			internet.Serve(t, nstest.Services{Page: "far away", Answers: []netip.Addr{peer.Addr4, peer.Addr6}})
			account := peer.NewAccount(t, internetAddr, nstest.AccountOptions{PSK: true})
			bringUp(t, user, account)

			user.Run(t, "ping", "-c1", "-w15", peer.Addr4.String())
			user.Run(t, "ping", "-c1", "-w15", peer.Addr6.String())
			if peer.LastHandshake(t, account).IsZero() {
				t.Error("no handshake at the peer")
			}
			got, err := fetch.Call(user.UserCommand, "http://"+peer.Addr4.String()+"/")
			if err != nil || got != "far away\n" {
				t.Errorf("page: %q, %v", got, err)
			}
			addrs, err := lookup.Call(user.UserCommand, lookupInput{peer.Addr4.String() + ":53", "some.example"})
			if err != nil || strings.Join(addrs, " ") != "10.77.0.1 fd77::1" {
				t.Errorf("lookup: %v, %v", addrs, err)
			}
		})
	}
}

func TestPeerSpeaksFirst(t *testing.T) {
	t.Parallel()
	user, internet := pair(t)
	peer := nstest.StartUpstream(t, internet)
	account := peer.NewAccount(t, internetAddr, nstest.AccountOptions{Listen: netip.MustParseAddrPort("192.0.2.1:40000")})
	bringUp(t, user, account)
	peer.Run(t, "ping -c1 -w15 "+account.Addr4.String())
	if peer.LastHandshake(t, account).IsZero() {
		t.Error("no handshake at the peer")
	}
}

func TestCapture(t *testing.T) {
	t.Parallel()
	user, internet := pair(t)
	peer := nstest.StartUpstream(t, internet)
	account := peer.NewAccount(t, internetAddr, nstest.AccountOptions{})
	bringUp(t, user, account)
	wire := nstest.StartCapture(t, user, "eth0")
	all := nstest.StartCapture(t, user, "")
	user.Run(t, "ping", "-c1", "-w15", peer.Addr6.String())

	seen := map[string]bool{}
	for _, p := range wire.Stop(t) {
		if p.IsNeighbour() {
			continue
		}
		if !p.IsWireGuard() {
			t.Errorf("on the wire: %v", p)
		}
		if p.Out && p.Dst != account.Endpoint {
			t.Errorf("to elsewhere: %v", p)
		}
		// An initiation is 148 bytes, a response 92; outside them IPv4 and UDP.
		switch {
		case p.Out && p.Payload[0] == 1 && p.Length == 148+28:
			seen["initiation"] = true
		case !p.Out && p.Payload[0] == 2 && p.Length == 92+28:
			seen["response"] = true
		}
	}
	if !seen["initiation"] || !seen["response"] {
		t.Errorf("of the handshake only %v was captured", seen)
	}
	inside := false
	for _, p := range all.Stop(t) {
		inside = inside || p.Link == "wg0" && p.Out && p.Dst.Addr() == peer.Addr6
	}
	if !inside {
		t.Error("the ping on wg0 was not captured")
	}
}

func TestSnapshot(t *testing.T) {
	t.Parallel()
	h := nstest.NewHost(t)
	dir := t.TempDir()
	before := nstest.TakeSnapshot(t, h, dir)
	if more := before.Since(t); len(more) != 0 {
		t.Fatalf("nothing happened, but: %q", more)
	}
	if err := os.WriteFile(dir+"/left", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.Run(t, "mount", "-t", "tmpfs", "left", "/mnt")
	cmd := h.UserCommand("unshare", "--user", "--net", "sleep", "1000")
	nstest.Start(t, cmd)
	nstest.Eventually(t, 15*time.Second, func() error {
		more := strings.Join(before.Since(t), "\n")
		for _, want := range []string{"process sleep 1000", "netns net:[", "mount /mnt", "file " + dir + "/left"} {
			if !strings.Contains(more, want) {
				return errors.New("no " + want + " in:\n" + more)
			}
		}
		return nil
	})
}

func TestKernelPeer(t *testing.T) {
	t.Parallel()
	user, internet := pair(t)
	peer := nstest.StartKernelPeer(t, internet)
	account := peer.NewAccount(t, internetAddr, nstest.AccountOptions{
		PSK: true, Listen: netip.MustParseAddrPort("192.0.2.1:40000"),
	})
	bringUp(t, user, account)

	t.Log("the kernel speaks first")
	peer.Run(t, "ping -c1 -W10 "+account.Addr4.String())
	first := peer.LastHandshake(t, account)
	if first.IsZero() {
		t.Fatal("no handshake at the peer")
	}
	t.Log("and bytes pass both ways")
	user.Run(t, "ping", "-c1", "-W10", peer.Addr6.String())
	const size = 1 << 20
	got, err := fetch.Call(user.UserCommand, fmt.Sprintf("http://%s/cgi-bin/zero?%d", peer.Addr4, size))
	if err != nil || len(got) != size {
		t.Errorf("fetched %d bytes, %v", len(got), err)
	}
	count, err := post.Call(user.UserCommand, postInput{fmt.Sprintf("http://[%s]/cgi-bin/count", peer.Addr6), size})
	if err != nil || strings.TrimSpace(count) != fmt.Sprint(size) {
		t.Errorf("posted %q bytes, %v", count, err)
	}
}

func TestKernelPeerAnswers(t *testing.T) {
	t.Parallel()
	user, internet := pair(t)
	peer := nstest.StartKernelPeer(t, internet)
	account := peer.NewAccount(t, internetAddr, nstest.AccountOptions{PSK: true})
	bringUp(t, user, account)
	user.Run(t, "ping", "-c1", "-W10", peer.Addr4.String())
	if peer.LastHandshake(t, account).IsZero() {
		t.Error("no handshake at the peer")
	}
}
