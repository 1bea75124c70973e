package native

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
)

// FuzzCoalesceAsKernel makes flows with whatever changes in their headers: nothing
// is put together that the kernel would leave alone, and no packet overtakes
// another of its flow.
func FuzzCoalesceAsKernel(f *testing.F) {
	g := newGRO(f)
	for i, flow := range kinds() {
		i := byte(i)
		for _, change := range changes {
			if at, ok := flow.offset(change.header, change.at); ok {
				for _, then := range []byte{0, stepForAll << 4} {
					f.Add([]byte{i, 0, 0, 0, i, then, byte(at), change.bits, i, 0, 0, 0, i, 5, 0, 0, i, 0, 0, 0})
				}
			}
		}
		for then := range byte(stepForAll) {
			f.Add([]byte{i, 0, 0, 0, i, then << 4, 0, 0, i + 1, 0, 0, 0, i, 0, 0, 0, i | stepPSH, 0, 0, 0, i, 0, 0, 0})
		}
	}
	f.Fuzz(func(t *testing.T, steps []byte) {
		in := walk(steps)
		ours, _ := g.covers(t, in)
		checkOrder(t, ours, in)
	})
}

// A step of a walk has four bytes, and makes one packet:
//
//	flow, stepPSH, stepSpoil │ size, and << 4 what is unusual │ offset in the headers │ bits to change there
const (
	stepPSH   = 0x40
	stepSpoil = 0x80 // the checksums stay as they were

	stepGap, stepSameID, stepOtherPort, stepAgain, stepExtend, stepForAll = 1, 2, 3, 4, 5, 6
)

// walk makes packets of several flows, step by step.
func walk(steps []byte) (packets [][]byte) {
	flows := kinds()
	forAll := make([][2]byte, len(flows)) // what is changed in all packets of a flow
	for ; len(steps) >= 4 && len(packets) < 40; steps = steps[4:] {
		n := int(steps[0]&(stepPSH-1)) % len(flows)
		flow := &flows[n]
		flow.flags = flagACK
		if steps[0]&stepPSH != 0 {
			flow.flags |= flagPSH
		}
		size := []int{20, 20, 20, 20, 20, 7, 21, 0}[steps[1]&7]
		packet := flow.numbered(len(packets), size)
		flow.seq += uint32(size)
		flow.id++

		unusual, change := steps[1]>>4, [2]byte(steps[2:])
		switch unusual {
		case stepGap:
			flow.seq += 20
		case stepSameID:
			flow.id--
		case stepOtherPort:
			flow.port ^= 1
		case stepAgain:
			flow.seq -= uint32(size)
		case stepForAll:
			forAll[n], change = change, [2]byte{}
		}
		for _, c := range [][2]byte{forAll[n], change} {
			packet[int(c[0])%(len(packet)-size)] ^= c[1]
		}
		if steps[0]&stepSpoil == 0 {
			flow.finish(packet)
		}
		if unusual == stepExtend {
			packet = flow.extended(packet)
		}
		// What comes to the coalescer is an IP packet, and as long as it says.
		whole, source := trim(packet)
		known := slices.ContainsFunc(packets, func(p []byte) bool { return bytes.Equal(p, packet) })
		if source.IsValid() && len(whole) == len(packet) && !known {
			packets = append(packets, packet)
		}
	}
	return packets
}

// checkOrder checks that all packets came out, each flow's in order.
func checkOrder(t testing.TB, out []merged, in [][]byte) {
	last := make(map[string]int)
	count := 0
	for _, m := range out {
		for _, number := range m.numbers {
			count++
			var f flow
			if number < 0 || !f.parse(in[number]) {
				continue
			}
			name := fmt.Sprintf("%x %x %v", addresses(f.packet), f.packet[f.transport:][:4], f.udp)
			if before, ok := last[name]; ok && before > number {
				t.Errorf("packet %d came before %d: %v", before, number, numbers(out))
			}
			last[name] = number
		}
		if m.numbers[0] < 0 {
			t.Errorf("a packet that is none of those that went in: %x", m.packet)
		}
	}
	if count != len(in) {
		t.Errorf("%d packets came out of %d", count, len(in))
	}
}
