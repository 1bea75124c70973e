package native

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// A kernel is Linux's own segmentation. A large packet that is written to one TAP
// device goes over a bridge to another that can do none, so the kernel cuts it.
//
//	put ──▶ ta ── br0 ── tb ──▶ take
//
// Nothing changes packets on the way: a bridge is no router.
type kernel struct{ in, out int }

// ethernet is the header before each packet, to an address that nobody has.
var ethernet = []byte{0x02, 0, 0, 0, 0, 9, 0x02, 0, 0, 0, 0, 8}

// bridgeFunction is for a shell: bridge NAME PORT PORT. br_netfilter would drop
// what it does not like.
const bridgeFunction = `for call in /proc/sys/net/bridge/bridge-nf-call-*; do
	[ ! -e $call ] || echo 0 >$call
done
bridge() {
	ip link add $1 type bridge stp_state 0 mcast_snooping 0
	for link in $1 $2 $3; do ip link set $link addrgenmode none mtu 9000; done
	for port in $2 $3; do ip link set $port master $1 txqueuelen 1000; done
	for link in $1 $2 $3; do ip link set $link up; done
}
`

func newKernel(t testing.TB) *kernel {
	t.Helper()
	host, k, _ := newTAPs(t)
	host.Run(t, "sh", "-ec", bridgeFunction+"bridge br0 ta tb")
	// A port of a bridge passes nothing before it has seen that its link is up.
	probe := template{from: 1, to: 2, udp: true}.packet([]byte("probe"))
	nstest.Eventually(t, 15*time.Second, func() error {
		if got := k.segment(t, vnetHeader{}, probe); len(got) == 0 || !bytes.Equal(got[0], probe) {
			return fmt.Errorf("nothing passes: %x", got)
		}
		return nil
	})
	return k
}

// newTAPs makes the devices ta and tb on a machine of their own. rtnetlink is a
// socket of that machine.
func newTAPs(t testing.TB) (host *nstest.Host, k *kernel, rtnetlink int) {
	t.Helper()
	host = nstest.NewHost(t)
	k = new(kernel)
	for name, fd := range map[string]*int{"ta": &k.in, "tb": &k.out} {
		tap, socket := host.OpenTUN(t, name, unix.IFF_TAP|unix.IFF_NO_PI|unix.IFF_VNET_HDR)
		*fd, rtnetlink = int(tap.Fd()), int(socket.Fd())
		if err := unix.SetNonblock(*fd, true); err != nil {
			t.Fatal(err)
		}
	}
	return host, k, rtnetlink
}

// write writes a packet, or one that is to be cut, to ta.
func (k *kernel) write(t testing.TB, h vnetHeader, packet []byte) {
	t.Helper()
	kind := []byte{0x08, 0x00}
	if version(packet) == 6 {
		kind = []byte{0x86, 0xdd}
	}
	var header [vnetSize]byte
	h.put(header[:])
	if _, err := unix.Write(k.in, bytes.Join([][]byte{header[:], ethernet, kind, packet}, nil)); err != nil {
		t.Fatalf("write %+v: %v", h, err)
	}
}

// segment returns what the kernel makes of a large packet.
func (k *kernel) segment(t testing.TB, h vnetHeader, packet []byte) (packets [][]byte) {
	t.Helper()
	if h.flags != 0 {
		h.sumStart += 14
		h.headers = h.sumStart + udpHeader
		if h.gso != gsoUDP {
			h.headers = h.sumStart + uint16(packet[h.sumStart-14+tcpOffset]>>4)*4
		}
	}
	k.write(t, h, packet)
	wait := 1000
	buffer := make([]byte, 1<<16+100)
	for {
		files := []unix.PollFd{{Fd: int32(k.out), Events: unix.POLLIN}}
		if n, err := unix.Poll(files, wait); err == nil && n == 0 {
			return packets
		}
		n, err := unix.Read(k.out, buffer)
		if err != nil {
			return packets
		}
		wait = 0 // all come at once
		if n > vnetSize+14 && bytes.Equal(buffer[vnetSize:][:12], ethernet) {
			packets = append(packets, bytes.Clone(buffer[vnetSize+14:n]))
		}
	}
}

// FuzzSplitAsKernel: a splitter makes the same packets of a large one as the
// kernel, byte for byte, and the kernel undoes what a coalescer did.
func FuzzSplitAsKernel(f *testing.F) {
	k := newKernel(f)
	for i := range kinds() {
		for _, size := range []uint16{1001, 3000, 60000} {
			for _, segment := range []uint16{1000, 1380, 536} {
				f.Add(uint8(i), size, segment, uint8(0), uint8(0), uint16(65530), uint32(1<<32-2000))
			}
		}
		for flags := range uint8(32) {
			f.Add(uint8(i), uint16(2500), uint16(700), flags, uint8(flags%11), uint16(flags)*3000, uint32(flags)*1e8)
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, size, segment uint16, flags, options uint8, id uint16, seq uint32) {
		flow := kinds()[int(kind)%len(kinds())]
		flow.id, flow.seq = id, seq
		flow.options = bytes.Repeat([]byte{1}, int(options%11)*4)
		flow.flags = flagACK
		for i, flag := range []byte{flagPSH, flagFIN, flagCWR, 0x40, 0x20} { // ECE, URG
			if flags>>i&1 != 0 {
				flow.flags |= flag
			}
		}
		// As many as the kernel takes (UDP_MAX_SEGMENTS), and more than one.
		segment = max(8, segment%1460)
		size = uint16(min(int(size), 60*int(segment), 65000))
		if size <= segment {
			return
		}
		h, packet := flow.large(random(int(size)), int(segment))
		if flow.flags&flagCWR != 0 && !flow.udp {
			h.gso |= gsoECN
		}
		// The kernel wants the sum over the pseudo header in the field.
		protocol := byte(protocolTCP)
		if flow.udp {
			protocol = protocolUDP
		}
		field := packet[int(h.sumStart)+int(h.sumOffset):][:2]
		checksum(0).pseudo(addresses(packet), protocol, len(packet)-int(h.sumStart)).put(field)

		want := k.segment(t, h, packet)
		got := split(t, h, bytes.Clone(packet))
		if len(want) < 2 {
			t.Fatalf("the kernel made %d packets of %+v", len(want), h)
		}
		same(t, got, want)

		// And the other way: what is put together of these, the kernel cuts again.
		sink := &toKernel{t: t, kernel: k}
		c := coalescer{sink: sink, udp: true}
		for _, p := range want {
			addPacket(&c, bytes.Clone(p))
		}
		c.flush()
		same(t, sink.packets, want)
	})
}

// toKernel is a sink that has the kernel cut what it gets.
type toKernel struct {
	t       testing.TB
	kernel  *kernel
	packets [][]byte
}

func (k *toKernel) deliver(h vnetHeader, parts [][]byte) {
	k.packets = append(k.packets, k.kernel.segment(k.t, h, bytes.Join(parts, nil))...)
}
