package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestHundredTunnels has a hundred tunnels at once to one peer. All pass
// traffic; all are gone soon after their apps.
func TestHundredTunnels(t *testing.T) {
	t.Parallel()
	const tunnels = 100
	w := newWorld(t)
	confs := make([]string, tunnels)
	for i := range confs {
		confs[i] = w.account(t)
	}
	before := w.snapshot(t)
	start := time.Now()
	apps := make([]*repeater, tunnels)
	for i, conf := range confs {
		apps[i] = startRepeater(t, w.tool("run", conf, "--", "sh", "-c",
			`while read -r _; do ping -q -c1 -W10 10.77.0.1 >/dev/null && echo done; done`))
	}
	rounds := func() {
		t.Helper()
		var all sync.WaitGroup
		for _, app := range apps {
			all.Go(func() {
				if err := app.try(30 * time.Second); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	rounds()
	t.Logf("%d tunnels stand and have passed packets after %v", tunnels, time.Since(start).Round(time.Millisecond))
	rounds()
	if t.Failed() {
		return
	}
	w.logMemory(t, tunnels)

	end := time.Now()
	for _, app := range apps {
		app.input.Close()
	}
	for _, app := range apps {
		if code := exitCode(t, app.cmd, goneWithin); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
	before.Check(t)
	if took := time.Since(end); took > 5*time.Second {
		t.Errorf("the tunnels were gone after %v", took)
	} else {
		t.Logf("all gone after %v", took.Round(time.Millisecond))
	}
}

var pssLine = regexp.MustCompile(`(?m)^Pss: +([0-9]+) kB$`)

// logMemory tells how much memory, as PSS, our processes take for a tunnel.
func (w *world) logMemory(t *testing.T, tunnels int) {
	t.Helper()
	sum := map[string]int{}
	for _, p := range w.machine.Processes() {
		role, _, _ := strings.Cut(p.Command, " ")
		if role = filepath.Base(role); !strings.HasPrefix(role, "wireguard4netns") {
			continue
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.PID))
		if err != nil {
			t.Error(err)
			continue
		}
		m := pssLine.FindSubmatch(text)
		if m == nil {
			t.Errorf("no Pss in smaps_rollup of %v", p)
			continue
		}
		kib, _ := strconv.Atoi(string(m[1]))
		sum[role] += kib
		sum["all"] += kib
	}
	for role, kib := range sum {
		t.Logf("PSS per tunnel, %s: %.1f MiB", role, float64(kib)/1024/float64(tunnels))
	}
	if sum["all"] == 0 {
		t.Error("none of our processes was found")
	}
}
