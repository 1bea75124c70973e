package nstest_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"wireguard4netns/internal/nstest"
)

func TestContainer(t *testing.T) {
	t.Parallel()
	_, pid := nstest.StartContainer(t, "--network=none")
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil || theirs == ours {
		t.Errorf("netns of the container: %s, %v", theirs, err)
	}
	links, err := exec.Command("nsenter", "--preserve-credentials", "-U", "-n", "-t", fmt.Sprint(pid), "ip", "-o", "link").CombinedOutput()
	if err != nil || strings.Count(string(links), "\n") != 1 {
		t.Errorf("links: %s, %v", links, err)
	}
}
