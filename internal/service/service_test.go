package service_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/service"
)

func TestFromEnvironment(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		want service.Manager
	}{
		"nobody":              {nil, service.Manager{}},
		"path":                {map[string]string{"NOTIFY_SOCKET": "/run/n"}, service.Manager{Socket: "/run/n"}},
		"abstract":            {map[string]string{"NOTIFY_SOCKET": "@n"}, service.Manager{Socket: "@n"}},
		"vsock":               {map[string]string{"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "1"}, service.Manager{}},
		"watchdog":            {map[string]string{"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "1500000"}, service.Manager{Socket: "/n", Watchdog: 1500 * time.Millisecond}},
		"our watchdog":        {map[string]string{"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "7"}, service.Manager{Socket: "/n", Watchdog: time.Microsecond}},
		"another's watchdog":  {map[string]string{"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "8"}, service.Manager{Socket: "/n"}},
		"watchdog, no socket": {map[string]string{"WATCHDOG_USEC": "1"}, service.Manager{}},
		"not a number":        {map[string]string{"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "-1"}, service.Manager{Socket: "/n"}},
	} {
		if got := service.FromEnvironment(func(name string) string { return c.env[name] }, 7); got != c.want {
			t.Errorf("%s: %+v, not %+v", name, got, c.want)
		}
	}
}

// A message with a descriptor arrives as one, over both kinds of address.
func TestSend(t *testing.T) {
	for _, address := range []string{filepath.Join(t.TempDir(), "notify"), "@wireguard4netns-test-" + filepath.Base(t.TempDir()) + time.Now().String()} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: address})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		m := service.Manager{Socket: address}
		if err := m.Send([]*os.File{f}, service.MainPID(7), service.Ready, service.Status("a\nb")); err != nil {
			t.Fatal(err)
		}
		text, rights := make([]byte, 100), make([]byte, 100)
		n, nr, _, _, err := l.ReadMsgUnix(text, rights)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := string(text[:n]), "MAINPID=7\nREADY=1\nSTATUS=a; b"; got != want {
			t.Errorf("%q, not %q", got, want)
		}
		messages, err := unix.ParseSocketControlMessage(rights[:nr])
		if err != nil || len(messages) != 1 {
			t.Fatalf("%d messages, %v", len(messages), err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			t.Fatalf("descriptors %v, %v", fds, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(fds[0], &st); err != nil || st.Rdev != unix.Mkdev(1, 3) {
			t.Errorf("not the descriptor that was sent: %v, %+v", err, st)
		}
		unix.Close(fds[0])
	}
}

func TestNobodyListens(t *testing.T) {
	if err := (service.Manager{}).Tell(service.Ready); err != nil {
		t.Error(err)
	}
	gone := service.Manager{Socket: filepath.Join(t.TempDir(), "gone")}
	if err := gone.Tell(service.Ready); !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
}

func TestReloading(t *testing.T) {
	if got := service.Reloading(); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") || strings.HasSuffix(got, "=0") {
		t.Errorf("%q", got)
	}
}
