package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const (
	vectorSize  = 64
	rowsBlocks  = 8  // of one round of rows
	wordsBlocks = 16 // of one round of words
)

// What is in the stack frame, by offset. All but the padded message is wiped.
const (
	frameKey    = 0                          // of Poly1305
	frameFirst  = vectorSize                 // factors for the first half of 16 blocks
	frameSecond = frameFirst + 5*vectorSize  // and for the second
	frameStream = frameSecond + 5*vectorSize // key stream
	framePadded = frameStream                // or a short message
	frameSize   = frameStream + streamMax*vectorSize
	streamMax   = rowsBlocks - 1 + wordsBlocks
)

// A frame is memory on the stack, aligned to a vector.
type frame struct{ base reg.GPVirtual }

func newFrame() frame {
	f := frame{GP64()}
	LEAQ(AllocLocal(frameSize+vectorSize-8).Offset(vectorSize-8), f.base)
	ANDQ(I8(-vectorSize), f.base)
	return f
}

func (f frame) at(offset int) Mem { return Mem{Base: f.base, Disp: offset} }

// powers are the eight factors that are at offset.
func (f frame) powers(offset int) factor {
	var x factor
	for i := range x.limb {
		x.limb[i] = f.at(offset + vectorSize*i)
	}
	return x
}

// power is the first of them.
func (f frame) power(offset int) factor {
	x := f.powers(offset)
	x.one = true
	return x
}

func (f frame) store(offset int, x factor) {
	for i := range x.limb {
		VMOVDQA64(x.limb[i], f.at(offset+vectorSize*i))
	}
}

// saveKey puts the key of Poly1305, which is the first half of block 0, into
// the frame.
func (f frame) saveKey(rows [4]reg.VecVirtual) {
	VMOVDQA64(rows[0].AsX(), f.at(frameKey))
	VMOVDQA64(rows[1].AsX(), f.at(frameKey+16))
}

// keep puts blocks of key stream into the frame, behind those that are there.
func (f frame) keep(stream []Op, blocks []reg.VecVirtual) []Op {
	for _, b := range blocks {
		slot := f.at(frameStream + vectorSize*len(stream))
		VMOVDQA64(b, slot)
		stream = append(stream, slot)
	}
	return stream
}

// wipe clears the frame up to offset, and all registers but those of the stack. The
// masks are of the message's length.
func (f frame) wipe(end int) {
	Comment("wipe")
	cleared := ZMM()
	zero(cleared)
	for offset := 0; offset < end; offset += vectorSize {
		VMOVDQA64(cleared, f.at(offset))
	}
	for _, v := range vectorRegisters[16:] {
		zero(v.AsX())
	}
	VZEROALL()
	for _, g := range generalRegisters {
		XORL(g.As32(), g.As32())
	}
}

// The registers, but SP and BP.
var (
	generalRegisters = []reg.GPPhysical{
		reg.RAX, reg.RBX, reg.RCX, reg.RDX, reg.RSI, reg.RDI, reg.R8, reg.R9,
		reg.R10, reg.R11, reg.R12, reg.R13, reg.R14, reg.R15,
	}
	vectorRegisters = []reg.VecPhysical{
		reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7,
		reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15,
		reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23,
		reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
	}
	maskRegisters = []reg.Register{reg.K0, reg.K1, reg.K2, reg.K3, reg.K4, reg.K5, reg.K6, reg.K7}
)

// constants are in read-only memory.
var constants = map[string]Mem{}

func constant(name string) Mem { return constants[name] }

func defineConstants() {
	words := func(name string, words ...uint32) {
		constants[name] = GLOBL(name, attr.RODATA|attr.NOPTR)
		for i, w := range words {
			DATA(4*i, U32(w))
		}
	}
	numbers := func(name string, numbers ...uint64) {
		constants[name] = GLOBL(name, attr.RODATA|attr.NOPTR)
		for i, n := range numbers {
			DATA(8*i, U64(n))
		}
	}
	words("expand32", 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574)
	words("first_rows", 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0)
	words("next_rows", 4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0)
	words("first_words", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
	numbers("clamp", 0x0ffffffc0fffffff, 0x0ffffffc0ffffffc)
	numbers("limb", 1<<limbBits-1)
	numbers("twenty", 20)
	numbers("bit128", 1<<(128-2*limbBits))
	numbers("first_blocks", 0, 4, 1, 5, 2, 6, 3, 7)
	numbers("second_blocks", 8, 12, 9, 13, 10, 14, 11, 15)
}

// zero clears a register. It is not VPXORQ, of which avo does not know that what
// was in the register does not matter.
func zero(x reg.Register) { VPSUBQ(x, x, x) }

func clearWords(words ...reg.GPVirtual) {
	for _, w := range words {
		XORL(w.As32(), w.As32())
	}
}
