package e2e_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"wireguard4netns/internal/nstest"
)

// TestMTU: the file's, or what the route to the endpoint leaves.
func TestMTU(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v4 := w.peer.NewAccount(t, internet4, nstest.AccountOptions{})
	v6 := w.peer.NewAccount(t, internet6, nstest.AccountOptions{})
	only4 := func(conf string) string {
		conf = strings.ReplaceAll(conf, ", "+v4.Addr6.String()+"/128", "")
		return strings.ReplaceAll(conf, ", ::/0", "")
	}
	for _, test := range []struct {
		name, conf, route, want string
	}{
		{"the file", v4.Conf("MTU = 1312"), "1500", "1312"},
		{"the most there is", v4.Conf("MTU = 65535"), "1500", "65475"},
		{"IPv4 route", v4.Conf(), "1400", "1340"},
		{"IPv6 route", v6.Conf(), "1400", "1320"},
		{"least for IPv6", v4.Conf(), "1300", "1280"},
		{"no IPv6 inside", only4(v4.Conf()), "1300", "1240"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.machine.Run(t, "ip", "link", "set", "eth0", "mtu", test.route)
			conf := writeConf(t, test.conf)
			contains(t, succeed(t, w.inTunnel(conf)("ip", "link", "show", "wg0")), "mtu "+test.want+" ")
			plan := succeed(t, w.tool("run", "--dry-run", conf))
			contains(t, plan, test.want+", from the ")
			_, said := outputs(t, w.tool("run", "--verbose", conf, "true"))
			contains(t, said, test.want)
		})
	}
}

// TestTable: routes go where the file says.
func TestTable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for table, want := range map[string]struct{ main, other string }{
		"off":  {"", ""},
		"1234": {"", "default dev wg0 "},
		"auto": {"default dev wg0 ", ""},
	} {
		t.Run(table, func(t *testing.T) {
			out, _ := outputs(t, w.inTunnel(w.account(t, "Table = "+table))("sh", "-c",
				"ip -4 route; ip -6 route show type unicast; echo ---; for f in -4 -6; do ip $f route show table 1234 type unicast 2>/dev/null; done; true"))
			for i, part := range strings.Split(out, "---\n") {
				wanted := []string{want.main, want.other}[i]
				var families int
				for line := range strings.Lines(part) {
					if wanted != "" && strings.HasPrefix(line, wanted) {
						families++
					}
				}
				if wanted == "" && strings.Contains(part, "default") || wanted != "" && families != 2 {
					t.Errorf("Table = %s gave:\n%s", table, out)
				}
			}
		})
	}
}

// attempt is how a connection attempt ended, and how long that took.
type attempt struct {
	Took  time.Duration
	Errno syscall.Errno // 0: connected
}

var dial = nstest.NewFunc("dial", func(addr string) (attempt, error) {
	start := time.Now()
	conn, err := net.DialTimeout("tcp", addr, 15*time.Second)
	a := attempt{Took: time.Since(start)}
	if err == nil {
		return a, conn.Close()
	}
	if !errors.As(err, &a.Errno) {
		return a, err
	}
	return a, nil
})

// TestNoIPv6InFile: what the tunnel has not is unreachable at once.
func TestNoIPv6InFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.peer.NewAccount(t, internet4, nstest.AccountOptions{})
	for name, conf := range map[string]string{
		"no ::/0":   strings.ReplaceAll(strings.ReplaceAll(a.Conf(), ", "+a.Addr6.String()+"/128", ""), ", ::/0", ""),
		"but ::/0":  strings.ReplaceAll(a.Conf(), ", "+a.Addr6.String()+"/128", ""),
		"Table=off": a.Conf("Table = off"),
	} {
		t.Run(name, func(t *testing.T) {
			a, err := dial.Call(w.inTunnel(writeConf(t, conf)), "[2001:db8::1]:7")
			if err != nil || a.Errno != syscall.ENETUNREACH || a.Took > time.Second {
				t.Errorf("%v after %v, %v", a.Errno, a.Took, err)
			}
		})
	}
}

// TestIPv6AtOnce: addresses need no duplicate address detection, so the first
// thing that an app does works.
func TestIPv6AtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conf := w.account(t)
	out, _ := outputs(t, w.inTunnel(conf)("ip", "-6", "addr", "show", "wg0"))
	contains(t, out, "inet6 fd77::", "scope global")
	lacks(t, out, "tentative", "fe80")
	if a, err := dial.Call(w.inTunnel("--wait", conf), "[fd77::1]:7"); err != nil || a.Errno != 0 || a.Took > time.Second {
		t.Errorf("%v after %v, %v", a.Errno, a.Took, err)
	}
}

// TestWait: with --wait the app starts after the first handshake or not at all.
func TestWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	account := w.peer.NewAccount(t, internet4, nstest.AccountOptions{})
	succeed(t, w.tool("run", "--wait", account.WriteConf(t), "true"))
	if w.peer.LastHandshake(t, account).IsZero() {
		t.Error("the app, which sends nothing, ran without a handshake")
	}
	t.Run("in vain", func(t *testing.T) {
		before := w.snapshot(t)
		conf := strings.ReplaceAll(account.Conf(), ":51820", ":9")
		cmd := w.tool("run", "--wait=1s", writeConf(t, conf), "echo", "the app ran")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		start := time.Now()
		nstest.Start(t, cmd)
		if code := exitCode(t, cmd, 10*time.Second); code != 125 {
			t.Errorf("exit code %d", code)
		}
		if took := time.Since(start); took < time.Second || took > 8*time.Second {
			t.Errorf("it took %v", took)
		}
		contains(t, out.String(), "no handshake", "192.0.2.1:9", "hint: ")
		lacks(t, out.String(), "the app ran")
		before.Check(t)
	})
}

// TestHooks: they run inside, with rights over the link, and only if asked.
func TestHooks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mark := filepath.Join(t.TempDir(), "mark")
	conf := w.account(t, "Table = off",
		"PreUp = ip link show dev %i | grep -q DOWN",
		"PostUp = ip route add 10.77.0.0/16 dev %i",
		"PostUp = echo said by the hook",
		"PostDown = touch "+mark)
	out, said := outputs(t, w.tool("run", "--hooks", conf, "--", "sh", "-ec", "ip route; ping -c1 -w15 10.77.0.1"))
	contains(t, out, "10.77.0.0/16 dev wg0")
	contains(t, said, "running PreUp inside: ip link show", "running PostUp inside: ip route add 10.77.0.0/16 dev wg0", "said by the hook", "running PostDown inside")
	if _, err := os.Stat(mark); err != nil {
		t.Errorf("PostDown: %v", err)
	}
	out, said = outputs(t, w.inTunnel(conf)("ip", "route"))
	lacks(t, out, "10.77.0.0/16")
	contains(t, said, "PostUp", "not run", "--hooks")
	t.Run("failing", func(t *testing.T) {
		cmd := w.tool("run", "--hooks", w.account(t, "PostUp = exit 3"), "echo", "the app ran")
		text, err := cmd.CombinedOutput()
		if err == nil || cmd.ProcessState.ExitCode() != 125 {
			t.Errorf("exit code %d", cmd.ProcessState.ExitCode())
		}
		contains(t, string(text), `run PostUp "exit 3": exit code 3`)
		lacks(t, string(text), "the app ran")
	})
}

// TestLinkName: after the file, as wg-quick has it.
func TestLinkName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conf := filepath.Join(t.TempDir(), "my-vpn.conf")
	if err := os.Rename(w.account(t), conf); err != nil {
		t.Fatal(err)
	}
	contains(t, succeed(t, w.inTunnel(conf)("ip", "link")), " my-vpn: <")
	contains(t, succeed(t, w.inTunnel("--ifname=other0", conf)("ip", "link")), " other0: <")
}
