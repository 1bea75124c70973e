//go:build root

package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
)

// TestRootNetNS: root gives a namespace of `ip netns` a network, by its path
// and by a process in it.
func TestRootNetNS(t *testing.T) {
	t.Parallel()
	run := func(name string, args ...string) {
		t.Helper()
		succeed(t, exec.Command(name, args...))
	}
	for _, by := range []string{"path", "process"} {
		t.Run(by, func(t *testing.T) {
			w, conf := newRealWorld(t, "0.0.0.0/0")
			name := fmt.Sprintf("w4n-test-%d", os.Getpid())
			run("ip", "netns", "add", name)
			deleted := false
			t.Cleanup(func() {
				if !deleted {
					run("ip", "netns", "delete", name)
				}
			})
			inside := func(program string, args ...string) *exec.Cmd {
				return exec.Command("ip", append([]string{"netns", "exec", name, program}, args...)...)
			}
			target := "/run/netns/" + name
			resident := inside("sh", "-c", "echo $$; exec sleep 1000")
			if by == "process" {
				target = strconv.Itoa(hold(t, resident))
			}
			attach := w.attach(t, "-c", target, "wg0", conf)
			run("ip", "netns", "exec", name, "ping", "-c1", "-w15", "10.77.0.1")
			if _, err := echo.Call(inside, transfer{Addr: "10.77.0.1:7", Bytes: 256 << 10}); err != nil {
				t.Error(err)
			}
			if by == "process" {
				resident.Process.Kill()
			} else {
				run("ip", "netns", "delete", name)
				deleted = true
			}
			w.checkGone(t, attach)
		})
	}
}
