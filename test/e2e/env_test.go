package e2e_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"wireguard4netns/internal/nstest"
)

// Other programs of the user join a tunnel by what env prints, and get no rights
// by it.
func TestEnv(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.snapshot(t)
	w.mustRun(t, "up", "--name", "home", w.account(t, "DNS = 10.77.0.1"))
	facts := map[string]string{}
	for line := range strings.Lines(w.mustRun(t, "env", "home")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		facts[name] = strings.Trim(value, "'")
	}
	s := w.status(t, "home")
	if facts["W4N_NAME"] != "home" || facts["W4N_INTERFACE"] != "wg0" || facts["W4N_UAPI_SOCKET"] != s.UAPISocket || facts["W4N_DIRECTORY"] != s.Directory {
		t.Errorf("env says %q, status %+v", facts, s)
	}
	if len(s.Processes) != 0 {
		t.Errorf("inside are %d", s.Processes)
	}
	join := func(name string, args ...string) (string, error) {
		flags := []string{"--preserve-credentials", "--user=" + facts["W4N_USERNS"], "--net=" + facts["W4N_NETNS"], "--mount=" + facts["W4N_MNTNS"], name}
		out, err := w.user.command("nsenter", append(flags, args...)...).CombinedOutput()
		return string(out), err
	}
	out, err := join("sh", "-ec", "ping -c 1 -w 15 "+w.peer.Addr4.String()+"; cat /etc/resolv.conf; grep CapEff /proc/self/status")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	contains(t, out, " bytes from ", "nameserver 10.77.0.1", "CapEff:\t0000000000000000")
	for _, forbidden := range []string{"ip link set wg0 down", "umount /etc", "ip route add 192.0.2.0/24 dev wg0"} {
		if out, err := join("sh", "-c", forbidden); err == nil {
			t.Errorf("who joins may: %s: %s", forbidden, out)
		}
	}
	// The process has nothing but its place: no descriptor, no environment.
	holder := facts["W4N_PID"]
	if got := w.machine.Run(t, "sh", "-c", "ls -l /proc/"+holder+"/fd | grep -c -e socket -e tun -e memfd -e ns: || true; tr '\\0' ' ' </proc/"+holder+"/environ"); strings.TrimSpace(got) != "0\nGOMAXPROCS=1" {
		t.Errorf("the process has %q", got)
	}
	if again := w.mustRun(t, "env", "home"); !strings.Contains(again, "W4N_PID="+holder+"\n") {
		t.Errorf("another process: %s", again)
	}
	// It is not missed: whoever ends it gets another.
	var pid int
	fmt.Sscan(holder, &pid)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	nstest.Eventually(t, waiting, func() error {
		if again := w.mustRun(t, "env", "home"); strings.Contains(again, "W4N_PID="+holder+"\n") {
			return fmt.Errorf("it is still told: %s", again)
		}
		return nil
	})
	w.mustRun(t, "down", "home")
	before.Check(t)
	if _, errs, code := w.run(t, "env", "home"); code != 125 || strings.Count(errs, "\n") != 2 {
		t.Errorf("after down: %d, %s", code, errs)
	}
}
