package wggo

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.zx2c4.com/wireguard/tun"
)

// memoryTUN is a TUN device that keeps what is written, of a kernel that
// refuses what the real device would coalesce.
type memoryTUN struct {
	tun.Device
	written [][]byte
	refuses error // of a batch
	fails   error // of any write
}

func (m *memoryTUN) Write(packets [][]byte, offset int) (int, error) {
	if len(packets) > 1 && m.refuses != nil {
		// As tun.NativeTun reports it.
		return 0, errors.Join(&os.PathError{Op: "write", Path: "/dev/tun", Err: m.refuses})
	}
	total := 0
	for _, p := range packets {
		m.written = append(m.written, bytes.Clone(p[offset:]))
		total += len(p) - offset
	}
	return total, m.fails
}

func batch(n int) (packets [][]byte) {
	for i := range n {
		packets = append(packets, fmt.Appendf(nil, "....packet %d", i))
	}
	return packets
}

func TestRefusedBatchesAreWrittenSingly(t *testing.T) {
	t.Parallel()
	var log []string
	under := &memoryTUN{refuses: syscall.EINVAL}
	l := &link{Device: under, mtu: 1420, log: func(line string) { log = append(log, line) }}
	if _, err := l.Write(batch(1), 4); err != nil || len(under.written) != 1 {
		t.Errorf("one packet: %v, %d written", err, len(under.written))
	}
	if _, err := l.Write(batch(3), 4); err != nil {
		t.Errorf("refused batch: %v; it is lost, not an error", err)
	}
	under.written = nil
	for range 2 {
		if _, err := l.Write(batch(3), 4); err != nil {
			t.Error(err)
		}
	}
	if got := string(bytes.Join(under.written, []byte(","))); got != "packet 0,packet 1,packet 2,packet 0,packet 1,packet 2" {
		t.Errorf("written %q", got)
	}
	if len(log) != 1 || !strings.Contains(log[0], "coalesced") {
		t.Errorf("logged %q, want one line", log)
	}
}

func TestOtherErrorsAreErrors(t *testing.T) {
	t.Parallel()
	under := &memoryTUN{refuses: syscall.EIO}
	l := &link{Device: under, log: func(line string) { t.Errorf("logged %q", line) }}
	if _, err := l.Write(batch(2), 4); !errors.Is(err, syscall.EIO) {
		t.Errorf("batch: %v, want EIO", err)
	}
	under.refuses, under.fails = nil, syscall.EINVAL
	if _, err := l.Write(batch(1), 4); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("bad packet: %v, want EINVAL: there was nothing to coalesce", err)
	}
	if l.singly.Load() {
		t.Error("a bad packet ended coalescing")
	}
}

func TestMTUIsWhatWasSaid(t *testing.T) {
	t.Parallel()
	if mtu, err := (&link{Device: &memoryTUN{}, mtu: 1380}).MTU(); mtu != 1380 || err != nil {
		t.Errorf("%d, %v", mtu, err)
	}
}
