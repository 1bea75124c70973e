package uapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/unixsocket"
)

// What one caller on the socket may take. wg(8) opens a connection per
// request and sends it at once.
const (
	maxCallers = 32
	idleTime   = 2 * time.Minute
	askTime    = 15 * time.Second
)

// A Listener is a unix socket on which wg(8) reaches an engine. Only processes
// of the socket's own user are answered.
type Listener struct {
	socket *unixsocket.Listener
	path   string

	mu      sync.Mutex
	callers map[*caller]struct{}
	running sync.WaitGroup
}

// A caller is one accepted connection.
type caller struct {
	net.Conn
	since time.Time // when it was last heard; guarded by Listener.mu
	busy  bool      // a request is with the engine; guarded by Listener.mu
}

// Listen makes the socket at path with mode 0600. A socket at path on which nobody
// listens any more is replaced; anything else there is an error (EADDRINUSE,
// EEXIST). A process that is killed meanwhile leaves nothing but the socket.
func Listen(path string) (*Listener, error) {
	socket, err := unixsocket.Listen(path)
	if err != nil {
		return nil, err
	}
	return &Listener{socket: socket, path: path, callers: make(map[*caller]struct{})}, nil
}

// Serve answers callers for engine until Close, then returns nil when the last
// of them is gone.
func (l *Listener) Serve(ctx context.Context, engine Engine) error {
	ctx, cancel := context.WithCancel(ctx)
	defer l.running.Wait()
	defer cancel()
	for {
		conn, err := l.socket.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM) {
			// Wait for descriptors rather than end, or spin.
			select {
			case <-time.After(100 * time.Millisecond):
				continue
			case <-ctx.Done():
				return nil
			}
		}
		if err != nil {
			return fmt.Errorf("accept on %s: %w", l.path, err)
		}
		if !ownUser(conn) {
			_ = conn.Close()
			continue
		}
		c := l.admit(conn)
		if c == nil {
			continue
		}
		l.running.Go(func() {
			defer l.dismiss(c)
			_ = Serve(ctx, c, tracked{engine, l, c}, Limits{Idle: idleTime, Request: askTime})
		})
	}
}

// Close removes the socket if it is still ours at its path, and ends each
// connection.
func (l *Listener) Close() error {
	err := l.socket.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.callers {
		_ = c.Close()
	}
	return err
}

// ownUser asks the kernel whose process connected (SO_PEERCRED, unix(7)).
func ownUser(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return err == nil && credErr == nil && int(cred.Uid) == os.Geteuid()
}

// admit takes a connection in. When the table is full, the caller that has
// been silent longest makes room; when all wait for the engine, the new one is
// turned away (nil).
func (l *Listener) admit(conn net.Conn) *caller {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.callers) >= maxCallers {
		oldest := l.longestSilent()
		if oldest == nil {
			_ = conn.Close()
			return nil
		}
		_ = oldest.Close()
		delete(l.callers, oldest)
	}
	c := &caller{Conn: conn, since: time.Now()}
	l.callers[c] = struct{}{}
	return c
}

func (l *Listener) longestSilent() *caller {
	var oldest *caller
	for c := range l.callers {
		if !c.busy && (oldest == nil || c.since.Before(oldest.since)) {
			oldest = c
		}
	}
	return oldest
}

func (l *Listener) dismiss(c *caller) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.callers, c)
}

func (l *Listener) mark(c *caller, busy bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.busy, c.since = busy, time.Now()
}

// tracked notes which caller has a request with the engine.
type tracked struct {
	Engine
	l *Listener
	c *caller
}

func (t tracked) Get(ctx context.Context) ([]byte, error) {
	t.l.mark(t.c, true)
	defer t.l.mark(t.c, false)
	return t.Engine.Get(ctx)
}

func (t tracked) Set(ctx context.Context, body []byte) error {
	t.l.mark(t.c, true)
	defer t.l.mark(t.c, false)
	return t.Engine.Set(ctx, body)
}
