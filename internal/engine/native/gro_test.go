package native

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"wireguard4netns/internal/nstest"
	"wireguard4netns/internal/sys"
)

// A gro is Linux's own GRO. Packets that are written to ta wait before va, and then
// go through all at once: vb receives them as from a network card that has many.
//
//	put ──▶ ta ── br0 ── va: held back │ vb: GRO ── br1 ── tb ──▶ take
//
// tb takes large packets, so what was put together stays together.
type gro struct {
	*kernel
	rtnetlink int
	udp       bool // tb takes large UDP packets
}

// vaIndex is the index of the link va.
const vaIndex = 1000

func newGRO(t testing.TB) *gro {
	t.Helper()
	host, k, rtnetlink := newTAPs(t)
	g := &gro{kernel: k, rtnetlink: rtnetlink, udp: sys.SetTUNOffload(k.out, offloadTCP|offloadUDP) == nil}
	if !g.udp {
		if err := sys.SetTUNOffload(k.out, offloadTCP); err != nil {
			t.Fatal(err)
		}
	}
	host.Run(t, "sh", "-ec", bridgeFunction+fmt.Sprintf(`ip link add va index %d type veth peer name vb
bridge br0 ta va
bridge br1 vb tb`, vaIndex))
	for _, f := range []features{
		// If the sender could cut packets, there would be no GRO.
		{"va", false, []string{"tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation"}},
		{"vb", true, []string{"rx-gro", "rx-udp-gro-forwarding"}},
		{"tb", true, []string{"tx-tcp-mangleid-segmentation"}}, // a fixed identification
	} {
		if _, err := setFeatures.Call(host.Command, f); err != nil {
			t.Fatal(err)
		}
	}
	probe := [][]byte{template{from: 1, to: 2, udp: true}.packet([]byte("probe"))}
	nstest.Eventually(t, 15*time.Second, func() error {
		if len(g.merge(t, probe)) == 0 {
			return fmt.Errorf("nothing passes")
		}
		return nil
	})
	return g
}

// hold lets nothing through va from now on, or what waits there with the next
// packet. The token bucket is full after each change, so the first packet after
// hold(true) has to empty it.
func (g *gro) hold(t testing.TB, on bool) {
	t.Helper()
	rate, burst := uint32(1e9), uint32(1e6) // bytes a second, bytes
	if on {
		rate, burst = 1, frameSize
	}
	// struct tc_tbf_qopt; the link layer is Ethernet.
	parameters := make([]byte, 36)
	parameters[1] = 1
	binary.NativeEndian.PutUint32(parameters[8:], rate)
	binary.NativeEndian.PutUint32(parameters[24:], 1e6) // bytes that may wait
	attrs := netlink.NewAttributeEncoder()
	attrs.String(unix.TCA_KIND, "tbf")
	nest(unix.TCA_OPTIONS, func(e *netlink.AttributeEncoder) {
		e.Bytes(1, parameters) // TCA_TBF_PARMS
		e.Uint32(6, burst)     // TCA_TBF_BURST
	})(attrs)
	data, err := attrs.Encode()
	if err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 20) // struct tcmsg
	binary.NativeEndian.PutUint32(head[4:], vaIndex)
	binary.NativeEndian.PutUint32(head[12:], 0xffffffff) // TC_H_ROOT
	request, err := netlink.Message{
		Header: netlink.Header{
			Length: uint32(unix.NLMSG_HDRLEN + len(head) + len(data)), Type: unix.RTM_NEWQDISC,
			Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Replace,
		},
		Data: append(head, data...),
	}.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Sendto(g.rtnetlink, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 4096)
	if _, _, err := unix.Recvfrom(g.rtnetlink, answer, 0); err != nil {
		t.Fatal(err)
	}
	if errno := int32(binary.NativeEndian.Uint32(answer[unix.NLMSG_HDRLEN:])); errno != 0 {
		t.Fatalf("change queue of va: %v", unix.Errno(-errno))
	}
}

// frameSize is the largest that passes; filler is as large, and no IP packet.
const frameSize = 9014

var filler = make([]byte, frameSize-14)

// merge returns what the kernel makes of packets.
func (g *gro) merge(t testing.TB, in [][]byte) (out []merged) {
	t.Helper()
	g.hold(t, true)
	g.write(t, vnetHeader{}, filler)
	for _, packet := range in {
		g.write(t, vnetHeader{}, packet)
	}
	g.hold(t, false)
	g.write(t, vnetHeader{}, filler)
	buffer := make([]byte, 1<<16+100)
	for missing := len(in); missing > 0; {
		files := []unix.PollFd{{Fd: int32(g.out), Events: unix.POLLIN}}
		if n, err := unix.Poll(files, 1000); err == nil && n == 0 {
			return out
		}
		n, err := unix.Read(g.out, buffer)
		if err != nil || n <= vnetSize+14 || !bytes.Equal(buffer[vnetSize:][:12], ethernet) {
			continue
		}
		if buffer[vnetSize+14]>>4 == 0 {
			continue // the filler
		}
		h := readVnet(buffer)
		h.sumStart -= 14
		m := newMerged(h, bytes.Clone(buffer[vnetSize+14:n]), in)
		out = append(out, m)
		missing -= len(m.numbers)
	}
	return out
}
