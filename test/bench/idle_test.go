//go:build bench

package bench_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wireguard4netns/internal/nstest"
)

// idleWakeups is how often each process of a tunnel at rest may wake in a minute. What
// its threads do within a moment is one: every two minutes Go collects garbage, with as
// many threads as there are processors.
const (
	idleWakeups = 6
	moment      = 50 * time.Millisecond
)

// TestIdle counts how often the processes of a tunnel wake that has been used, has no
// keepalive and is at rest. WireGuard's own timers end within a minute and a half.
func TestIdle(t *testing.T) {
	machine, internet := nstest.NewHost(t), nstest.NewHost(t)
	nstest.Connect(t,
		nstest.End{Host: machine, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")}},
		nstest.End{Host: internet, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}})
	peer := nstest.StartUpstream(t, internet)
	conf := peer.NewAccount(t, netip.MustParseAddr("192.0.2.1"), nstest.AccountOptions{}).WriteConf(t)
	program := nstest.Build(t)
	cmd := machine.UserCommand(program, "run", conf, "--", "sh", "-c", "ping -q -c 5 "+peer.Addr4.String()+" && echo pinged && exec sleep 300")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	nstest.Start(t, cmd)
	var text strings.Builder
	for buf := make([]byte, 1<<10); !strings.Contains(text.String(), "pinged"); {
		n, err := out.Read(buf)
		if err != nil {
			t.Fatalf("%v: %s", err, text.String())
		}
		text.Write(buf[:n])
	}
	time.Sleep(90 * time.Second)
	first := switches(t, machine)
	if len(first) < 2 {
		t.Errorf("processes: %v", first)
	}
	last, woke := first, map[string]int{}
	end := time.After(time.Minute)
	for tick := time.NewTicker(moment); ; {
		select {
		case <-tick.C:
			now := switches(t, machine)
			for name, n := range now {
				if n != last[name] {
					woke[name]++
				}
			}
			last = now
			continue
		case <-end:
		}
		break
	}
	for name, n := range last {
		t.Logf("%s woke %d times in a minute; its threads, %d times", name, woke[name], n-first[name])
		if woke[name] > idleWakeups {
			t.Errorf("%s woke %d times in a minute, want at most %d", name, woke[name], idleWakeups)
		}
	}
}

// switches counts how often the threads of each of our processes have waited for
// something, and so were woken.
func switches(t *testing.T, h *nstest.Host) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for _, p := range h.Processes() {
		name, _, _ := strings.Cut(p.Command, " ")
		name = filepath.Base(name)
		if !strings.HasPrefix(name, "wireguard4netns-") {
			continue
		}
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.PID))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			text, _ := os.ReadFile(f)
			for line := range strings.Lines(string(text)) {
				var n int
				if _, err := fmt.Sscanf(line, "voluntary_ctxt_switches: %d", &n); err == nil {
					counts[name] += n
				}
			}
		}
	}
	return counts
}
