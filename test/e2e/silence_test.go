package e2e_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"wireguard4netns/internal/nstest"
)

// foundOut is how soon a peer that lost its state must answer again, while packets
// are sent to it.
const foundOut = 6 * time.Second

// TestPeerLosesItsState kills one of two peers under a ping and starts it anew: it
// answers again before wireguard-go's timers would have asked, and the session with
// the other is left alone.
func TestPeerLosesItsState(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	elsewhere := nstest.NewHost(t)
	nstest.Connect(t,
		nstest.End{Host: w.machine, Name: "eth1", Addrs: []netip.Prefix{netip.MustParsePrefix("198.51.100.2/24")}},
		nstest.End{Host: elsewhere, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("198.51.100.1/24")}})
	other := nstest.StartUpstream(t, elsewhere)
	a := w.peer.NewAccount(t, internet4, nstest.AccountOptions{})
	other.Run(t, fmt.Sprintf("wg set wg0 peer %s allowed-ips %s/128", a.PublicKey, a.Addr6))
	conf := strings.Replace(a.Conf(), "AllowedIPs = 0.0.0.0/0, ::/0", "AllowedIPs = 10.77.0.1/32", 1)
	conf += fmt.Sprintf("\n[Peer]\nPublicKey = %s\nEndpoint = 198.51.100.1:%d\nAllowedIPs = fd77::1/128\n", other.PublicKey, other.Port)
	w.mustRun(t, "up", "--name", "home", writeConf(t, conf))

	here, there := w.pings(t, "home", w.peer.Addr4), w.pings(t, "home", other.Addr6)
	here.after(t, time.Now(), 10*time.Second)
	there.after(t, time.Now(), 10*time.Second)
	shaken := other.LastHandshake(t, a)

	w.peer.Restart(t)
	back := time.Now()
	took := here.after(t, back, 20*time.Second).Sub(back)
	t.Logf("an answer %v after the peer was back", took)
	if took > foundOut {
		t.Errorf("an answer %v after the peer was back, want one within %v", took, foundOut)
	}
	there.after(t, time.Now(), 10*time.Second)
	if now := other.LastHandshake(t, a); !now.Equal(shaken) {
		t.Errorf("the other peer had to make a session at %v again, after %v", now, shaken)
	}
	if late := there.late(); late > 5 {
		t.Errorf("%d answers of the other peer were late, or lost", late)
	}
	here.end()
	there.end()
	w.mustRun(t, "down", "home")
}

// pings is a ping every 200 ms.
type pings struct {
	out lockedBuffer
	end func()
}

func (w *world) pings(t *testing.T, name string, addr netip.Addr) *pings {
	t.Helper()
	p := new(pings)
	cmd := w.tool("exec", name, "--", "ping", "-D", "-O", "-i", "0.2", addr.String())
	cmd.Stdout = &p.out
	nstest.Start(t, cmd)
	p.end = func() { cmd.Process.Kill(); cmd.Wait() }
	return p
}

var answered = regexp.MustCompile(`(?m)^\[(\d+\.\d+)\] \d+ bytes from`)

// after returns when the first answer came after a time.
func (p *pings) after(t *testing.T, begin time.Time, limit time.Duration) (at time.Time) {
	t.Helper()
	nstest.Eventually(t, limit, func() error {
		for _, match := range answered.FindAllStringSubmatch(p.out.String(), -1) {
			seconds, err := strconv.ParseFloat(match[1], 64)
			if err != nil {
				return err
			}
			if at = time.UnixMicro(int64(seconds * 1e6)); at.After(begin) {
				return nil
			}
		}
		return fmt.Errorf("no answer:\n%s", p.out.String())
	})
	return at
}

// late counts the packets that had no answer when the next was sent. On a busy
// machine an answer may take so long.
func (p *pings) late() int { return strings.Count(p.out.String(), "no answer yet") }
