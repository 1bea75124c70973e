package main

import (
	"strconv"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// message is n bytes at src, to be written to dst.
type message struct{ dst, src, n reg.GPVirtual }

// parameters are those of seal and open.
func parameters() (message, cipherInput) {
	m := message{GP64(), GP64(), GP64()}
	m.reload()
	in := cipherInput{GP64(), GP64(), GP64()}
	Load(Param("key"), in.key)
	nonce, err := Param("nonce0").Resolve()
	if err != nil {
		panic(err)
	}
	LEAQ(nonce.Addr, in.nonce)
	XORL(in.counter.As32(), in.counter.As32())
	return m, in
}

// reload takes the message from the parameters again. Before it, the registers
// are free.
func (m message) reload() {
	Load(Param("dst"), m.dst)
	Load(Param("src"), m.src)
	Load(Param("n"), m.n)
}

func (m message) copy() message {
	c := message{GP64(), GP64(), GP64()}
	MOVQ(m.dst, c.dst)
	MOVQ(m.src, c.src)
	MOVQ(m.n, c.n)
	return c
}

// loadShort loads a message of at most shortMax bytes, with zeros behind it, and
// tells which bytes it has.
func (m message) loadShort() (text [2]reg.VecVirtual, masks [2]reg.OpmaskVirtual) {
	second, none := GP64(), GP64()
	XORL(none.As32(), none.As32())
	MOVQ(m.n, second)
	SUBQ(U8(vectorSize), second)
	CMOVQCS(none, second)
	for i, n := range []reg.GPVirtual{m.n, second} {
		text[i], masks[i] = ZMM(), lowBits(n)
		VMOVDQU8_Z(Mem{Base: m.src, Disp: vectorSize * i}, masks[i], text[i])
	}
	return text, masks
}

// xor takes blocks of key stream, which are in registers or in memory, to as much
// of the message as they are for. If that is all of it, it goes to done.
func (m message) xor(label string, stream []Op, done string) {
	text := ZMM()
	for i, block := range stream {
		CMPQ(m.n, U32(vectorSize*(i+1)))
		JCS(LabelRef(label + "_rest" + strconv.Itoa(i)))
		VMOVDQU64(Mem{Base: m.src, Disp: vectorSize * i}, text)
		VPXORQ(block, text, text)
		VMOVDQU64(text, Mem{Base: m.dst, Disp: vectorSize * i})
	}
	ADDQ(U32(vectorSize*len(stream)), m.src)
	ADDQ(U32(vectorSize*len(stream)), m.dst)
	SUBQ(U32(vectorSize*len(stream)), m.n)
	JZ(LabelRef(done))
	JMP(LabelRef(label + "_more"))

	Comment("less than a block is left")
	last, at := ZMM(), GP64()
	for i, block := range stream {
		Label(label + "_rest" + strconv.Itoa(i))
		VMOVDQU64(block, last)
		MOVL(U32(vectorSize*i), at.As32())
		if i < len(stream)-1 {
			JMP(LabelRef(label + "_rest"))
		}
	}
	Label(label + "_rest")
	SUBQ(at, m.n)
	JZ(LabelRef(done))
	k := lowBits(m.n)
	VMOVDQU8_Z(Mem{Base: m.src, Index: at, Scale: 1}, k, text)
	VPXORQ(last, text, text)
	VMOVDQU8(text, k, Mem{Base: m.dst, Index: at, Scale: 1})
	JMP(LabelRef(done))
	Label(label + "_more")
}

// encrypt takes the message, at least a byte, through ChaCha20, and goes to done.
func (m message) encrypt(label string, in cipherInput, done string) {
	Label(label)
	CMPQ(m.n, U32(4*vectorSize))
	JLS(LabelRef(label + "_4"))
	CMPQ(m.n, U32(8*vectorSize))
	JLS(LabelRef(label + "_8"))

	m.xor(label+"_16", vectors(in.words(label+"_16_rounds")), done)
	ADDQ(U8(wordsBlocks), in.counter)
	JMP(LabelRef(label))

	Label(label + "_8")
	m.xor(label+"_8", vectors(blocksOfRows(in.rows(label+"_8_rounds", 2))), done)

	Label(label + "_4")
	m.xor(label+"_4", vectors(blocksOfRows(in.rows(label+"_4_rounds", 1))), done)
}

func (m message) storeTag(low, high reg.GPVirtual) {
	MOVQ(low, Mem{Base: m.dst, Index: m.n, Scale: 1})
	MOVQ(high, Mem{Base: m.dst, Disp: 8, Index: m.n, Scale: 1})
}

// checkTag returns from the function, by the label end, whether the tag behind
// the message is low and high; it goes on if it is. How long it takes does not
// depend on where they differ.
func (m message) checkTag(low, high reg.GPVirtual, end string) {
	XORQ(Mem{Base: m.src, Index: m.n, Scale: 1}, low)
	XORQ(Mem{Base: m.src, Disp: 8, Index: m.n, Scale: 1}, high)
	ORQ(high, low)
	right := GP8()
	SETEQ(right)
	Store(right, ReturnIndex(0))
	clearWords(low, high)
	CMPB(right, U8(0))
	JEQ(LabelRef(end))
}

func vectors(blocks []reg.VecVirtual) []Op {
	var ops []Op
	for _, b := range blocks {
		ops = append(ops, b)
	}
	return ops
}

// lowBits is a mask of n bits, 64 if n is more, up to 255.
func lowBits(n reg.GPVirtual) reg.OpmaskVirtual {
	k, ones := K(), GP64()
	MOVQ(I32(-1), ones)
	BZHIQ(n, ones, ones)
	KMOVQ(ones, k)
	return k
}
