package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"wireguard4netns/internal/nstest"
)

// maxStall is how long a flow may stand still when its engine is killed.
const maxStall = 2 * time.Second

// engines returns the PIDs of the engines on the machine.
func (w *world) engines() (pids []int) {
	for _, p := range w.machine.Processes() {
		if strings.HasPrefix(p.Command, "wireguard4netns-engine") {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

// TestEngineKilled kills the engine while a TCP flow goes each way: both go on,
// and the app sees nothing of it in its link.
func TestEngineKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.snapshot(t)
	cmd, app, _ := w.runApp(t, w.account(t))
	inApp := w.inApp(app)
	nstest.Start(t, w.internet.Command("iperf3", "--server", "--one-off", "--json", "--interval=0.1"))
	w.internet.WaitListen(t, 5201)

	var events lockedBuffer
	monitor := inApp("ip", "monitor", "link")
	monitor.Stdout = &events
	nstest.Start(t, monitor)
	link := succeed(t, inApp("ip", "link", "show", "wg0"))

	var report bytes.Buffer
	flow := inApp("iperf3", "--client", w.peer.Addr4.String(), "--bidir", "--time=4", "--interval=0.1", "--json", "--get-server-output")
	flow.Stdout = &report
	nstest.Start(t, flow)
	awaitTraffic(t, inApp, 16<<20)
	killed := w.engines()
	if len(killed) != 1 {
		t.Fatalf("engines: %v", killed)
	}
	syscall.Kill(killed[0], syscall.SIGKILL)

	if code := exitCode(t, flow, 30*time.Second); code != 0 {
		t.Fatalf("iperf3: exit code %d\n%s", code, report.String())
	}
	if now := w.engines(); len(now) != 1 || now[0] == killed[0] {
		t.Errorf("engines before %v, after %v", killed, now)
	}
	for direction, stall := range stalls(t, report.Bytes()) {
		t.Logf("%s: longest stall %v", direction, stall)
		if stall > maxStall {
			t.Errorf("%s stood still for %v", direction, stall)
		}
	}
	if now := succeed(t, inApp("ip", "link", "show", "wg0")); now != link {
		t.Errorf("link before:\n%s\nafter:\n%s", link, now)
	}
	// The monitor sees what it would have seen. Before that, only that the new
	// engine turned the link's offloads on once more.
	succeed(t, inApp("ip", "link", "set", "wg0", "mtu", "1300"))
	nstest.Eventually(t, 15*time.Second, func() error {
		if !strings.Contains(events.String(), "mtu 1300") {
			return fmt.Errorf("ip monitor says %q", events.String())
		}
		return nil
	})
	unchanged, _, _ := strings.Cut(link, " qdisc")
	for line := range strings.Lines(events.String()) {
		if strings.Contains(line, "mtu 1300") {
			break
		}
		if !strings.HasPrefix(line, " ") && !(strings.HasPrefix(line, unchanged) && strings.Contains(line, "event FEATURE CHANGE")) {
			t.Errorf("event of the link: %s", line)
		}
	}
	monitor.Process.Kill()
	syscall.Kill(app, syscall.SIGKILL)
	exitCode(t, cmd, goneWithin)
	before.Check(t)
}

// awaitTraffic waits until the link has passed so many bytes in each direction.
func awaitTraffic(t testing.TB, inApp commander, least int) {
	t.Helper()
	nstest.Eventually(t, 20*time.Second, func() error {
		text := succeed(t, inApp("sh", "-c", "cd /sys/class/net/wg0/statistics; cat rx_bytes tx_bytes"))
		for _, number := range strings.Fields(text) {
			if n, err := strconv.Atoi(number); err != nil || n < least {
				return fmt.Errorf("counters: %q, %v", text, err)
			}
		}
		return nil
	})
}

// stalls returns, for each direction of a flow, how long its receiver got
// nothing at most.
func stalls(t testing.TB, report []byte) map[string]time.Duration {
	t.Helper()
	type output struct {
		Intervals []struct {
			Streams []struct {
				Seconds float64
				Bytes   int
				Sender  bool
			}
		}
	}
	var r struct {
		output
		Server output `json:"server_output_json"`
	}
	if err := json.Unmarshal(report, &r); err != nil {
		t.Fatal(err)
	}
	longest := map[string]time.Duration{}
	for direction, side := range map[string]output{"to the app": r.output, "from the app": r.Server} {
		var stall, all float64
		for _, interval := range side.Intervals {
			for _, stream := range interval.Streams {
				switch {
				case stream.Sender:
					continue
				case stream.Bytes == 0:
					stall += stream.Seconds
				default:
					stall = 0
				}
				all += stream.Seconds
				longest[direction] = max(longest[direction], time.Duration(stall*float64(time.Second)))
			}
		}
		if all < 3 {
			t.Fatalf("%s: iperf3 reported on %v seconds only", direction, all)
		}
		if stall > 0.5 { // the last interval may be short
			t.Errorf("%s: nothing came at the end, for %v seconds", direction, stall)
		}
	}
	return longest
}
