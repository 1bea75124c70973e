package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// with has the world's user always ask for an engine.
func (w *world) with(t testing.TB, engine string) *world {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "w4n-engine")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	script := filepath.Join(dir, "wireguard4netns")
	text := fmt.Sprintf("#!/bin/sh\ncommand=$1\nshift\nexec %s \"$command\" --engine=%s \"$@\"\n", w.program, engine)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w.program = script
	return w
}

// TestWireGuardGo: the engine that is not the default, with wireguard-go as published
// in both roles. All other tests use the default.
func TestWireGuardGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t).with(t, "wireguard-go")
	cmd, app, _ := w.runApp(t, w.account(t))
	checkTraffic(t, w.inApp(app), w.peer)
	found := 0
	for _, p := range w.machine.Processes() {
		if strings.HasPrefix(p.Command, "wireguard4netns-engine") && strings.Contains(p.Command, "--engine=wireguard-go") {
			found++
		}
	}
	if found != 1 {
		t.Errorf("%d engines of that kind, want 1: %v", found, w.machine.Processes())
	}
	_ = cmd.Process.Kill()
	w.checkCalls(t, func(conf string) {
		t.Helper()
		checkTraffic(t, w.inTunnel(conf), w.peer)
	})
}

// TestWireGuardGoKernel: the same with the Linux kernel's WireGuard.
func TestWireGuardGoKernel(t *testing.T) {
	t.Parallel()
	newLinkedHosts(t).with(t, "wireguard-go").checkKernel(t)
}
