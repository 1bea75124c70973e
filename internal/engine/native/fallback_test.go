package native

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/sys"
)

// What the kernel may refuse, and what is done then. The engine as a whole, on
// kernels that lack something: internal/engine, suite_fallback_test.go.

// A hard socket is one whose kernel has an answer of its own to some sends.
type hard struct {
	*socket
	runs, singles int // that were tried
	told          int // that a packet was too large
	log           []string
}

// harden puts refuse before the kernel; nil: ask the kernel.
func harden(s *socket, refuse func(run bool) error) *hard {
	h := &hard{socket: s}
	s.log = func(format string, args ...any) { h.log = append(h.log, fmt.Sprintf(format, args...)) }
	s.narrow = func() { h.told++ }
	s.sendmsg = func(d *sys.Datagram, fd int, name, control, payload []byte) error {
		// A sender's control has nothing but the source besides.
		run := len(control)%unix.CmsgSpace(unix.SizeofInet6Pktinfo) != 0
		if run {
			h.runs++
		} else {
			h.singles++
		}
		if err := refuse(run); err != nil {
			return err
		}
		return d.Send(fd, name, control, payload)
	}
	return h
}

func onlyRuns(err error) func(bool) error {
	return func(run bool) error {
		if run {
			return err
		}
		return nil
	}
}

// A datagram of a run goes by itself now and then: only such a one is answered by a
// router that it is too large for.
func TestARunProbesThePath(t *testing.T) {
	t.Parallel()
	const size, segment = 10*1000 + 1, 1000
	near, far := testSocket(t, unix.AF_INET), testSocket(t, unix.AF_INET)
	h := harden(near, onlyRuns(nil))
	to := loopbackOf(t, far)
	var s sender
	for i := range 2 * runsToProbe {
		run := random(size)
		if err := near.send(&s, to, run, segment); err != nil {
			t.Fatal(err)
		}
		if got, _, _ := receiveAll(t, far, size); !bytes.Equal(got, run) {
			t.Fatalf("run %d did not come as it was sent", i)
		}
	}
	if h.singles != 2 || h.runs != 2*runsToProbe {
		t.Errorf("%d datagrams alone in %d runs, want 2", h.singles, h.runs)
	}
}

func loopbackOf(t *testing.T, far *socket) *endpoint {
	t.Helper()
	to, err := endpointOf(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), far.port))
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// A run that the kernel does not cut goes datagram by datagram: all of it comes, in
// order. It is not tried again if there is no hope; a packet that is too large is
// told of.
func TestARunThatIsRefused(t *testing.T) {
	t.Parallel()
	const runs, size, segment = 3, 10*1000 + 1, 1000
	for _, c := range []struct {
		name        string
		tries, told int
		log         string // empty: nothing
		prepare     func(near *socket) *hard
	}{
		{"none", runs, 0, "", func(s *socket) *hard { return harden(s, onlyRuns(nil)) }},
		{"EIO", 1, 0, "network device takes no UDP_SEGMENT", func(s *socket) *hard { return harden(s, onlyRuns(unix.EIO)) }},
		{"EMSGSIZE", runs, 1, "", func(s *socket) *hard { return harden(s, onlyRuns(unix.EMSGSIZE)) }},
		{"EINVAL", runs, 1, "", func(s *socket) *hard {
			// Of the kernel: it cuts nothing that is to have no checksum.
			if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
				t.Fatal(err)
			}
			return harden(s, onlyRuns(nil))
		}},
		{"no UDP_SEGMENT", 0, 0, "kernel takes no UDP_SEGMENT", func(s *socket) *hard {
			h := harden(s, onlyRuns(nil))
			stream, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(stream)
			probed := &socket{fd: stream, log: s.log} // which has no such option
			probed.probe()
			probed.probe()
			s.whole.Store(probed.whole.Load())
			return h
		}},
		{"UDP_SEGMENT", runs, 0, "", func(s *socket) *hard {
			h := harden(s, onlyRuns(nil))
			s.probe()
			return h
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			near, far := c.prepare(testSocket(t, unix.AF_INET)), testSocket(t, unix.AF_INET)
			to := loopbackOf(t, far)
			var s sender
			for range runs {
				run := random(size)
				if err := near.send(&s, to, run, segment); err != nil {
					t.Fatal(err)
				}
				if got, _, segments := receiveAll(t, far, size); !bytes.Equal(got, run) {
					t.Errorf("%d bytes in %v, not what was sent", len(got), segments)
				}
			}
			if near.runs != c.tries || c.told == 0 != (near.told == 0) {
				t.Errorf("%d runs were tried, want %d; told %d times", near.runs, c.tries, near.told)
			}
			if all := strings.Join(near.log, "\n"); len(near.log) > 1 || c.log == "" != (all == "") || !strings.Contains(all, c.log) {
				t.Errorf("log %q, want one line with %q", near.log, c.log)
			}
		})
	}
}

// What cannot be sent now is lost and no error; where nothing can be sent is one.
// Neither is tried again and again.
func TestASendThatFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		errno          error
		lost           bool
		whole, singles int // of ten
	}{
		{unix.EAGAIN, true, 0, 10}, {unix.ENOBUFS, true, 0, 10},
		{unix.ENETUNREACH, false, 0, 1}, {unix.EHOSTUNREACH, false, 0, 1}, {unix.EPERM, false, 0, 1},
	} {
		near, far := testSocket(t, unix.AF_INET), testSocket(t, unix.AF_INET)
		h := harden(near, func(bool) error { return c.errno })
		to := loopbackOf(t, far)
		check := func(err error, runs, singles int) {
			t.Helper()
			if c.lost && err != nil || !c.lost && !errors.Is(err, c.errno) {
				t.Errorf("%v: send returns %v", c.errno, err)
			}
			if h.runs != runs || h.singles != singles || h.told > 0 || len(h.log) > 0 {
				t.Errorf("%v: %d runs and %d datagrams were tried, want %d and %d; told %d times, log %q",
					c.errno, h.runs, h.singles, runs, singles, h.told, h.log)
			}
		}
		var s sender
		check(near.send(&s, to, random(10*1000), 1000), 1, 0)
		near.whole.Store(true)
		check(near.send(&s, to, random(10*1000), 1000), 1, c.singles)
	}
}

// Ten seconds in which nothing goes right: a line and a call for help a second, and
// two tries for each packet at most.
func TestTroubleIsToldInMeasure(t *testing.T) {
	for _, errno := range []error{unix.EMSGSIZE, unix.ENETUNREACH, unix.EPERM} {
		synctest.Test(t, func(t *testing.T) {
			const packets = 5000
			var told atomic.Int32
			a, b := pair(t)
			greet(t, a, b)
			pass(time.Second) // at zero nothing was told yet
			a.device.told = func() { told.Add(1) }
			s := newSocket()
			s.log, s.narrow = a.device.log, a.trouble
			tried := 0
			s.sendmsg = func(*sys.Datagram, int, []byte, []byte, []byte) error { tried++; return errno }
			a.out.box.wire = s
			before := strings.Count(a.logged(), "send packets")
			for range packets {
				a.say(b, "hello")
				time.Sleep(10 * time.Second / packets)
			}
			if n := strings.Count(a.logged(), "send packets") - before; n < 9 || n > 11 {
				t.Errorf("%v: %d lines in ten seconds", errno, n)
			}
			if n := told.Load(); n > 11 || n < 1 {
				t.Errorf("%v: told %d times in ten seconds", errno, n)
			}
			if tried < packets || tried > 2*packets {
				t.Errorf("%v: %d packets were tried %d times", errno, packets, tried)
			}
		})
	}
}
