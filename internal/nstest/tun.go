package nstest

import (
	"os"
	"testing"

	"wireguard4netns/internal/sys"
)

// OpenTUN makes a device in the Host, TUN or TAP as flags have it (IFF_ of
// TUNSETIFF), and an rtnetlink socket there. The test may use both from
// outside; they are closed at its end.
func (h *Host) OpenTUN(t testing.TB, name string, flags uint16) (tun, rtnetlink *os.File) {
	t.Helper()
	device, socket, err := h.join(name, flags)
	if err != nil {
		t.Fatalf("open TUN device: %v", err)
	}
	tun, rtnetlink = os.NewFile(uintptr(device), name), os.NewFile(uintptr(socket), "rtnetlink")
	t.Cleanup(func() {
		_ = tun.Close()
		_ = rtnetlink.Close()
	})
	return tun, rtnetlink
}

func (h *Host) join(name string, flags uint16) (tun, rtnetlink int, err error) {
	netns, err := os.Open(nsPath(h.PID(), "net"))
	if err != nil {
		return -1, -1, err
	}
	defer netns.Close()
	userns, err := sys.UserNSOf(int(netns.Fd()))
	if err != nil {
		return -1, -1, err
	}
	defer userns.Close()
	return sys.Join(int(userns.Fd()), int(netns.Fd()), name, flags)
}
