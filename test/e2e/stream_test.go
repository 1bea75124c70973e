package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"wireguard4netns/internal/nstest"
)

// waiting bounds waits for what takes no time on an idle machine.
const waiting = 15 * time.Second

// A stream is random data on its way over one TCP connection from a program in a
// tunnel to the peer, as long as stop is not called.
type stream struct {
	send, get *exec.Cmd
	input     io.WriteCloser
	received  *lockedBuffer // the sum of all, in the end

	sent  atomic.Int64
	sum   hash.Hash
	end   atomic.Bool
	ended chan error
}

// startStream starts one in a tunnel that up has made; port is free at the peer.
func startStream(t testing.TB, w *world, name string, port int) *stream {
	t.Helper()
	s := &stream{received: new(lockedBuffer), sum: sha256.New(), ended: make(chan error, 1)}
	s.get = w.internet.Command("sh", "-ec", "busybox nc -l -p "+strconv.Itoa(port)+" | sha256sum")
	s.get.Stdout = s.received
	// At the end of its input nc would say so to the sender, which then ends.
	if _, err := s.get.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	nstest.Start(t, s.get)
	w.internet.WaitListen(t, port)
	s.send = w.tool("exec", name, "--", "busybox", "nc", w.peer.Addr4.String(), strconv.Itoa(port))
	var err error
	if s.input, err = s.send.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	nstest.Start(t, s.send)
	go func() {
		data := io.TeeReader(rand.NewChaCha8([32]byte{byte(port)}), s.sum)
		for !s.end.Load() {
			n, err := io.CopyN(s.input, data, 64<<10)
			s.sent.Add(n)
			if err != nil {
				s.ended <- err
				return
			}
		}
		s.ended <- s.input.Close()
	}()
	s.check(t, waiting)
	return s
}

// check fails the test unless data flows: more than what waits in pipes and
// sockets.
func (s *stream) check(t testing.TB, limit time.Duration) {
	t.Helper()
	before := s.sent.Load()
	nstest.Eventually(t, limit, func() error {
		if n := s.sent.Load() - before; n < 16<<20 {
			return fmt.Errorf("only %d bytes were sent", n)
		}
		return nil
	})
}

// stop ends the stream and fails the test unless all bytes arrived as they were.
func (s *stream) stop(t testing.TB) {
	t.Helper()
	s.end.Store(true)
	select {
	case err := <-s.ended:
		if err != nil {
			t.Errorf("send: %v", err)
		}
	case <-time.After(waiting):
		t.Fatal("the stream does not move")
	}
	if code := exitCode(t, s.send, waiting); code != 0 {
		t.Errorf("the sender's exit code is %d", code)
	}
	exitCode(t, s.get, waiting)
	if got, _, _ := strings.Cut(s.received.String(), " "); got != hex.EncodeToString(s.sum.Sum(nil)) {
		t.Errorf("of %d bytes what arrived has the sum %q, want %x", s.sent.Load(), got, s.sum.Sum(nil))
	}
}
