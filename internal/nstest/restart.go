package nstest

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// Restart kills the Peer and starts it anew with its keys, port, accounts and
// addresses, as after a crash: its sessions are lost, and so is where the other ends
// are.
func (p *Peer) Restart(t testing.TB) {
	t.Helper()
	var conf strings.Builder
	for line := range strings.Lines(p.Run(t, "wg showconf wg0")) {
		if !strings.HasPrefix(line, "Endpoint") {
			conf.WriteString(line)
		}
	}
	p.Stop()
	p.Run(t, "rm -f /run/wireguard/wg0.sock")
	again := &exec.Cmd{Path: p.process.Path, Args: p.process.Args, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	Start(t, again)
	p.process = again
	p.Run(t, fmt.Sprintf(`until [ -S /run/wireguard/wg0.sock ]; do sleep 0.01; done
echo 1 >/proc/sys/net/ipv6/conf/wg0/addr_gen_mode
wg setconf wg0 /dev/stdin <<'END'
%sEND
ip addr add %s/16 dev wg0
ip addr add %s/64 dev wg0
ip link set wg0 mtu 1420 up`, conf.String(), p.Addr4, p.Addr6))
}
