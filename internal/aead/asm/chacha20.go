package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// ChaCha20 is done in one of two layouts. A word is 32 bits, a register 16 words.
//
// Rows, for 4 or 8 blocks. A register has one row of the state, for four blocks:
//
//	        block 0         block 1         block 2         block 3
//	a    c0 c1 c2 c3  |  c0 c1 c2 c3  |  c0 c1 c2 c3  |  c0 c1 c2 c3      constants
//	b    k0 k1 k2 k3  |  k0 k1 k2 k3  |  k0 k1 k2 k3  |  k0 k1 k2 k3      key
//	c    k4 k5 k6 k7  |  k4 k5 k6 k7  |  k4 k5 k6 k7  |  k4 k5 k6 k7      key
//	d    n  n0 n1 n2  |  n+1 n0 n1 n2 |  n+2 n0 n1 n2 |  n+3 n0 n1 n2     counter, nonce
//
// A quarter round over the registers does all columns; the rows are turned against
// each other for the diagonals. The chain of dependent instructions is the limit,
// so eight blocks take little longer than four.
//
// Words, for 16 blocks. A register has one word of the state, for 16 blocks:
//
//	         block 0   block 1   …   block 15
//	word 0     c0        c0      …     c0
//	  ⋮
//	word 12    n         n+1     …     n+15
//	  ⋮
//	word 15    n2        n2      …     n2
//
// Nothing has to be turned, and the processor's ports are the limit; but the result
// has to be transposed.

// cipherInput is where the words of the initial state come from. The first word at
// nonce is 0.
type cipherInput struct {
	key, nonce reg.GPVirtual
	counter    reg.GPVirtual // of the next block
}

// quarterRounds does the quarter round on each of the columns. They do not
// depend on each other, so they go side by side.
func quarterRounds(columns ...[4]reg.VecVirtual) {
	const a, b, c, d = 0, 1, 2, 3
	for _, step := range []struct {
		sum, addend, turned int
		bits                uint64
	}{{a, b, d, 16}, {c, d, b, 12}, {a, b, d, 8}, {c, d, b, 7}} {
		for _, x := range columns {
			VPADDD(x[step.addend], x[step.sum], x[step.sum])
		}
		for _, x := range columns {
			VPXORD(x[step.sum], x[step.turned], x[step.turned])
		}
		for _, x := range columns {
			VPROLD(Imm(step.bits), x[step.turned], x[step.turned])
		}
	}
}

// tenTimes loops over a double round.
func tenTimes(label string, doubleRound func()) {
	n := GP32()
	MOVL(U32(10), n)
	Label(label)
	doubleRound()
	DECL(n)
	JNZ(LabelRef(label))
}

// rows makes four blocks for each of the sets, in the layout of rows.
func (in cipherInput) rows(label string, sets int) [][4]reg.VecVirtual {
	a, b, c, d := ZMM(), ZMM(), ZMM(), ZMM()
	VBROADCASTI32X4(constant("expand32"), a)
	VBROADCASTI32X4(Mem{Base: in.key}, b)
	VBROADCASTI32X4(Mem{Base: in.key, Disp: 16}, c)
	low, high := GP64(), ZMM()
	MOVQ(Mem{Base: in.nonce}, low)
	ORQ(in.counter, low)
	VPBROADCASTQ(low, d)
	VPBROADCASTQ(Mem{Base: in.nonce, Disp: 8}, high)
	VPUNPCKLQDQ(high, d, d)
	VPADDD(constant("first_rows"), d, d)

	start := make([][4]reg.VecVirtual, sets)
	state := make([][4]reg.VecVirtual, sets)
	for i := range sets {
		if i > 0 {
			next := ZMM()
			VPADDD(constant("next_rows"), d, next)
			d = next
		}
		start[i] = [4]reg.VecVirtual{a, b, c, d}
		for row := range state[i] {
			state[i][row] = ZMM()
			VMOVDQA64(start[i][row], state[i][row])
		}
	}
	tenTimes(label, func() {
		quarterRounds(state...)
		turnRows(state, 0x93, 0x39, 0x4e)
		quarterRounds(state...)
		turnRows(state, 0x39, 0x93, 0x4e)
	})
	for i := range sets {
		for row := range state[i] {
			VPADDD(start[i][row], state[i][row], state[i][row])
		}
	}
	return state
}

// turnRows turns a, c and d against b, which is the last that a quarter round
// has ready.
func turnRows(state [][4]reg.VecVirtual, a, c, d uint64) {
	for _, s := range state {
		VPSHUFD(Imm(a), s[0], s[0])
	}
	for _, s := range state {
		VPSHUFD(Imm(d), s[3], s[3])
	}
	for _, s := range state {
		VPSHUFD(Imm(c), s[2], s[2])
	}
}

// blocksOfRows makes blocks of rows.
func blocksOfRows(state [][4]reg.VecVirtual) []reg.VecVirtual {
	var blocks []reg.VecVirtual
	for _, s := range state {
		blocks = append(blocks, transposeLanes(s)...)
	}
	return blocks
}

// transposeLanes is the transposition of four registers of four lanes of 128
// bits. What was in s is gone.
func transposeLanes(s [4]reg.VecVirtual) []reg.VecVirtual {
	low01, low23 := ZMM(), ZMM()
	VSHUFI32X4(U8(0x44), s[1], s[0], low01)
	VSHUFI32X4(U8(0x44), s[3], s[2], low23)
	high01, high23 := s[0], s[2]
	VSHUFI32X4(U8(0xee), s[1], s[0], high01)
	VSHUFI32X4(U8(0xee), s[3], s[2], high23)
	block1, block3 := s[1], s[3]
	VSHUFI32X4(U8(0xdd), low23, low01, block1)
	VSHUFI32X4(U8(0x88), low23, low01, low01)
	VSHUFI32X4(U8(0xdd), high23, high01, block3)
	VSHUFI32X4(U8(0x88), high23, high01, high01)
	return []reg.VecVirtual{low01, block1, high01, block3}
}

// words makes 16 blocks, in the layout of words.
func (in cipherInput) words(label string) []reg.VecVirtual {
	from := func(word int) Mem {
		switch {
		case word < 4:
			return constant("expand32").Offset(4 * word)
		case word < 12:
			return Mem{Base: in.key, Disp: 4 * (word - 4)}
		default:
			return Mem{Base: in.nonce, Disp: 4 * (word - 12)}
		}
	}
	counters := ZMM()
	VPBROADCASTD(in.counter.As32(), counters)
	VPADDD(constant("first_words"), counters, counters)

	var x [16]reg.VecVirtual
	for i := range x {
		x[i] = ZMM()
		if i == 12 {
			VMOVDQA64(counters, x[i])
		} else {
			VPBROADCASTD(from(i), x[i])
		}
	}
	column := func(a, b, c, d int) [4]reg.VecVirtual {
		return [4]reg.VecVirtual{x[a], x[b], x[c], x[d]}
	}
	tenTimes(label, func() {
		quarterRounds(column(0, 4, 8, 12), column(1, 5, 9, 13), column(2, 6, 10, 14), column(3, 7, 11, 15))
		quarterRounds(column(0, 5, 10, 15), column(1, 6, 11, 12), column(2, 7, 8, 13), column(3, 4, 9, 14))
	})
	for i := range x {
		if i == 12 {
			VPADDD(counters, x[i], x[i])
		} else {
			VPADDD_BCST(from(i), x[i], x[i])
		}
	}
	return transposeWords(x)
}

// transposeWords is the transposition of 16 registers of 16 words: in lanes of
// 128 bits first, which gives lane l of part[row][j] words 4·row to 4·row+3 of
// block 4·l+j, then of the lanes.
func transposeWords(x [16]reg.VecVirtual) []reg.VecVirtual {
	var part [4][4]reg.VecVirtual
	for row := range part {
		w := x[4*row : 4*row+4]
		low01, low23 := ZMM(), ZMM()
		VPUNPCKLDQ(w[1], w[0], low01)
		VPUNPCKLDQ(w[3], w[2], low23)
		high01, high23 := w[0], w[2]
		VPUNPCKHDQ(w[1], w[0], high01)
		VPUNPCKHDQ(w[3], w[2], high23)
		VPUNPCKHQDQ(low23, low01, w[1])
		VPUNPCKLQDQ(low23, low01, low01)
		VPUNPCKHQDQ(high23, high01, w[3])
		VPUNPCKLQDQ(high23, high01, high01)
		part[row] = [4]reg.VecVirtual{low01, w[1], high01, w[3]}
	}
	blocks := make([]reg.VecVirtual, 16)
	for j := range 4 {
		lanes := transposeLanes([4]reg.VecVirtual{part[0][j], part[1][j], part[2][j], part[3][j]})
		for l, block := range lanes {
			blocks[4*l+j] = block
		}
	}
	return blocks
}
