package doctor

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"

	"wireguard4netns/internal/host"
	"wireguard4netns/internal/ns"
	"wireguard4netns/internal/plan"
	"wireguard4netns/internal/state"
)

// PortInUse is what to do about a ListenPort that another program has.
var PortInUse = Advice{Do: "remove ListenPort from the file (only a peer that is called needs one) or end the other program; as root: ss -lunp tells which"}

// advice is what to do about errors of the machine or the file. The first that
// fits is given; those of user namespaces are in userns.go.
var advice = []struct {
	is error
	Advice
}{
	{ns.ErrNoTUN, Advice{Do: "as root: modprobe tun; if there still is none: mkdir -p /dev/net && mknod -m 666 /dev/net/tun c 10 200; in a container: --device /dev/net/tun"}},
	{ns.ErrTUNDenied, Advice{
		Why: "only its owner may open it",
		Do:  `as root: chmod 0666 /dev/net/tun, and for the next start of the machine the udev rule KERNEL=="tun", MODE="0666", OPTIONS+="static_node=net/tun" in /etc/udev/rules.d/90-tun.rules`,
	}},
	{state.ErrUnsafe, Advice{Do: "remove it, or set XDG_RUNTIME_DIR to a directory of yours"}},
	{host.ErrUnresolved, Advice{Do: "is the name right, and is the host's own network up? getent hosts NAME tells"}},
	{plan.ErrNoAddress, Advice{Do: "add the line that the peer's administrator gave you, such as: Address = 10.0.0.2/32"}},
	{syscall.ENOSPC, Advice{Do: "the disk is full: df, and df -i, tell; or set XDG_RUNTIME_DIR to a directory elsewhere"}},
	{syscall.EDQUOT, Advice{Do: "the disk quota is used up: quota tells"}},
}

// Advise returns what to do about an error of making a tunnel; ok says that there
// is advice.
func (m *Machine) Advise(err error) (a Advice, ok bool) {
	if a, ok := m.adviseNamespaces(err); ok {
		return a, true
	}
	for _, row := range advice {
		if errors.Is(err, row.is) {
			return row.Advice, true
		}
	}
	// Where a tunnel's directory cannot be made, another place may do.
	if errors.Is(err, fs.ErrPermission) && strings.Contains(err.Error(), "claim tunnel") {
		return Advice{Do: "set XDG_RUNTIME_DIR to a directory of yours"}, true
	}
	return Advice{}, false
}
