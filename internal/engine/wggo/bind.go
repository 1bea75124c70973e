package wggo

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"syscall"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

// bind is wireguard-go's sockets. It sees who is sent to and who is heard, and
// gets large packets through a path that has become narrow.
//
// wireguard-go listens for changes of routes only on a bind of its own type. The
// supervisor does it for all engines (package watch).
type bind struct {
	conn.Bind
	silences *silences
	narrow   func() // called when a packet is larger than the path

	// Of the request under way alone.
	mark    uint32 // the last that the kernel took
	refused bool   // it has refused one since
}

// SetMark notes a mark that the kernel refuses: wireguard-go takes it for set.
func (b *bind) SetMark(mark uint32) error {
	err := b.Bind.SetMark(mark)
	if b.refused = err != nil; err == nil {
		b.mark = mark
	}
	return err
}

func (b *bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	receive, port, err := b.Bind.Open(port)
	for i, fn := range receive {
		receive[i] = func(packets [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
			n, err := fn(packets, sizes, eps)
			b.hear(packets[:n], sizes, eps)
			return n, err
		}
	}
	return receive, port, err
}

// Send sends packets, all to one endpoint. The kernel cuts a packet in two that is
// larger than the path to there is known to be, but refuses to when it came as one
// of many (UDP_SEGMENT, udp(7)): then each is sent alone. What had been sent before
// the refusal is sent twice, and dropped by the receiver as a replay.
func (b *bind) Send(packets [][]byte, ep conn.Endpoint) error {
	if to, ok := addrOf(ep); ok {
		for _, p := range packets {
			if k := kindOf(p); k != noMatter {
				b.silences.sent(to, k)
				break
			}
		}
	}
	err := b.Bind.Send(packets, ep)
	if !tooLarge(err) {
		return err
	}
	b.narrow()
	if len(packets) == 1 {
		return err
	}
	var errs error
	for i := range packets {
		errs = errors.Join(errs, b.Bind.Send(packets[i:i+1], ep))
	}
	return errs
}

// tooLarge tells that a packet is larger than the path. Linux before 6.12 says
// EINVAL of one of many.
func tooLarge(err error) bool {
	return errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.EINVAL)
}

// hear notes where packets came from, once for packets of one kind in a row.
func (b *bind) hear(packets [][]byte, sizes []int, eps []conn.Endpoint) {
	var last netip.AddrPort
	var lastKind kind
	for i, p := range packets {
		if sizes[i] == 0 {
			continue
		}
		from, ok := addrOf(eps[i])
		k := kindOf(p[:sizes[i]])
		if !ok || from == last && k == lastKind {
			continue
		}
		last, lastKind = from, k
		b.silences.heard(from, k)
	}
}

func addrOf(ep conn.Endpoint) (netip.AddrPort, bool) {
	e, ok := ep.(*conn.StdNetEndpoint)
	if !ok {
		return netip.AddrPort{}, false
	}
	return e.AddrPort, true
}

// kind is what a packet is to who waits for an answer.
type kind int

const (
	noMatter kind = iota // keepalives, cookies, answers
	data
	initiation
)

func kindOf(packet []byte) kind {
	if len(packet) < 4 {
		return noMatter
	}
	switch binary.LittleEndian.Uint32(packet) {
	case device.MessageTransportType:
		if len(packet) > device.MessageKeepaliveSize {
			return data
		}
	case device.MessageInitiationType:
		return initiation
	}
	return noMatter
}
