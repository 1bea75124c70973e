package e2e_test

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// outputs runs a command that must succeed and returns what it printed where.
func outputs(t testing.TB, cmd *exec.Cmd) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// TestDNS: the file's servers and search domains are what the app has.
func TestDNS(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.machine.PrivateEtc(t)
	w.machine.WriteFile(t, "/etc/hosts", "127.0.0.1 localhost\n203.0.113.9 printer\n")
	conf := w.account(t, "DNS = 10.77.0.1, fd77::1, corp.example")
	out, _ := outputs(t, w.tool("run", conf, "--", "sh", "-ec", `cat /etc/resolv.conf
grep ^hosts: /etc/nsswitch.conf
getent ahosts www.example.com
getent ahostsv4 printer
busybox nslookup www.example.com`))
	contains(t, out, "nameserver 10.77.0.1\n", "nameserver fd77::1\n", "search corp.example\n",
		"10.77.0.1       STREAM", "fd77::1         STREAM", "203.0.113.9     STREAM printer", "Server:\t\t10.77.0.1")
	for line := range strings.Lines(out) {
		if hosts, ok := strings.CutPrefix(line, "hosts:"); ok && strings.Join(strings.Fields(hosts), " ") != "files dns" {
			t.Errorf("nsswitch.conf: %s", line)
		}
	}
	t.Run("--dns", func(t *testing.T) {
		out, _ := outputs(t, w.tool("run", "--dns", "fd77::1,lab.example", conf, "--", "sh", "-ec", "cat /etc/resolv.conf; getent ahosts www.example.com"))
		contains(t, out, "nameserver fd77::1\n", "search lab.example\n", "10.77.0.1 ")
		lacks(t, out, "nameserver 10.77.0.1", "corp.example")
	})
}

// TestDNSNone: without servers lookups fail at once, and it was said.
func TestDNSNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conf := w.account(t)
	for _, lookup := range [][]string{{"getent", "ahosts", "www.example.com"}, {"busybox", "wget", "-qO-", "http://www.example.com/"}} {
		cmd := w.inTunnel(conf)(lookup[0], lookup[1:]...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		start := time.Now()
		out, err := cmd.Output()
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("%v took %v", lookup, took)
		}
		if err == nil {
			t.Errorf("%v succeeded:\n%s", lookup, out)
		}
		contains(t, stderr.String(), "no DNS server for the tunnel")
	}
}

// TestDNSHost: --dns=host leaves the host's own resolution in place.
func TestDNSHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.machine.PrivateEtc(t)
	w.machine.WriteFile(t, "/etc/resolv.conf", "nameserver 10.77.0.1\n# the host's\n")
	out, stderr := outputs(t, w.tool("run", "--dns=host", w.account(t, "DNS = 10.77.0.9"), "--", "sh", "-ec", "cat /etc/resolv.conf; getent ahosts www.example.com"))
	contains(t, out, "# the host's\n", "10.77.0.1 ")
	contains(t, stderr, "DNS goes by the host")
}

// TestDNSHostRenames: a host's network manager puts another resolv.conf in the
// place of the old one; the app keeps its own.
func TestDNSHostRenames(t *testing.T) {
	t.Parallel()
	for form, prepare := range map[string]string{
		"file": "rm -f /etc/resolv.conf; echo nameserver 192.0.2.53 >/etc/resolv.conf",
		"link": "mkdir -p /run/manager; echo nameserver 192.0.2.53 >/run/manager/resolv.conf; ln -sf ../run/manager/resolv.conf /etc/resolv.conf",
	} {
		t.Run(form, func(t *testing.T) {
			w := newWorld(t)
			w.machine.PrivateEtc(t)
			w.machine.Run(t, "sh", "-ec", prepare)
			_, app, _ := w.runApp(t, w.account(t, "DNS = 10.77.0.1"))
			for range 2 {
				contains(t, succeed(t, w.inApp(app)("cat", "/etc/resolv.conf")), "nameserver 10.77.0.1")
				contains(t, succeed(t, w.inApp(app)("getent", "ahosts", "www.example.com")), "10.77.0.1 ")
				w.machine.Run(t, "sh", "-ec", `real=$(readlink -f /etc/resolv.conf)
echo nameserver 192.0.2.54 >$real.new
mv $real.new $real`)
				contains(t, w.machine.Run(t, "cat", "/etc/resolv.conf"), "nameserver 192.0.2.54")
			}
		})
	}
}
