package wggo

import (
	"errors"
	"sync/atomic"
	"syscall"

	"golang.zx2c4.com/wireguard/tun"
)

// link is a TUN device of another network namespace, as device.Device wants it.
type link struct {
	tun.Device
	mtu int
	log func(line string)

	singly atomic.Bool // the kernel refused a coalesced packet
}

// MTU is what the link was made with: the device below would ask by name, and
// so be told of a link of that name in this process's own network namespace.
func (l *link) MTU() (int, error) { return l.mtu, nil }

// Write hands packets to the kernel. The device below coalesces those of one
// flow into one that carries a virtio header; some kernels offer that and then
// refuse such a packet with EINVAL. A refused batch is lost, as on any bad
// link, and from then on packets are written one by one, which leaves the
// device nothing to coalesce.
func (l *link) Write(packets [][]byte, offset int) (int, error) {
	if l.singly.Load() {
		return l.writeSingly(packets, offset)
	}
	n, err := l.Device.Write(packets, offset)
	if len(packets) > 1 && errors.Is(err, syscall.EINVAL) {
		if l.singly.CompareAndSwap(false, true) {
			l.log("the kernel refuses coalesced packets on the TUN device: going on without them, slower")
		}
		return n, nil
	}
	return n, err
}

func (l *link) writeSingly(packets [][]byte, offset int) (int, error) {
	var total int
	var errs error
	for i := range packets {
		n, err := l.Device.Write(packets[i:i+1], offset)
		total += n
		errs = errors.Join(errs, err)
	}
	return total, errs
}
