package demo

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"wireguard4netns/internal/uapi"
)

// A visitor to the trap is seen, and a trap that nobody could visit too.
func TestVisitors(t *testing.T) {
	t.Parallel()
	trap, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if seen, err := visitors(trap); err != nil {
		t.Errorf("no visitor: %q, %v", seen, err)
	}
	c, err := net.Dial("tcp4", trap.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if seen, err := visitors(trap); err == nil {
		t.Errorf("a visitor was not seen: %q", seen)
	}
	trap.Close()
	if seen, err := visitors(trap); err == nil {
		t.Errorf("a trap that is closed: %q", seen)
	}
}

// saying is an engine that says always the same.
type saying string

func (s saying) Get(context.Context) ([]byte, error) { return []byte(s), nil }
func (saying) Set(context.Context, []byte) error     { return nil }

func TestTraffic(t *testing.T) {
	t.Parallel()
	const key = "public_key=0000000000000000000000000000000000000000000000000000000000000001\n"
	for _, test := range []struct {
		name, body string
		ok         bool
	}{
		{"met", key + "last_handshake_time_sec=1\nlast_handshake_time_nsec=0\nrx_bytes=10\ntx_bytes=20\n", true},
		{"no data", key + "last_handshake_time_sec=1\nlast_handshake_time_nsec=0\nrx_bytes=0\ntx_bytes=20\n", false},
		{"no handshake", key + "last_handshake_time_sec=0\nlast_handshake_time_nsec=0\nrx_bytes=10\ntx_bytes=20\n", false},
		{"no peer", "listen_port=1\n", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "peer.sock")
			l, err := uapi.Listen(path)
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error)
			go func() { served <- l.Serve(context.Background(), saying(test.body)) }()
			p := peer{hello: hello{UAPIPath: path}}
			if seen, err := p.traffic(t.Context()); (err == nil) != test.ok {
				t.Errorf("%q, %v", seen, err)
			}
			l.Close()
			<-served
		})
	}
	gone := peer{hello: hello{UAPIPath: filepath.Join(t.TempDir(), "none.sock")}}
	if seen, err := gone.traffic(t.Context()); err == nil {
		t.Errorf("no socket: %q", seen)
	}
}

func TestGone(t *testing.T) {
	t.Parallel()
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := gone(ended.Process.Pid, filepath.Join(dir, "none")); err != nil {
		t.Error(err)
	}
	if gone(os.Getpid()) == nil {
		t.Error("a process was not seen")
	}
	if gone(ended.Process.Pid, dir) == nil {
		t.Error("a directory was not seen")
	}
}
