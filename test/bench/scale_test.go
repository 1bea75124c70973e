//go:build bench

package bench_test

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"wireguard4netns/internal/nstest"
)

var (
	tunnels = flag.Int("tunnels", 200, "how many named tunnels there are at once")
	calm    = flag.Duration("calm", 90*time.Second, "how long tunnels rest before that is measured; WireGuard's own timers end within")
)

const observed = time.Minute

// roles are the processes of a tunnel, by the names that ps shows.
var roles = []string{"supervisor", "engine", "wait"}

// cost is what the processes of each role have used.
type cost struct{ count, switches, cpu, pss map[string]float64 }

// TestScale has many named tunnels at once to one peer, each with a program inside:
// first at rest, then with a packet a second from each.
func TestScale(t *testing.T) {
	near, far := machines(t, "scale")
	peer := nstest.StartUpstream(t, far)
	conf := t.TempDir()
	for i := range *tunnels {
		account := peer.NewAccount(t, netip.MustParseAddr("192.0.2.2"), nstest.AccountOptions{})
		if err := os.WriteFile(filepath.Join(conf, name(i)+".conf"), []byte(account.Conf()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	user := newShell(t, near.UserCommand("sh"))
	fmt.Fprintf(user.in, "W=%s; CONF=%s\n", nstest.Build(t), conf)
	list := func() string { return user.run(t, "$W list") }
	rows := newTable()
	each := func(command string) string { // four at a time
		return fmt.Sprintf("seq -f %%03g 0 %d | xargs -P 4 -I {} sh -c '%s'\n", *tunnels-1, command)
	}

	start := time.Now()
	user.run(t, "export W CONF; "+each("$W up --dns 10.77.0.1 --ifname wg0 --name t{} $CONF/t{}.conf"))
	rows.add("up, all, s", time.Since(start).Seconds())

	// Each program passes a packet, waits for the gate, and then sends one a second.
	gate := filepath.Join(conf, "gate")
	user.run(t, "mkfifo "+gate)
	start = time.Now()
	user.run(t, each(fmt.Sprintf(`$W exec t{} -- sh -c "ping -q -c 1 -W 60 %[1]s >/dev/null; echo >$CONF/t{}.passed; read -r _ <%[2]s; exec ping -q %[1]s" </dev/null >/dev/null &`,
		peer.Addr4, gate)))
	nstest.Eventually(t, 2*time.Minute, func() error {
		if passed, _ := filepath.Glob(filepath.Join(conf, "*.passed")); len(passed) < *tunnels {
			return fmt.Errorf("%d of %d programs have passed a packet", len(passed), *tunnels)
		}
		return nil
	})
	rows.add("exec and first packet, all, s", time.Since(start).Seconds())
	for range 5 {
		start = time.Now()
		out := list()
		rows.add("list, s", time.Since(start).Seconds())
		if got := strings.Count(out, " up "); got != *tunnels {
			t.Fatalf("%d of %d tunnels are up:\n%s", got, *tunnels, out)
		}
	}

	time.Sleep(*calm)
	rows.observe(t, near, "at rest")
	user.run(t, ": >"+gate)
	time.Sleep(5 * time.Second)
	heard := received(t, peer)
	rows.observe(t, near, "a packet a second")
	// Of 60 echo requests in 60 s from each, the peer has heard nearly all.
	if got, want := received(t, peer)-heard, *tunnels*55*100; got < want {
		t.Errorf("the peer has received %d bytes, want %d", got, want)
	}
	start = time.Now()
	list()
	rows.add("list under traffic, s", time.Since(start).Seconds())

	start = time.Now()
	user.run(t, "$W down --all 2>&1")
	rows.add("down --all, s", time.Since(start).Seconds())
	if out := list(); strings.Count(out, "\n") != 1 {
		t.Errorf("after down --all:\n%s", out)
	}
	for _, p := range near.Processes() { // what is inside goes on, without a network
		if strings.HasPrefix(p.Command, "ping -q") {
			syscall.Kill(p.PID, syscall.SIGKILL)
		}
	}
	rows.print()
}

func name(i int) string { return fmt.Sprintf("t%03d", i) }

// received returns how many bytes the peer has had of all accounts.
func received(t *testing.T, peer *nstest.Peer) (bytes int) {
	for line := range strings.Lines(peer.Run(t, "wg show wg0 transfer")) {
		n, _ := strconv.Atoi(strings.Fields(line)[1])
		bytes += n
	}
	return bytes
}

// look counts what all our processes have used until now.
func look(t *testing.T, h *nstest.Host) cost {
	t.Helper()
	c := cost{map[string]float64{}, map[string]float64{}, map[string]float64{}, map[string]float64{}}
	for _, p := range h.Processes() {
		name, _, _ := strings.Cut(p.Command, " ")
		role, ours := strings.CutPrefix(filepath.Base(name), "wireguard4netns-")
		if !ours {
			continue
		}
		c.count[role]++
		dir := fmt.Sprintf("/proc/%d/", p.PID)
		stat, err := os.ReadFile(dir + "stat")
		if err != nil {
			t.Fatal(err)
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		for _, ticks := range fields[11:13] { // utime, stime
			n, _ := strconv.ParseFloat(ticks, 64)
			c.cpu[role] += n / 100 // USER_HZ, the same everywhere
		}
		c.pss[role] += number(t, dir+"smaps_rollup", "Pss:") / 1024
		tasks, _ := filepath.Glob(dir + "task/*/status")
		for _, f := range tasks {
			c.switches[role] += number(t, f, "voluntary_ctxt_switches:") + number(t, f, "nonvoluntary_ctxt_switches:")
		}
	}
	return c
}

// number reads the number after a key at the begin of a line in a file.
func number(t *testing.T, path, key string) float64 {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			n, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return n
		}
	}
	t.Fatalf("no %s in %s", key, path)
	return 0
}

// table is the figures in the order in which they came.
type table struct {
	names   []string
	figures map[string][]float64
}

func newTable() *table { return &table{figures: map[string][]float64{}} }

func (r *table) add(name string, value float64) {
	if r.figures[name] == nil {
		r.names = append(r.names, name)
	}
	r.figures[name] = append(r.figures[name], value)
}

// observe takes the figures of a minute.
func (r *table) observe(t *testing.T, h *nstest.Host, state string) {
	t.Helper()
	before := look(t, h)
	time.Sleep(observed)
	after := look(t, h)
	n := float64(*tunnels)
	var cpu, pss float64
	for _, role := range roles {
		if int(after.count[role]) != *tunnels {
			t.Errorf("%s: %v processes in the role %s", state, after.count[role], role)
		}
		r.add(fmt.Sprintf("%s: CPU of all in a minute, s: %s", state, role), after.cpu[role]-before.cpu[role])
		r.add(fmt.Sprintf("%s: context switches in a minute, each: %s", state, role), (after.switches[role]-before.switches[role])/n)
		r.add(fmt.Sprintf("%s: PSS, each, MiB: %s", state, role), after.pss[role]/n)
		cpu += after.cpu[role] - before.cpu[role]
		pss += after.pss[role] / n
	}
	r.add(state+": CPU of all in a minute, s: sum", cpu)
	r.add(state+": PSS, each, MiB: sum", pss)
}

func (r *table) print() {
	fmt.Printf("\n%d named tunnels, %d CPUs, %s\n\n| | median | least | most |\n|---|---|---|---|\n", *tunnels, runtime.NumCPU(), runtime.Version())
	for _, name := range r.names {
		values := r.figures[name]
		fmt.Printf("| %s | %.2f | %.2f | %.2f |\n", name, median(values), slices.Min(values), slices.Max(values))
	}
	fmt.Println()
}
