package engine

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"wireguard4netns/internal/nstest"
)

// What passes inside the tunnels of the suite, as the test sees it; as the machines
// do, it is in suite_roles_test.go.

// A machine is where roles run: a site's, or an outpost's.
type machine interface {
	role(t testing.TB, args ...string) *exec.Cmd
}

// A running is a role at work.
type running struct {
	cmd   *exec.Cmd
	input io.WriteCloser
	lines *bufio.Reader
}

func begin(t testing.TB, m machine, args ...string) *running {
	t.Helper()
	return startCommand(t, m.role(t, args...))
}

func startCommand(t testing.TB, cmd *exec.Cmd) *running {
	t.Helper()
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	nstest.Start(t, cmd)
	return &running{cmd, input, bufio.NewReader(output)}
}

// line is the next line of output.
func (r *running) line(t testing.TB) string {
	t.Helper()
	line, err := r.lines.ReadString('\n')
	if err != nil {
		t.Fatalf("%v: %q, %v", r.cmd.Args, line, err)
	}
	return strings.TrimSuffix(line, "\n")
}

// A flow is a TCP connection under way, whose bytes are checked.
type flow struct {
	source *running
	total  atomic.Int64
	ended  chan error // of the sink
}

// startFlow begins to send from one machine to an address of another, at most rate
// bytes a second if that is not zero.
func startFlow(t testing.TB, from, to machine, addr netip.Addr, rate int) *flow {
	t.Helper()
	sink := begin(t, to, "engine-suite-sink", ":0")
	port := sink.line(t)
	f := &flow{ended: make(chan error, 1)}
	go func() {
		for {
			line, err := sink.lines.ReadString('\n')
			if line == "end\n" || err != nil {
				f.ended <- err
				return
			}
			n, _ := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
			f.total.Store(n)
		}
	}()
	f.source = begin(t, from, "engine-suite-source", net.JoinHostPort(addr.String(), port), strconv.Itoa(rate))
	return f
}

// pass waits until n more bytes have come.
func (f *flow) pass(t testing.TB, n int64) {
	t.Helper()
	until := f.total.Load() + n
	nstest.Eventually(t, 2*waiting, func() error {
		if now := f.total.Load(); now < until {
			return fmt.Errorf("%d bytes came, want %d", now, until)
		}
		return nil
	})
}

// finish ends the flow and checks that all of it came.
func (f *flow) finish(t testing.TB) {
	t.Helper()
	_ = f.source.input.Close()
	sent := f.source.line(t)
	select {
	case err := <-f.ended:
		if got := strconv.FormatInt(f.total.Load(), 10); err != nil || got != sent {
			t.Errorf("TCP: %s bytes of %s came: %v", got, sent, err)
		}
	case <-time.After(2 * waiting):
		t.Errorf("TCP: %d bytes of %s came, and the end did not", f.total.Load(), sent)
	}
}

// carry sends size bytes or more by TCP, and checks them.
func carry(t testing.TB, from, to machine, addr netip.Addr, size int64) {
	t.Helper()
	f := startFlow(t, from, to, addr, 0)
	f.pass(t, size)
	f.finish(t)
}

// A gatherer counts the numbered UDP datagrams that come to a machine.
type gatherer struct {
	*running
	port uint16
}

func gather(t testing.TB, m machine) *gatherer {
	t.Helper()
	r := begin(t, m, "engine-suite-gather", ":0")
	port, err := strconv.ParseUint(r.line(t), 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return &gatherer{r, uint16(port)}
}

func (g *gatherer) tally(t testing.TB) (now tally) {
	t.Helper()
	if _, err := io.WriteString(g.input, "\n"); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(g.line(t)), &now); err != nil {
		t.Fatal(err)
	}
	return now
}

// await waits for a datagram: those sent before it have come or never will.
func (g *gatherer) await(t testing.TB, n uint32) (now tally) {
	t.Helper()
	waitFor(t, func() error {
		if now = g.tally(t); now.Highest < n {
			return fmt.Errorf("datagram %d did not come: %+v", n, now)
		}
		return nil
	})
	return now
}

// scatter sends UDP and returns when it is sent.
func scatter(t testing.TB, m machine, to netip.AddrPort, b burst) {
	t.Helper()
	text, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := m.role(t, "engine-suite-scatter", to.String(), string(text)).CombinedOutput(); err != nil {
		t.Fatalf("scatter %+v: %v\n%s", b, err, out)
	}
}
