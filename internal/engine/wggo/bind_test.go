package wggo

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// memoryBind keeps what is sent, one by one, and refuses what is for a network that
// takes nothing.
type memoryBind struct {
	conn.Bind
	sent    [][]byte
	refuses error // of a batch
	fails   error // of one packet
}

func (m *memoryBind) Send(packets [][]byte, _ conn.Endpoint) error {
	if len(packets) > 1 && m.refuses != nil {
		return m.refuses
	}
	m.sent = append(m.sent, packets...)
	return m.fails
}

func TestTooLargeBatchesAreSentSingly(t *testing.T) {
	t.Parallel()
	ep := &conn.StdNetEndpoint{AddrPort: netip.MustParseAddrPort("192.0.2.1:51820")}
	packets := [][]byte{{4, 0, 0, 0, 1}, {4, 0, 0, 0, 2}, {4, 0, 0, 0, 3}}
	for _, test := range []struct {
		refuses, fails, want error
		sent, narrow         int
	}{
		{nil, nil, nil, 3, 0},
		{syscall.EMSGSIZE, nil, nil, 3, 1},
		{syscall.EINVAL, nil, nil, 3, 1},
		{syscall.EMSGSIZE, syscall.EMSGSIZE, syscall.EMSGSIZE, 3, 1},
		{syscall.ENETUNREACH, nil, syscall.ENETUNREACH, 0, 0},
	} {
		under, narrow := &memoryBind{refuses: test.refuses, fails: test.fails}, 0
		b := &bind{Bind: under, silences: newSilences(nil), narrow: func() { narrow++ }}
		err := b.Send(packets, ep)
		if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("%v: error %v, want %v", test.refuses, err, test.want)
		}
		if narrow != test.narrow || len(under.sent) != test.sent {
			t.Errorf("%v: %d sent, told %d times", test.refuses, len(under.sent), narrow)
		}
		if test.sent > 0 && !slices.EqualFunc(under.sent, packets, bytes.Equal) {
			t.Errorf("%v: sent %v", test.refuses, under.sent)
		}
	}
}

func TestKinds(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		first  byte
		length int
		want   kind
	}{{1, 148, initiation}, {2, 92, noMatter}, {3, 64, noMatter}, {4, 32, noMatter}, {4, 48, data}, {9, 99, noMatter}, {0, 0, noMatter}, {4, 3, noMatter}} {
		packet := make([]byte, test.length)
		if test.length > 0 {
			packet[0] = test.first
		}
		if got := kindOf(packet); got != test.want {
			t.Errorf("type %d, %d bytes: %v, want %v", test.first, test.length, got, test.want)
		}
	}
}

func TestAtMost(t *testing.T) {
	t.Parallel()
	calls := 0
	f := atMost(time.Hour, func() { calls++ })
	for range 3 {
		f()
	}
	if calls != 1 {
		t.Errorf("%d calls", calls)
	}
	atMost(time.Hour, nil)()
}
