package native

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/sys"
)

// errLinkGone ends the engine: somebody has deleted the link.
var errLinkGone = errors.New("TUN device is gone")

// What the kernel is asked to leave unfinished, if it can: checksums, and the
// cutting of large packets.
const (
	offloadTCP = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	offloadUDP = unix.TUN_F_USO4 | unix.TUN_F_USO6
)

// A link is the TUN device. One thread reads at a time, and one writes.
type link struct {
	fd   int
	vnet bool // each packet has a vnetHeader
	udp  bool // large UDP packets, too
	log  func(format string, args ...any)

	// Of the thread that writes.
	gather  sys.Gather
	header  [vnetSize]byte
	refused bool   // that the kernel refuses large packets was logged
	spare   []byte // for one that it refused
}

// openLink makes ready a descriptor that it borrows.
func openLink(fd int, log func(string, ...any)) (*link, error) {
	flags, err := sys.TUNFlags(fd)
	if err != nil {
		return nil, fmt.Errorf("open TUN device: %w", err)
	}
	l := &link{fd: fd, vnet: flags&unix.IFF_VNET_HDR != 0, log: log, gather: sys.NewGather(maxSegments + 1)}
	if l.vnet {
		l.udp = sys.SetTUNOffload(fd, offloadTCP|offloadUDP) == nil
		if !l.udp {
			err = sys.SetTUNOffload(fd, offloadTCP)
		}
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return nil, fmt.Errorf("set up TUN device: %w", err)
	}
	return l, nil
}

// read reads one packet, with its header if l.vnet. EAGAIN: none is there.
func (l *link) read(b []byte) (int, error) {
	n, err := sys.ReadNow(l.fd, b)
	if errors.Is(err, unix.EBADFD) {
		err = errLinkGone
	}
	return n, err
}

// deliver writes one packet, of several parts. What the kernel does not take is
// lost: it has no room, or the link is down. One that it refuses because of what it
// is made of is split again. The next is tried all the same: one flow that the
// kernel does not like is not to slow down the others.
func (l *link) deliver(h vnetHeader, parts [][]byte) {
	if err := l.write(h, parts); errors.Is(err, unix.EINVAL) && len(parts) > 1 {
		if !l.refused {
			l.refused = true
			l.log("the kernel refuses a large packet on the TUN device: such packets go one by one, slower")
		}
		l.writeSplit(h, parts)
	}
}

func (l *link) write(h vnetHeader, parts [][]byte) error {
	l.gather.Reset()
	if l.vnet {
		h.put(l.header[:])
		l.gather.Add(l.header[:])
	}
	for _, part := range parts {
		l.gather.Add(part)
	}
	return l.gather.Write(l.fd)
}

// writeSplit undoes what the coalescer did.
func (l *link) writeSplit(h vnetHeader, parts [][]byte) {
	l.spare = l.spare[:0]
	for _, part := range parts {
		l.spare = append(l.spare, part...)
	}
	var s splitter
	if err := s.init(h, l.spare); err != nil {
		return
	}
	for packet := s.next(); packet != nil; packet = s.next() {
		_ = l.write(vnetHeader{}, [][]byte{packet})
	}
}
