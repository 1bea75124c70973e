package supervisor

import (
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/ns"
	"wireguard4netns/internal/tunnel"
)

func pair(t testing.TB) (a, b *conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]*conn, 2)
	for i, fd := range fds {
		if ends[i], err = newConn(os.NewFile(uintptr(fd), "test")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ends[i].Close() })
	}
	return ends[0], ends[1]
}

// Descriptors arrive with the message that they were sent with, whatever came
// before it.
func TestDescriptors(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	var sender sync.WaitGroup
	defer sender.Wait()
	sender.Go(func() {
		a.send(message{Say: "one"})
		a.send(message{Ready: &Ready{Name: "two"}}, files...)
		a.Close()
	})
	if m, err := b.receive(); err != nil || m.Say != "one" {
		t.Fatalf("got %+v, %v", m, err)
	}
	if m, err := b.receive(); err != nil || m.Ready == nil || m.Ready.Name != "two" {
		t.Fatalf("got %+v, %v", m, err)
	}
	got := b.takeFiles()
	if len(got) != len(files) {
		t.Fatalf("%d descriptors", len(got))
	}
	for i, f := range got {
		want, err1 := files[i].Stat()
		have, err2 := f.Stat()
		if err1 != nil || err2 != nil || !os.SameFile(want, have) {
			t.Errorf("descriptor %d is another file: %v %v", i, err1, err2)
		}
		if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d is not close-on-exec", i)
		}
		f.Close()
	}
	if _, err := b.receive(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

// An error is the same on both sides to errors.Is.
func TestErrorsKeepTheirIdentity(t *testing.T) {
	t.Parallel()
	for i, want := range known {
		a, b := pair(t)
		original := errors.Join(want, errors.New("and more"))
		go a.send(message{Failed: newRemoteError(original)})
		m, err := b.receive()
		if err != nil || m.Failed == nil {
			t.Fatal(err)
		}
		if !errors.Is(m.Failed, want) || m.Failed.Error() != original.Error() {
			t.Errorf("%v became %v", original, m.Failed)
		}
		if other := known[(i+1)%len(known)]; errors.Is(m.Failed, other) && !errors.Is(want, other) {
			t.Errorf("%v is %v as well", original, other)
		}
	}
	if r := (&remoteError{Kinds: []int{-1, 1 << 30}}); errors.Is(r, ns.ErrNoTUN) || errors.Is(r, syscall.EPERM) {
		t.Error("an unknown kind is something")
	}
}

func TestRequestSurvives(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	want := Start{Request: tunnel.Request{Conf: []byte{0, 1, '\n', 255}, Name: "x", Target: &ns.Target{PID: 7}, Wait: 9}, ExitFD: true}
	go a.send(message{Start: &want})
	m, err := b.receive()
	if err != nil || m.Start == nil || !reflect.DeepEqual(*m.Start, want) {
		t.Errorf("got %+v, %v", m.Start, err)
	}
}

// Whatever comes over the socket, it is an error or a message, and it ends.
func FuzzReceive(f *testing.F) {
	f.Add([]byte(`{"Say":"x"}` + "\n"))
	f.Add([]byte(`{"Failed":{"Text":"x","Kinds":[1,99]}}` + "\n{"))
	f.Add([]byte(`{"Start":{"Conf":"AA==","Target":{"PID":1}}}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		near, far, err := streams()
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			far.Write(data)
			far.Close()
		}()
		c, err := newConn(near)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for {
			m, err := c.receive()
			if err != nil {
				return
			}
			if m.Failed != nil {
				_ = errors.Is(m.Failed, ns.ErrNoTUN)
			}
		}
	})
}

func streams() (near *os.File, far net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fds[1]), "far")
	defer f.Close()
	far, err = net.FileConn(f)
	return os.NewFile(uintptr(fds[0]), "near"), far, err
}
