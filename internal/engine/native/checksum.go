package native

import (
	"encoding/binary"
	"math/bits"
)

// A checksum is a ones' complement sum under way (RFC 1071). It is kept in
// little-endian order, which that sum allows: only what goes in and out counts.
type checksum uint64

// add sums b, which is followed by a zero byte if its length is odd.
func (c checksum) add(b []byte) checksum {
	sum := uint64(c)
	var carry uint64
	for len(b) >= 64 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b), 0)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[8:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[16:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[24:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[32:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[40:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[48:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[56:64]), carry)
		sum += carry // cannot carry again: what was added is less than all ones
		b = b[64:]
	}
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b), 0)
		sum += carry
		b = b[8:]
	}
	if len(b) > 0 {
		var last [8]byte
		copy(last[:], b)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(last[:]), 0)
		sum += carry
	}
	return checksum(sum)
}

// pseudo sums the header that TCP and UDP put before theirs: addresses,
// protocol and length.
func (c checksum) pseudo(addresses []byte, protocol byte, length int) checksum {
	c = c.add(addresses)
	return c.add([]byte{0, protocol, byte(length >> 8), byte(length)})
}

// fold returns the sum in 16 bits.
func (c checksum) fold() uint16 {
	sum := uint64(c)>>32 + uint64(c)&0xffffffff
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return uint16(sum>>16 + sum&0xffff)
}

// put writes the folded sum, as packets of an unfinished checksum have it.
func (c checksum) put(field []byte) { binary.LittleEndian.PutUint16(field, c.fold()) }

// finish writes the checksum: the complement of the sum.
func (c checksum) finish(field []byte) { binary.LittleEndian.PutUint16(field, ^c.fold()) }

// finishUDP writes the checksum; a zero would say that there is none.
func (c checksum) finishUDP(field []byte) {
	sum := ^c.fold()
	if sum == 0 {
		sum = 0xffff
	}
	binary.LittleEndian.PutUint16(field, sum)
}

// valid tells whether what was summed, with its checksum, is whole.
func (c checksum) valid() bool { return c.fold() == 0xffff }
