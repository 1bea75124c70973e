package inside

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestPing(t *testing.T) {
	asHost(t, 1001, func(t *testing.T) {
		const ping = "ping -n -c1 -W5 127.0.0.1 && ping -n -c1 -W5 ::1"
		host(t, "ip link set lo up")
		if out, err := exec.Command("unshare", "--user", "sh", "-c", ping).CombinedOutput(); err == nil {
			t.Errorf("ping works in a network namespace where nothing was prepared: %s", out)
		}
		t.Setenv(setUpEnv, "ip link set lo up")
		in := startInside(t, ownConfig())
		in.sh(t, ping)
	})
}

func TestSysShowsOwnLinks(t *testing.T) {
	asHost(t, 1001, func(t *testing.T) {
		t.Setenv(setUpEnv, "ip link add w4n-a type veth peer name w4n-b")
		in := startInside(t, ownConfig())
		if _, err := os.Stat("/sys/class/net/w4n-a"); err == nil {
			t.Error("the host's /sys shows the namespace's link")
		}
		links := strings.Fields(in.sh(t, "ls /sys/class/net"))
		refused := slices.ContainsFunc(in.notes, func(note string) bool { return strings.HasPrefix(note, "show links in /sys: ") })
		if got := slices.Equal(links, []string{"lo", "w4n-a", "w4n-b"}); got == refused {
			t.Errorf("/sys/class/net shows %q; notes: %q", links, in.notes)
		}
		equal(t, "/sys/fs/cgroup", in.sh(t, "ls /sys/fs/cgroup"), host(t, "ls /sys/fs/cgroup"))
	})
}
