//go:build !cgo

// Figures of a build with the race detector would mean nothing.

package engine

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"wireguard4netns/internal/nstest"
	"wireguard4netns/internal/sandbox"
)

// resident reads VmRSS or VmHWM of an engine's process, in KiB.
func resident(t testing.TB, e *Engine, field string) (size int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), field+":")
	if _, err := fmt.Sscan(after, &size); err != nil {
		t.Fatal(err)
	}
	return size
}

// An engine is small at rest, bounded under load, and small again after it.
func TestMemory(t *testing.T) {
	a, b := newPair(t, sandbox.Auto)
	ping(t, a, b)
	idle := resident(t, a.engine, "VmRSS")
	stall(t, a, b, func() {})
	stall(t, b, a, func() {})
	a.device(t)
	peak := resident(t, a.engine, "VmHWM")
	nstest.Eventually(t, 10*time.Second, func() error {
		a.device(t) // looks whether it is at rest
		if now := resident(t, a.engine, "VmRSS"); now > 40<<10 {
			return fmt.Errorf("%d KiB resident after the load", now)
		}
		return nil
	})
	t.Logf("%d KiB resident at rest, %d at most, %d after", idle, peak, resident(t, a.engine, "VmRSS"))
	if idle > 20<<10 || peak > 200<<10 {
		t.Errorf("more than 20 MiB at rest or 200 MiB under load")
	}
}
