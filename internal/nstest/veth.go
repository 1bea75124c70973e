package nstest

import (
	"net/netip"
	"os/exec"
	"strconv"
	"testing"
)

// End is one end of a veth pair.
type End struct {
	Host  *Host
	Name  string
	Addrs []netip.Prefix
}

// Connect joins two Hosts by a veth pair, up and with addresses. Neither end
// speaks IPv6 on its own account (no link-local address, no duplicate address
// detection, no router solicitation): what is captured there was meant.
func Connect(t testing.TB, a, b End) {
	t.Helper()
	labPID, err := lab()
	if err != nil {
		t.Fatal(err)
	}
	// Only root of the lab has capabilities over both Hosts.
	output(t, exec.Command("nsenter", "--preserve-credentials",
		"--user="+nsPath(labPID, "user"), "--net="+nsPath(a.Host.PID(), "net"), "--",
		"ip", "link", "add", a.Name, "type", "veth",
		"peer", "name", b.Name, "netns", strconv.Itoa(b.Host.PID())))
	a.configure(t)
	b.configure(t)
}

func (e End) configure(t testing.TB) {
	t.Helper()
	e.Host.Run(t, "ip", "link", "set", e.Name, "addrgenmode", "none")
	e.Host.Run(t, "ip", "link", "set", e.Name, "up")
	for _, addr := range e.Addrs {
		args := []string{"addr", "add", addr.String(), "dev", e.Name}
		if addr.Addr().Is6() {
			args = append(args, "nodad")
		}
		e.Host.Run(t, "ip", args...)
	}
}
