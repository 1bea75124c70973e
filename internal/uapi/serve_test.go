package uapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// memory is an engine that keeps the last body.
type memory struct {
	mu    sync.Mutex
	body  []byte
	fails error
	stall chan struct{} // when not nil, requests wait for it
}

func (m *memory) wait(ctx context.Context) error {
	if m.stall == nil {
		return m.fails
	}
	select {
	case <-m.stall:
		return m.fails
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *memory) Get(ctx context.Context) ([]byte, error) {
	err := m.wait(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.body), err
}

func (m *memory) Set(ctx context.Context, body []byte) error {
	err := m.wait(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.body = bytes.Clone(body)
	return err
}

func pair(t testing.TB, engine Engine, limits Limits) *Conn {
	t.Helper()
	near, far := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- Serve(context.Background(), far, engine, limits) }()
	c := NewConn(near)
	t.Cleanup(func() {
		_ = c.Close()
		<-served
	})
	return c
}

func TestConnAndServeUnderstandEachOther(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	m := new(memory)
	c := pair(t, m, Limits{})
	for range 3 {
		body := example(t).Restore().Body()
		if err := c.Set(ctx, body); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Get(ctx); err != nil || !bytes.Equal(got, body) {
			t.Fatalf("get: %q, %v", got, err)
		}
	}
	m.fails = syscall.EADDRINUSE
	if err := c.Set(ctx, nil); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("set: %v, want EADDRINUSE", err)
	}
	m.fails = errors.New("secret reason")
	if _, err := c.Get(ctx); !errors.Is(err, syscall.EIO) {
		t.Errorf("get: %v, want EIO", err)
	}
	m.fails = nil
	if err := c.Set(ctx, []byte("color=blue\n")); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("set of an unknown key: %v, want EINVAL", err)
	}
	if _, err := c.Get(ctx); err != nil {
		t.Errorf("the connection did not outlive an error: %v", err)
	}
}

func TestConnTakesTurns(t *testing.T) {
	t.Parallel()
	m := new(memory)
	c := pair(t, m, Limits{})
	body := example(t).Restore().Body()
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			for range 50 {
				if err := c.Set(t.Context(), body); err != nil {
					t.Error(err)
				}
				if got, err := c.Get(t.Context()); err != nil || !bytes.Equal(got, body) {
					t.Errorf("get: %d bytes, %v", len(got), err)
				}
			}
		})
	}
	running.Wait()
}

func TestConnGivesUpAndIsBroken(t *testing.T) {
	t.Parallel()
	m := &memory{stall: make(chan struct{})}
	c := pair(t, m, Limits{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Get(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("get: %v, want deadline exceeded", err)
	}
	close(m.stall)
	if _, err := c.Get(t.Context()); !errors.Is(err, ErrBroken) {
		t.Errorf("get: %v, want broken: the reply on the stream is another request's", err)
	}
}

func TestConnRefusesBadReplies(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{
		"\n", "errno=0\nx\n\n", "errno=x\n\n", "errno=99999999\n\n", "listen_port=1\n\n", "",
		strings.Repeat("x", 2*maxLine) + "\n",
	} {
		near, far := net.Pipe()
		go func() {
			_, _ = io.ReadFull(far, make([]byte, len("get=1\n\n")))
			_, _ = io.WriteString(far, reply)
			_ = far.Close()
		}()
		if body, err := NewConn(near).Get(t.Context()); err == nil {
			t.Errorf("%q understood as %q", reply, body)
		}
		_ = near.Close()
	}
}

func TestServeEndsOnWhatIsNoRequest(t *testing.T) {
	t.Parallel()
	for _, request := range []string{
		"\n", "put=1\n\n", "get=1\nlisten_port=1\n\n", "set=1\n" + strings.Repeat("x", 2*maxLine) + "\n\n", "get=2\n\n",
	} {
		near, far := net.Pipe()
		served := make(chan error, 1)
		go func() { served <- Serve(t.Context(), far, new(memory), Limits{}) }()
		go func() { _, _ = io.WriteString(near, request) }()
		reply, _ := io.ReadAll(near)
		if string(reply) != "errno=-71\n\n" {
			t.Errorf("reply to %q: %q", request, reply)
		}
		if err := <-served; err == nil {
			t.Errorf("serve took %q for a request", request)
		}
	}
}

func TestServeBoundsIdleAndSlowCallers(t *testing.T) {
	t.Parallel()
	limits := Limits{Idle: 30 * time.Millisecond, Request: 30 * time.Millisecond}
	for _, sent := range []string{"", "set=1\n"} {
		near, far := net.Pipe()
		served := make(chan error, 1)
		go func() { served <- Serve(t.Context(), far, new(memory), limits) }()
		go func() {
			_, _ = io.WriteString(near, sent)
			_, _ = io.Copy(io.Discard, near)
		}()
		if err := <-served; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after %q: %v, want deadline exceeded", sent, err)
		}
	}
	// An engine that does not answer costs the caller its connection only
	// after it was told.
	c := pair(t, &memory{stall: make(chan struct{})}, Limits{Request: 50 * time.Millisecond})
	if _, err := c.Get(t.Context()); err == nil {
		t.Error("a stalled engine answered")
	}
}

func listening(t *testing.T, path string, engine Engine) *Listener {
	t.Helper()
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- l.Serve(context.Background(), engine) }()
	t.Cleanup(func() {
		if err := errors.Join(l.Close(), <-served); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return l
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestListenMakesAPrivateSocketAndLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "wg0.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("socket: %v, %v", info, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestListenAtALongPath(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "wg0.sock")
	listening(t, path, new(memory))
	if err := os.Symlink(dir, filepath.Join(dir, "../short")); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second listener: %v, want EADDRINUSE", err)
	}
}

func TestListenReplacesOnlyAStaleSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "wg0.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	if _, err := Listen(path); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("beside a live socket: %v, want EADDRINUSE", err)
	}
	_ = dead.Close()
	listening(t, path, &memory{body: []byte("fwmark=1\n")})
	if got, err := NewConn(dial(t, path)).Get(t.Context()); err != nil || string(got) != "fwmark=1\n" {
		t.Errorf("get: %q, %v", got, err)
	}
	file := filepath.Join(t.TempDir(), "file.sock")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file); !errors.Is(err, os.ErrExist) {
		t.Errorf("over a file: %v, want EEXIST", err)
	}
}

func TestCloseLeavesAnothersSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "wg0.sock")
	first := listening(t, path, new(memory))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	listening(t, path, new(memory))
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := NewConn(dial(t, path)).Get(t.Context()); err != nil {
		t.Errorf("the second socket is gone: %v", err)
	}
}

// Callers that say nothing, half a thing or nonsense take no slot from one
// that asks.
func TestBrokenCallersDisturbNobody(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "wg0.sock")
	l := listening(t, path, new(memory))
	for i := range 3 * maxCallers {
		c := dial(t, path)
		if _, err := io.WriteString(c, []string{"", "set=1\nlisten", "nonsense\n\n"}[i%3]); err != nil && !errors.Is(err, syscall.EPIPE) {
			t.Fatal(err)
		}
	}
	c := NewConn(dial(t, path))
	if err := c.Set(t.Context(), []byte("fwmark=7\n")); err != nil {
		t.Error(err)
	}
	if got, err := c.Get(t.Context()); err != nil || string(got) != "fwmark=7\n" {
		t.Errorf("get: %q, %v", got, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.callers) > maxCallers {
		t.Errorf("%d callers, more than %d", len(l.callers), maxCallers)
	}
}

func FuzzReadRequest(f *testing.F) {
	f.Add([]byte("get=1\n\n"))
	f.Add([]byte("set=1\nlisten_port=1\n\nget=1\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r := bufio.NewReader(bytes.NewReader(text))
		for {
			operation, body, err := readRequest(r)
			if err != nil {
				return
			}
			if operation == "get" && body != nil || bytes.Contains(body, []byte("\n\n")) {
				t.Fatalf("%s with body %q", operation, body)
			}
		}
	})
}

func FuzzReadReply(f *testing.F) {
	f.Add([]byte(exampleReply + "errno=0\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		body, errno, err := readReply(bufio.NewReader(bytes.NewReader(text)))
		if err == nil && (errno > 1<<15 || bytes.Contains(body, []byte("\nerrno="))) {
			t.Fatalf("body %q, errno %d", body, errno)
		}
	})
}
