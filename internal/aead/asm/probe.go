package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Two functions for tests: stain is called before seal or open, residue behind. The
// linker leaves them out of a program.

// probeStack is how much of the stack they look at: more than any frame here.
const probeStack = 4096

func stain() {
	TEXT("stain", 0, "func()")
	Doc("stain fills the registers, each with another number, and the stack below its caller, for tests.")
	room := AllocLocal(probeStack)
	ones := vectorRegisters[0]
	VPTERNLOGD(U8(0xff), ones, ones, ones)
	for offset := 0; offset < probeStack; offset += vectorSize {
		VMOVDQU64(ones, room.Offset(offset))
	}
	for i, v := range vectorRegisters[1:] {
		VPSLLQ(U8(i+1), ones, v)
	}
	for _, k := range maskRegisters {
		KXNORQ(k, k, k)
	}
	for i, g := range generalRegisters {
		MOVQ(I32(-1-i), g)
	}
	RET()
}

func residue() {
	size := vectorSize*len(vectorRegisters) + 8*len(maskRegisters) + 8*len(generalRegisters[1:]) + probeStack
	TEXT("residue", attr.NOSPLIT, fmt.Sprintf("func(to *[%d]byte)", size))
	Pragma("noescape")
	Doc("residue is what a call before it left in the registers, but in AX, and on the stack, for tests.")
	to := Mem{Base: Load(Param("to"), reg.RAX)}
	next := func(size int) Mem {
		at := to
		to = to.Offset(size)
		return at
	}
	for _, v := range vectorRegisters {
		VMOVDQU64(v, next(vectorSize))
	}
	for _, g := range generalRegisters[1:] {
		MOVQ(g, next(8))
	}
	for _, k := range maskRegisters {
		KMOVQ(k, next(8))
	}
	LEAQ(Mem{Base: reg.StackPointer, Disp: -probeStack}, reg.RCX)
	for offset := 0; offset < probeStack; offset += vectorSize {
		VMOVDQU64(Mem{Base: reg.RCX, Disp: offset}, reg.Z0)
		VMOVDQU64(reg.Z0, next(vectorSize))
	}
	VZEROUPPER()
	RET()
}
