//go:build bench

// Package bench_test measures the program beside wireguard-go: one table, one
// run, the contenders in turn round by round, so that a drift of the machine
// falls on all of them. Each contender has a machine and a peer of its own, made
// of namespaces and joined by veth; both ends and iperf3 share this computer.
package bench_test

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"wireguard4netns/internal/nstest"
)

var (
	rounds   = flag.Int("rounds", 5, "how often each contender is measured")
	starts   = flag.Int("starts", 21, "how often each command is started")
	transfer = flag.Int("transfer", 3, "seconds of each TCP transfer")
)

const mtu = 1420

func TestMain(m *testing.M) { nstest.Main(m) }

// contender is one WireGuard on the near end, and a shell that has it as network.
type contender struct {
	name      string
	host      *nstest.Host
	shell     *shell
	server    netip.Addr
	processes func(nstest.Process) bool // whose cost is counted
	figures   map[string][]float64
}

func TestBench(t *testing.T) {
	program := nstest.Build(t)
	ours := newOurs(t, program)
	all := []*contender{
		ours,
		newUpstream(t, "wireguard-go, as published", nstest.StartUpstream),
		newUpstream(t, "wireguard-go of 2022, no offload", nstest.StartUpstream2022),
	}
	for round := range *rounds {
		for i := range all {
			all[(i+round)%len(all)].measure(t)
		}
	}
	measureStarts(t, program, ours)
	report(t, all)
}

func newOurs(t *testing.T, program string) *contender {
	near, far := machines(t, "ours")
	peer := nstest.StartUpstream(t, far)
	far.ServeIperf3(t)
	conf := peer.NewAccount(t, netip.MustParseAddr("192.0.2.2"), nstest.AccountOptions{}).
		WriteConf(t, fmt.Sprintf("MTU = %d", mtu))
	return &contender{
		name: "wireguard4netns", host: near, server: peer.Addr4,
		shell: newShell(t, near.UserCommand(program, "run", "--dns", "host", conf, "--", "sh")),
		processes: func(p nstest.Process) bool {
			return strings.HasPrefix(p.Command, "wireguard4netns-")
		},
		figures: map[string][]float64{},
	}
}

func newUpstream(t *testing.T, name string, start func(testing.TB, *nstest.Host) *nstest.Peer) *contender {
	near, far := machines(t, name)
	peer := start(t, far)
	far.ServeIperf3(t)
	account := peer.NewAccount(t, netip.MustParseAddr("192.0.2.2"), nstest.AccountOptions{})
	end := start(t, near)
	end.Run(t, fmt.Sprintf(`set -e
		umask 077
		echo %s >/run/near.key
		wg set wg0 private-key /run/near.key peer %s endpoint %s allowed-ips 0.0.0.0/0
		ip address flush dev wg0
		ip address add %s/32 dev wg0
		ip link set wg0 mtu %d
		ip route add %s/32 dev wg0`,
		account.PrivateKey, account.PeerKey, account.Endpoint, account.Addr4, mtu, peer.Addr4))
	return &contender{
		name: name, host: near, server: peer.Addr4,
		shell:     newShell(t, near.Command("sh")),
		processes: func(p nstest.Process) bool { return strings.Contains(p.Command, "wireguard-go") },
		figures:   map[string][]float64{},
	}
}

func machines(t *testing.T, name string) (near, far *nstest.Host) {
	near, far = nstest.NewHost(t), nstest.NewHost(t)
	nstest.Connect(t,
		nstest.End{Host: near, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}},
		nstest.End{Host: far, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")}})
	return near, far
}

func (c *contender) measure(t *testing.T) {
	c.add("ping idle, ms", ping(t, c, 50))
	for _, direction := range []struct{ name, flag string }{{"up", ""}, {"down", "-R"}} {
		cpu := c.cpu(t)
		var result struct {
			End struct {
				Received struct {
					Bytes float64 `json:"bytes"`
					Rate  float64 `json:"bits_per_second"`
				} `json:"sum_received"`
			} `json:"end"`
			Error string `json:"error"`
		}
		out := c.shell.run(t, fmt.Sprintf("iperf3 -c %s -t %d --json %s", c.server, *transfer, direction.flag))
		if err := json.Unmarshal([]byte(out), &result); err != nil || result.Error != "" {
			t.Fatalf("%s: iperf3: %v %s: %s", c.name, err, result.Error, out)
		}
		c.add("TCP "+direction.name+", Gbit/s", result.End.Received.Rate/1e9)
		c.add("CPU "+direction.name+", s/GiB", (c.cpu(t)-cpu)/(result.End.Received.Bytes/(1<<30)))
	}
	c.shell.run(t, fmt.Sprintf("iperf3 -c %s -t 3 >/dev/null & sleep 0.5", c.server))
	c.add("ping under load, ms", ping(t, c, 40))
	c.shell.run(t, "wait")
	c.add("peak RSS, MiB", c.peak(t))
	t.Logf("measured %s", c.name)
}

func (c *contender) add(figure string, value float64) {
	c.figures[figure] = append(c.figures[figure], value)
}

// ping returns the median round trip in milliseconds.
func ping(t *testing.T, c *contender, count int) float64 {
	out := c.shell.run(t, fmt.Sprintf("ping -n -i 0.02 -w 10 -c %d %s", count, c.server))
	var times []float64
	for line := range strings.Lines(out) {
		if _, rest, ok := strings.Cut(line, "time="); ok {
			v, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				t.Fatal(err)
			}
			times = append(times, v)
		}
	}
	if len(times) < count/2 {
		t.Fatalf("%s: ping: %s", c.name, out)
	}
	return median(times)
}

func (c *contender) pids(t *testing.T) (pids []int) {
	for _, p := range c.host.Processes() {
		if c.processes(p) {
			pids = append(pids, p.PID)
		}
	}
	if len(pids) == 0 {
		t.Fatalf("%s: no process found", c.name)
	}
	return pids
}

// cpu returns the seconds of processor time that the contender has used.
func (c *contender) cpu(t *testing.T) (seconds float64) {
	for _, pid := range c.pids(t) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		for _, ticks := range fields[11:13] { // utime, stime
			n, _ := strconv.ParseFloat(ticks, 64)
			seconds += n / 100
		}
	}
	return seconds
}

// peak returns the sum of the processes' largest resident sizes.
func (c *contender) peak(t *testing.T) (mib float64) {
	for _, pid := range c.pids(t) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(status)) {
			if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
				n, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
				mib += n / 1024
			}
		}
	}
	return mib
}

// measureStarts times whole commands from their call.
func measureStarts(t *testing.T, program string, ours *contender) {
	near, far := machines(t, "starts")
	conf := nstest.StartUpstream(t, far).NewAccount(t, netip.MustParseAddr("192.0.2.2"), nstest.AccountOptions{}).
		WriteConf(t, "DNS = 10.77.0.1")
	inside := near.UserCommand("unshare", "-Urn", "sleep", "1000")
	nstest.Start(t, inside)
	pid := ""
	nstest.Eventually(t, 5*time.Second, func() error {
		for _, p := range near.Processes() {
			if strings.HasPrefix(p.Command, "sleep 1000") {
				pid = strconv.Itoa(p.PID)
				return nil
			}
		}
		return fmt.Errorf("no sleep in the namespace")
	})
	script := `i=0; while [ $i -lt %d ]; do
		a=$(date +%%s%%N); %s; b=$(date +%%s%%N); echo $((b-a)); %s i=$((i+1)); done`
	for name, command := range map[string][2]string{
		"run -- true, ms":  {program + " run " + conf + " -- true", ""},
		"attach, ms":       {program + " attach --detach " + pid + " wg$i " + conf, ""},
		"attach -c, ms":    {program + " attach -c --detach " + pid + " wgc$i " + conf, ""},
		"unshare -Urn, ms": {"unshare -Urn true", ""},
	} {
		out := near.RunUser(t, "sh", "-c", fmt.Sprintf(script, *starts, command[0], command[1]))
		for line := range strings.Lines(out) {
			ns, err := strconv.ParseFloat(strings.TrimSpace(line), 64)
			if err != nil {
				t.Fatalf("%s: %s", name, out)
			}
			ours.add(name, ns/1e6)
		}
	}
}

// shell runs commands one after the other in one sh(1).
type shell struct {
	in  io.Writer
	out *bufio.Reader
}

const endMark = "-- end of output --"

func newShell(t *testing.T, cmd *exec.Cmd) *shell {
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = write
	nstest.Start(t, cmd)
	write.Close()
	t.Cleanup(func() {
		in.Close()
		io.Copy(io.Discard, read)
		read.Close()
	})
	return &shell{in: in, out: bufio.NewReader(read)}
}

func (s *shell) run(t *testing.T, command string) string {
	t.Helper()
	fmt.Fprintf(s.in, "%s\necho '%s'\n", command, endMark)
	var out strings.Builder
	for {
		line, err := s.out.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: %v: %s", command, err, out.String())
		}
		if strings.TrimSpace(line) == endMark {
			return out.String()
		}
		out.WriteString(line)
	}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// figureOrder is the order of the rows.
var figureOrder = []string{
	"TCP up, Gbit/s", "TCP down, Gbit/s", "CPU up, s/GiB", "CPU down, s/GiB", "peak RSS, MiB",
	"ping idle, ms", "ping under load, ms",
	"run -- true, ms", "attach, ms", "attach -c, ms", "unshare -Urn, ms",
}

func report(t *testing.T, all []*contender) {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%d CPUs, %s; medians (least–most) of %d, starts of %d; TCP: one flow, MTU %d\n\n",
		runtime.NumCPU(), runtime.Version(), *rounds, *starts, mtu)
	fmt.Fprint(&b, "| |")
	for _, c := range all {
		fmt.Fprintf(&b, " %s |", c.name)
	}
	fmt.Fprint(&b, "\n|---|---|---|---|\n")
	for _, figure := range figureOrder {
		fmt.Fprintf(&b, "| %s |", figure)
		for i, c := range all {
			values := c.figures[figure]
			if len(values) == 0 {
				fmt.Fprint(&b, " – |")
				continue
			}
			fmt.Fprintf(&b, " %.2f (%.2f–%.2f)", median(values), slices.Min(values), slices.Max(values))
			if i > 0 {
				fmt.Fprintf(&b, ", ours × %.2f", median(all[0].figures[figure])/median(values))
			}
			fmt.Fprint(&b, " |")
		}
		fmt.Fprintln(&b)
	}
	fmt.Println(b.String())
}
