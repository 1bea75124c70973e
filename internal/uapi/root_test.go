//go:build root

package uapi

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// Another user is not answered even where the socket's mode lets it in.
func TestRootAnotherUserIsNotAnswered(t *testing.T) {
	dir, err := os.MkdirTemp("", "uapi-*")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "wg0.sock")
	listening(t, path, new(memory))
	for _, p := range []string{dir, path} {
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	ask := func() string {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Error(err)
			return ""
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "get=1\n\n")
		if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
			return ""
		}
		reply, _ := io.ReadAll(conn)
		return string(reply)
	}
	if got := ask(); got != "errno=0\n\n" {
		t.Errorf("own user: %q", got)
	}
	answer := make(chan string)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with its ids
		const nobody = 65534
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			t.Error(errno)
		}
		answer <- ask()
	}()
	if got := <-answer; got != "" {
		t.Errorf("another user: %q", got)
	}
}
