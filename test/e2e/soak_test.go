package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"hash"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"wireguard4netns/internal/nstest"
)

var (
	soakTime   = flag.Duration("soak", 0, "how long TestSoak goes on; each event comes once at least")
	soakSeed   = flag.Uint64("soak-seed", 0, "what the order of its events is drawn from; 0: the clock")
	soakEvents = flag.String("soak-events", "", "only the events that match this regular expression")
)

const (
	soakRate = 4 << 20 // bytes in a second, of each flow

	// recovers is how soon both flows must move again. That a peer has lost its
	// sessions is found out in six seconds; TCP tries again up to as much later.
	recovers = 15 * time.Second
)

// TestSoak does to one tunnel all that may happen to it, in random order, while data
// flows in both directions: the bytes that arrive are those that were sent, and in
// the end there is no more of anything than at the start.
func TestSoak(t *testing.T) {
	t.Parallel()
	if *soakSeed == 0 {
		*soakSeed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", *soakSeed)
	s := newSoak(t, rand.New(rand.NewPCG(*soakSeed, 0)))
	before := s.w.snapshot(t)
	succeed(t, s.store.start(s.w, "up", "--name", "home", s.conf))
	s.w.flows(t, "home", waiting)
	s.useReno(t)
	up, down := startFlow(t, s.w, 9000, true), startFlow(t, s.w, 9001, false)
	load := s.startLoad(t)
	flows := []*flow{up, down}
	s.await(t, flows, time.Now())
	start := s.look(t)
	began := time.Now()
	rounds := 0
	for ; rounds == 0 || time.Since(began) < *soakTime; rounds++ {
		all := s.shuffled()
		for i, e := range all {
			s.happen(t, e, flows)
			if rounds > 0 && s.random.IntN(4) == 0 {
				s.happenBoth(t, e, all[(i+1)%len(all)], flows)
			}
		}
	}
	s.report(t, rounds, time.Since(began))
	if load.ProcessState != nil || syscall.Kill(load.Process.Pid, 0) != nil {
		t.Error("iperf3 has ended")
	}
	end := s.look(t)
	load.Process.Signal(syscall.SIGTERM)
	exitCode(t, load, waiting)
	for _, f := range flows {
		f.stop(t)
	}
	end.compare(t, start)
	s.w.mustRun(t, "down", "home")
	nstest.Eventually(t, waiting, func() error {
		if names := s.store.names(); len(names) > 0 {
			return fmt.Errorf("after down %q are kept", names)
		}
		return nil
	})
	before.Check(t)
}

// soak is a tunnel, and what is so now around it.
type soak struct {
	w      *world
	router *nstest.Host
	store  *fdStore
	random *rand.Rand

	account nstest.Account
	conf    string // path of its file
	reach   int    // index in peerAddrs
	port    int    // of the peer
	extra   int    // counts other files
	narrow  int    // index in pathMTUs
	machine int    // index in machineAddrs

	longest map[string][]time.Duration // stalls, by event
}

var (
	peerAddrs    = []string{"198.51.100.1", "198.51.100.2"}
	machineAddrs = []string{"192.0.2.2", "192.0.2.3"}
	pathMTUs     = []int{1500, 1280, 1400}
)

func newSoak(t *testing.T, random *rand.Rand) *soak {
	t.Helper()
	w, router := newRoutedWorld(t)
	w.internet.ServeIperf3(t)
	s := &soak{
		w: w, router: router, store: newFDStore(t), random: random,
		account: w.peer.NewAccount(t, internet4, nstest.AccountOptions{}),
		conf:    filepath.Join(t.TempDir(), "wg0.conf"), port: int(w.peer.Port),
		longest: map[string][]time.Duration{},
	}
	s.route(t)
	s.write(t)
	return s
}

// useReno has TCP begin anew after a stall. BBR, where it is the default, may have
// learnt in it that there are some packets a second, and stays so for a minute.
func (s *soak) useReno(t *testing.T) {
	t.Helper()
	inside := s.w.tool("exec", "home", "--", "sh", "-c", "echo $$; read -r _")
	in, err := inside.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	app := s.w.inApp(hold(t, inside))
	for _, command := range []commander{app, s.w.internet.Command} {
		succeed(t, command("sysctl", "-qw", "net.ipv4.tcp_congestion_control=reno"))
	}
	fmt.Fprintln(in)
	if err := errors.Join(in.Close(), inside.Wait()); err != nil {
		t.Fatal(err)
	}
}

// route has the peer send packets that fit through any path, as it cannot find out
// about it, and accept larger ones.
func (s *soak) route(t *testing.T) {
	t.Helper()
	s.w.peer.Run(t, "ip route replace 10.77.0.0/16 dev wg0 mtu 1200 advmss 1380")
}

// write brings the tunnel's file up to date.
func (s *soak) write(t *testing.T) {
	t.Helper()
	text := fmt.Sprintf(`[Interface]
PrivateKey = %s
Address = %s/32, %s/128, 10.78.0.%d/32
DNS = 10.77.0.1, n%d.example

[Peer]
PublicKey = %s
Endpoint = %s
AllowedIPs = 10.77.0.0/16, fd77::/64, 10.79.%d.0/24
`, s.account.PrivateKey, s.account.Addr4, s.account.Addr6, 1+s.extra%250, s.extra, s.account.PeerKey, s.endpoint(), s.extra%250)
	if err := os.WriteFile(s.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *soak) endpoint() string { return fmt.Sprintf("%s:%d", peerAddrs[s.reach], s.port) }

// An event is something that happens to the tunnel. When do returns, it has.
type event struct {
	name string
	do   func(*soak, *testing.T)
}

var events = []event{
	{"engine killed", func(s *soak, t *testing.T) {
		kill(t, s.w.status(t, "home").EnginePID)
	}},
	{"supervisor killed, up with what is kept", func(s *soak, t *testing.T) {
		pid := s.w.status(t, "home").SupervisorPID
		kill(t, pid)
		nstest.Eventually(t, waiting, func() error {
			if state := stateOf(pid); state != "" && state != "Z" {
				return fmt.Errorf("process %d is in state %s", pid, state)
			}
			return nil
		})
		if out := succeed(t, s.store.start(s.w, "up", "--name", "home", s.conf)); out != "" {
			t.Errorf("up said %q", out)
		}
		if now := s.w.status(t, "home").SupervisorPID; now == pid {
			t.Errorf("the supervisor is %d, as before", now)
		}
	}},
	{"up --replace", func(s *soak, t *testing.T) {
		if out := s.w.mustRun(t, "up", "--replace", "--name", "home", s.conf); out != "" {
			t.Errorf("up --replace said %q", out)
		}
	}},
	{"peer killed, started anew", func(s *soak, t *testing.T) {
		s.w.peer.Restart(t)
		s.route(t)
	}},
	{"peer at another address, set", func(s *soak, t *testing.T) {
		s.move(t)
		s.w.mustRun(t, "set", "home", "peer", s.account.PeerKey, "endpoint", s.endpoint())
	}},
	{"peer at another address, reload", func(s *soak, t *testing.T) {
		s.move(t)
		s.w.mustRun(t, "reload", "home")
	}},
	{"reload", func(s *soak, t *testing.T) {
		s.extra++
		s.write(t)
		s.w.mustRun(t, "reload", "home")
	}},
	{"path of another MTU", func(s *soak, t *testing.T) {
		s.narrow = (s.narrow + 1 + s.random.IntN(len(pathMTUs)-1)) % len(pathMTUs)
		mtu := strconv.Itoa(pathMTUs[s.narrow])
		s.router.Run(t, "ip", "link", "set", "eth1", "mtu", mtu)
		s.w.internet.Run(t, "ip", "link", "set", "eth0", "mtu", mtu)
	}},
	{"host at another address", func(s *soak, t *testing.T) {
		old := machineAddrs[s.machine]
		s.machine = 1 - s.machine
		s.w.machine.Run(t, "sh", "-ec", fmt.Sprintf(`ip addr del %s/24 dev eth0
ip addr add %s/24 dev eth0
ip route replace default via 192.0.2.254`, old, machineAddrs[s.machine]))
	}},
	{"host's link down and up", func(s *soak, t *testing.T) {
		s.w.machine.Run(t, "sh", "-ec", `ip link set eth0 down
ip link set eth0 up
ip route replace default via 192.0.2.254`)
	}},
}

// move has the peer reachable at another address and port, and no more at the one
// before.
func (s *soak) move(t *testing.T) {
	t.Helper()
	old := peerAddrs[s.reach]
	s.reach = 1 - s.reach
	s.port = int(s.w.peer.Port) + s.random.IntN(1000)
	s.w.internet.Run(t, "sh", "-ec", fmt.Sprintf(`wg set wg0 listen-port %d
ip addr del %s/24 dev eth0
ip addr add %s/24 dev eth0
ip route replace default via 198.51.100.254`, s.port, old, peerAddrs[s.reach]))
	s.write(t)
}

// shuffled returns the events in random order.
func (s *soak) shuffled() []event {
	only := regexp.MustCompile(*soakEvents)
	all := slices.DeleteFunc(slices.Clone(events), func(e event) bool { return !only.MatchString(e.name) })
	s.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// happen lets an event happen, waits until both flows move again, and notes how
// long one did not.
func (s *soak) happen(t *testing.T, e event, flows []*flow) {
	t.Helper()
	defer func() {
		if t.Failed() {
			s.explain(t)
		}
	}()
	begin := time.Now()
	e.do(s, t)
	s.await(t, flows, begin)
	var stall time.Duration
	text := ""
	for _, f := range flows {
		one := f.stall(begin)
		text += fmt.Sprintf("; %s stalled for %v", f.name, one.Round(time.Millisecond))
		stall = max(stall, one)
	}
	t.Logf("%s (path %d): over after %v%s", e.name, pathMTUs[s.narrow], time.Since(begin).Round(time.Millisecond), text)
	s.longest[e.name] = append(s.longest[e.name], stall)
	if t.Failed() {
		t.Fatalf("after: %s", e.name)
	}
}

// happenBoth lets two events happen, the second before the tunnel has recovered.
func (s *soak) happenBoth(t *testing.T, first, second event, flows []*flow) {
	t.Helper()
	s.happen(t, event{"two events at once", func(s *soak, t *testing.T) {
		t.Logf("  %s, and %s", first.name, second.name)
		first.do(s, t)
		second.do(s, t)
	}}, flows)
}

// await returns when data has come through both flows.
func (s *soak) await(t *testing.T, flows []*flow, since time.Time) {
	t.Helper()
	want := make([]int64, len(flows))
	for i, f := range flows {
		want[i] = f.received() + soakRate/4
	}
	done := time.Now()
	nstest.Eventually(t, 2*recovers, func() error {
		for i, f := range flows {
			if n := f.received(); n < want[i] {
				return fmt.Errorf("%s: %d bytes are missing after %v", f.name, want[i]-n, time.Since(since))
			}
		}
		return nil
	})
	if took := time.Since(done); took > recovers {
		t.Errorf("the flows move after %v only", took)
	}
}

// explain logs how both ends are.
func (s *soak) explain(t *testing.T) {
	log := func(cmd *exec.Cmd) {
		out, err := cmd.CombinedOutput()
		t.Logf("%s: %v\n%s", strings.Join(cmd.Args[len(cmd.Args)-2:], " "), err, out)
	}
	log(s.w.tool("status", "home"))
	log(s.w.machine.Command("tail", "-n", "30", "/run/user/1000/wireguard4netns/home/log"))
	log(s.w.tool("exec", "home", "--", "sh", "-c", "ip addr; ip route; ss -tin"))
	for _, host := range []*nstest.Host{s.w.machine, s.router, s.w.internet} {
		log(host.Command("sh", "-c", "ip addr; ip route; ip route show cache; ss -tin; wg show"))
	}
}

func (s *soak) report(t *testing.T, rounds int, took time.Duration) {
	t.Logf("%d rounds in %v; stalls of a flow:", rounds, took.Round(time.Second))
	for _, name := range slices.Sorted(maps.Keys(s.longest)) {
		all := slices.Sorted(slices.Values(s.longest[name]))
		t.Logf("  %-42s median %5.2f s, longest %5.2f s", name, all[len(all)/2].Seconds(), all[len(all)-1].Seconds())
	}
}

// startLoad starts iperf3 in the tunnel, with some flows each way.
func (s *soak) startLoad(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := s.w.tool("exec", "home", "--", "iperf3", "--client", s.w.peer.Addr4.String(),
		"--time", "0", "--parallel", "2", "--bidir", "--bitrate", "10M")
	nstest.Start(t, cmd)
	return cmd
}

// inventory is how much of what there is.
type inventory struct {
	processes map[string]int // by command
	files     map[string]int // open, by process of the tunnel
	links     string
	state     []string // files of the state directory
	kept      []string
	rss       map[string]int // KiB, by process
	engine    int            // its PID
}

var numbers = regexp.MustCompile(`\d+`)

func (s *soak) look(t *testing.T) inventory {
	t.Helper()
	status := s.w.status(t, "home")
	i := inventory{processes: map[string]int{}, files: map[string]int{}, rss: map[string]int{}, kept: s.store.names(), engine: status.EnginePID}
	for _, p := range s.w.machine.Processes() {
		command, _, _ := strings.Cut(p.Command, " resume ") // by up --replace
		i.processes[numbers.ReplaceAllString(command, "N")]++
	}
	for role, pid := range map[string]int{"supervisor": status.SupervisorPID, "engine": status.EnginePID} {
		i.files[role] = openFiles(t, pid)
		i.rss[role] = rss(t, pid)
	}
	i.links = s.w.mustRun(t, "exec", "home", "--", "sh", "-c", "cd /sys/class/net && echo *")
	i.state = strings.Fields(s.w.machine.Run(t, "ls", "-A", status.Directory, filepath.Dir(status.Directory)))
	return i
}

// openFiles counts the open files of a process: they are the size of the directory
// of them (Linux 6.2), in which our processes let nobody look.
func openFiles(t *testing.T, pid int) int {
	t.Helper()
	info, err := os.Stat(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() == 0 {
		t.Errorf("process %d has no open files", pid)
	}
	return int(info.Size())
}

// compare fails the test if there is more of anything than at the start.
func (i inventory) compare(t *testing.T, start inventory) {
	t.Helper()
	for _, c := range []struct {
		of         string
		now, start map[string]int
	}{{"processes", i.processes, start.processes}, {"open files", i.files, start.files}} {
		for what, n := range c.now {
			if n > c.start[what] {
				t.Errorf("%s of %s: %d, at the start %d", c.of, what, n, c.start[what])
			}
		}
	}
	if i.links != start.links {
		t.Errorf("links %s, at the start %s", i.links, start.links)
	}
	if !slices.Equal(i.state, start.state) {
		t.Errorf("state directory %q, at the start %q", i.state, start.state)
	}
	if !slices.Equal(i.kept, start.kept) {
		t.Errorf("kept %q, at the start %q", i.kept, start.kept)
	}
	t.Logf("at the start open files %v, RSS %v KiB; now %v, %v KiB", start.files, start.rss, i.files, i.rss)
	if more := i.rss["supervisor"] - start.rss["supervisor"]; more > 16<<10 {
		t.Errorf("the supervisor takes %d KiB more than at the start", more)
	}
	// Only events that leave the engine alone let it grow. At the start it has not
	// collected garbage yet.
	if more := i.rss["engine"] - start.rss["engine"]; i.engine == start.engine && more > 4<<10 {
		t.Errorf("the engine takes %d KiB more than at the start", more)
	}
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if pid <= 0 {
		t.Fatalf("kill process %d", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

var statusLine = regexp.MustCompile(`(?m)^(State|VmRSS):\s+(\S+)`)

// stateOf returns the letter of a process's state; empty: there is none.
func stateOf(pid int) string { return statusOf(pid)["State"] }

func rss(t *testing.T, pid int) int {
	t.Helper()
	kib, err := strconv.Atoi(statusOf(pid)["VmRSS"])
	if err != nil {
		t.Errorf("RSS of process %d: %v", pid, err)
	}
	return kib
}

func statusOf(pid int) map[string]string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	fields := map[string]string{}
	for _, m := range statusLine.FindAllStringSubmatch(string(text), -1) {
		fields[m[1]] = m[2]
	}
	return fields
}

// A flow is random data over one TCP connection through a tunnel, at a steady rate,
// as long as stop is not called. It is counted where it arrives.
type flow struct {
	name      string
	send, get *exec.Cmd
	input     io.WriteCloser
	end       chan struct{}

	sending, receiving sync.WaitGroup
	sent               hash.Hash
	sendErr            error

	mu    sync.Mutex
	bytes int64
	came  hash.Hash
	last  time.Time // when some came
	gaps  []pause   // the longer ones
}

// A pause is when nothing came.
type pause struct {
	from time.Time
	time time.Duration
}

// startFlow starts one between a program in the tunnel home and a port at the peer.
func startFlow(t *testing.T, w *world, port int, up bool) *flow {
	t.Helper()
	f := &flow{end: make(chan struct{}), sent: sha256.New(), came: sha256.New(), last: time.Now()}
	far := w.internet.Command("busybox", "nc", "-l", "-p", strconv.Itoa(port))
	near := w.tool("exec", "home", "--", "busybox", "nc", w.peer.Addr4.String(), strconv.Itoa(port))
	f.name, f.send, f.get = "down", far, near
	if up {
		f.name, f.send, f.get = "up", near, far
	}
	var err error
	if f.input, err = f.send.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	// At the end of its input nc would say so to the sender, which then ends.
	if _, err := f.get.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := f.get.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	nstest.Start(t, far)
	w.internet.WaitListen(t, port)
	nstest.Start(t, near)
	f.sending.Go(func() { f.sendErr = f.write(rand.NewChaCha8([32]byte{byte(port)})) })
	f.receiving.Go(func() { f.read(out) })
	return f
}

func (f *flow) write(data io.Reader) error {
	data = io.TeeReader(data, f.sent)
	const parts = 50 // a second
	steady := time.NewTicker(time.Second / parts)
	defer steady.Stop()
	for {
		select {
		case <-f.end:
			return f.input.Close()
		case <-steady.C:
		}
		if _, err := io.CopyN(f.input, data, soakRate/parts); err != nil {
			return errors.Join(err, f.input.Close())
		}
	}
}

func (f *flow) read(r io.Reader) {
	for buf := make([]byte, 64<<10); ; {
		n, err := r.Read(buf)
		if err != nil {
			return
		}
		now := time.Now()
		f.mu.Lock()
		f.came.Write(buf[:n])
		f.bytes += int64(n)
		if gap := now.Sub(f.last); gap > 10*time.Millisecond {
			f.gaps = append(f.gaps, pause{f.last, gap})
		}
		f.last = now
		f.mu.Unlock()
	}
}

func (f *flow) received() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bytes
}

// stall is the longest time in which nothing came that was not over by since; older
// ones are forgotten.
func (f *flow) stall(since time.Time) (longest time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.gaps {
		if p.from.Add(p.time).After(since) {
			longest = max(longest, p.time)
		}
	}
	f.gaps = nil
	return longest
}

// stop ends the flow and fails the test unless all bytes arrived as they were.
func (f *flow) stop(t *testing.T) {
	t.Helper()
	close(f.end)
	f.sending.Wait()
	if f.sendErr != nil {
		t.Errorf("%s: send: %v", f.name, f.sendErr)
	}
	f.receiving.Wait()
	for _, cmd := range []*exec.Cmd{f.send, f.get} {
		if code := exitCode(t, cmd, waiting); code != 0 {
			t.Errorf("%s: nc: exit code %d", f.name, code)
		}
	}
	if got, want := hex.EncodeToString(f.came.Sum(nil)), hex.EncodeToString(f.sent.Sum(nil)); got != want {
		t.Errorf("%s: of %d bytes what arrived has the sum %s, want %s", f.name, f.bytes, got, want)
	} else {
		t.Logf("%s: %d MiB arrived as they were sent", f.name, f.bytes>>20)
	}
}
