package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Poly1305 of a message of blocks m₁ … mₙ is m₁·rⁿ + m₂·rⁿ⁻¹ + … + mₙ·r, modulo
// 2¹³⁰-5, and there are two ways to it.
//
// Up to nine blocks: one after the other, h ← (h + m)·r, in three registers of 64
// bits (polyShort).
//
// More: 16 blocks at once (polyLong). A number is three limbs of 44 bits, each in a
// register of its own, and a register has eight numbers:
//
//	                 lane 0   1     2     3     4     5     6     7
//	first half        m₀     m₄    m₁    m₅    m₂    m₆    m₃    m₇      as VPUNPCKxQDQ
//	second half       m₈     m₁₂   m₉    m₁₃   m₁₀   m₁₄   m₁₁   m₁₅     leaves them
//	times, the last   r¹⁶    r¹²   r¹⁵   r¹¹   r¹⁴   r¹⁰   r¹³   r⁹
//	      two halves  r⁸     r⁴    r⁷    r³    r⁶    r²    r⁵    r
//
//	for each 16 blocks   h ← (h + first)·r¹⁶ + second·r⁸            in each lane
//	for the last 16      h ← (h + first)·(r¹⁶…r⁹) + second·(r⁸…r)   in each lane
//
// and the sum of the lanes is the result. The last block is the one of the lengths.
// When the number of blocks is not a multiple of 16, it is the first 16 that are not
// all there: what is left out counts zero, and adds nothing to the sum.
//
// VPMADD52LUQ and VPMADD52HUQ add the lower and the upper 52 bits of a product of
// two numbers of up to 52 bits. Products of limbs i and j belong to limb i+j. What
// comes out above limb 2 comes back at the bottom times 20, as 2¹³² = 4·2¹³⁰ ≡ 4·5.
//
// Bounds. Between steps limbs 0 and 2 are below 2⁴⁴ and limb 1 is below 2⁴⁴+2⁸;
// those of a block are below 2⁴⁴, the highest below 2⁴¹; 20·rⱼ is below 2⁴⁹. So
// factors are below 2⁵², and six products in one sum below 2⁵⁵. Of the highest sum
// of upper halves, which has no factor of 20, 2³⁶·7.25 is the limit: times 2⁸·20 it
// is below 2⁵², as reduce needs.

const limbBits = 44

// limbs are eight numbers.
type limbs [3]reg.VecVirtual

func newLimbs() limbs { return limbs{ZMM(), ZMM(), ZMM()} }

// factor is what is multiplied by: limbs 0, 1, 2, and limbs 1 and 2 times 20. It
// is eight numbers, or one in memory for all lanes.
type factor struct {
	limb [5]Op
	one  bool
}

// polyConstants are kept in registers.
type polyConstants struct{ limb, twenty reg.VecVirtual }

func newPolyConstants() polyConstants {
	return polyConstants{everywhere("limb"), everywhere("twenty")}
}

// everywhere is a constant of 64 bits in all lanes.
func everywhere(name string) reg.VecVirtual {
	x := ZMM()
	VPBROADCASTQ(constant(name), x)
	return x
}

// product is a sum of products that is not reduced.
type product struct{ low, high limbs }

func newProduct() product {
	p := product{newLimbs(), newLimbs()}
	for i := range 3 {
		zero(p.low[i])
		zero(p.high[i])
	}
	return p
}

// add adds x·f.
func (p product) add(x limbs, f factor) {
	for i := range 3 {
		for sum := range 3 {
			j := sum - i
			if j < 0 {
				j += 5 // times 20: limb 2 for -1, limb 1 for -2
			}
			if f.one {
				VPMADD52LUQ_BCST(f.limb[j], x[i], p.low[sum])
				VPMADD52HUQ_BCST(f.limb[j], x[i], p.high[sum])
			} else {
				VPMADD52LUQ(f.limb[j], x[i], p.low[sum])
				VPMADD52HUQ(f.limb[j], x[i], p.high[sum])
			}
		}
	}
}

// reduce leaves in h what the sum is, modulo 2¹³⁰-5, within the bounds above. An
// upper half begins at bit 52 of its limb, which is bit 8 of the next.
func (p product) reduce(c polyConstants, h limbs) {
	carry := ZMM()
	for i := range 3 {
		VPSLLQ(U8(52-limbBits), p.high[i], p.high[i])
	}
	VPADDQ(p.high[0], p.low[1], p.low[1])
	VPADDQ(p.high[1], p.low[2], p.low[2])
	for i := range 3 {
		VPSRLQ(U8(limbBits), p.low[i], carry)
		VPANDQ(c.limb, p.low[i], h[i])
		next := p.high[2]
		if i < 2 {
			next = p.low[i+1]
		}
		VPADDQ(carry, next, next)
	}
	VPMADD52LUQ(c.twenty, p.high[2], h[0])
	VPSRLQ(U8(limbBits), h[0], carry)
	VPANDQ(c.limb, h[0], h[0])
	VPADDQ(carry, h[1], h[1])
}

// split makes limbs of numbers of 128 bits.
func split(c polyConstants, low, high reg.VecVirtual) limbs {
	x := newLimbs()
	VPANDQ(c.limb, low, x[0])
	VPSHRDQ(U8(limbBits), high, low, x[1])
	VPANDQ(c.limb, x[1], x[1])
	VPSRLQ(U8(2*limbBits-64), high, x[2])
	return x
}

// factorOf multiplies limbs 1 and 2 by 20.
func factorOf(c polyConstants, x limbs) factor {
	f := factor{limb: [5]Op{x[0], x[1], x[2]}}
	for i := 1; i < 3; i++ {
		times20 := ZMM()
		zero(times20)
		VPMADD52LUQ(c.twenty, x[i], times20)
		f.limb[2+i] = times20
	}
	return f
}

// laneZero is the number of lane 0 in all lanes.
func laneZero(x limbs) limbs {
	y := newLimbs()
	for i := range 3 {
		VPBROADCASTQ(x[i].AsX(), y[i])
	}
	return y
}

// polyPowers leaves the powers of r, from the key in the frame, in the frame.
func polyPowers(f frame) {
	c := newPolyConstants()
	low, high := ZMM(), ZMM()
	VPBROADCASTQ(f.at(frameKey), low)
	VPBROADCASTQ(f.at(frameKey+8), high)
	VPANDQ_BCST(constant("clamp"), low, low)
	VPANDQ_BCST(constant("clamp").Offset(8), high, high)

	// In lane i of the second half is r to 1 + b₀ + 2·b₁ + 4·b₂; the bits are of
	// the masks. Lane 0 has them all.
	x := split(c, low, high)
	power := factorOf(c, x)
	for bit, lanes := range []uint64{0x33, 0x0f, 0x55} {
		next := newProduct()
		next.add(x, power)
		multiplied := newLimbs()
		next.reduce(c, multiplied)
		mask, k := GP32(), K()
		MOVL(U32(lanes), mask)
		KMOVB(mask, k)
		for i := range 3 {
			VMOVDQA64(multiplied[i], k, x[i])
		}
		if bit < 2 {
			power = factorOf(c, laneZero(x))
		}
	}
	f.store(frameSecond, factorOf(c, x))
	r8 := factorOf(c, laneZero(x))
	next := newProduct()
	next.add(x, r8)
	next.reduce(c, x)
	f.store(frameFirst, factorOf(c, x))
}

// polyLong is Poly1305 of n bytes at message, zeros up to the next 16, and the
// block of the lengths, with the powers in the frame. There must be more than
// 128 bytes. The message is read only where it is. It returns the sum, not quite
// reduced.
func polyLong(label string, f frame, message, n reg.GPVirtual) [3]reg.GPVirtual {
	c := newPolyConstants()
	h := newLimbs()
	for i := range h {
		zero(h[i])
	}

	Comment("blocks, what is missing to a multiple of 16, groups of 16; p is where the first would begin")
	groups, missing, p := GP64(), GP64(), GP64()
	LEAQ(Mem{Base: n, Disp: 31}, groups)
	SHRQ(U8(4), groups)
	MOVQ(groups, missing)
	NEGQ(missing)
	ANDQ(U8(15), missing)
	ADDQ(U8(15), groups)
	SHRQ(U8(4), groups)
	MOVQ(missing, p)
	SHLQ(U8(4), p)
	NEGQ(p)
	ADDQ(message, p)

	Comment("masks of what is there of the first group: words of 64 bits, lanes")
	words, twice := GP32(), reg.RCX
	LEAQ(Mem{Base: missing, Index: missing, Scale: 1}, twice)
	MOVL(U32(0xffffffff), words)
	SHLL(reg.CL, words)
	var there [4]reg.OpmaskVirtual
	for i := range there {
		if i > 0 {
			SHRL(U8(8), words)
		}
		there[i] = K()
		KMOVB(words, there[i])
	}
	missingLanes := ZMM()
	VPBROADCASTQ(missing, missingLanes)
	highest := everywhere("bit128")
	bit128 := [2]reg.VecVirtual{ZMM(), ZMM()}
	for half, blocks := range []string{"first_blocks", "second_blocks"} {
		k := K()
		VPCMPUQ(U8(2), constant(blocks), missingLanes, k)
		VMOVDQA64_Z(highest, k, bit128[half])
	}

	CMPQ(groups, U8(1))
	JE(LabelRef(label + "_last"))

	// What is masked is not read, but to find that the page before the message is
	// not there takes the processor a microsecond. So nothing before it is named:
	// VPEXPANDQ puts what is at an address where the mask is.
	load := func(i int) reg.VecVirtual {
		at, x := GP64(), ZMM()
		LEAQ(Mem{Base: p, Disp: vectorSize * i}, at)
		CMPQ(at, message)
		CMOVQCS(message, at)
		VPEXPANDQ_Z(Mem{Base: at}, there[i], x)
		return x
	}

	Comment("the first group")
	var m [4]reg.VecVirtual
	for i := range m {
		m[i] = load(i)
	}
	polyGroup(c, h, m, bit128, f.power(frameFirst), f.power(frameSecond))
	for i := range 3 {
		KXNORB(there[i], there[i], there[i])
	}
	for half := range bit128 {
		VMOVDQA64(highest, bit128[half])
	}
	ADDQ(U32(4*vectorSize), p)
	DECQ(groups)
	CMPQ(groups, U8(1))
	JE(LabelRef(label + "_last"))

	Label(label + "_group")
	for i := range m {
		m[i] = ZMM()
		VMOVDQU64(Mem{Base: p, Disp: vectorSize * i}, m[i])
	}
	polyGroup(c, h, m, bit128, f.power(frameFirst), f.power(frameSecond))
	ADDQ(U32(4*vectorSize), p)
	DECQ(groups)
	CMPQ(groups, U8(1))
	JNE(LabelRef(label + "_group"))

	Label(label + "_last")
	for i := range 3 {
		m[i] = load(i)
	}
	m[3] = ZMM()
	Comment("two blocks and the 1 to 16 bytes that are left, then the lengths: 0 and n")
	bytes, k := GP64(), K()
	LEAQ(Mem{Base: n, Disp: -1}, bytes)
	ANDQ(U8(15), bytes)
	ADDQ(U8(33), bytes)
	ones := GP64()
	MOVQ(I32(-1), ones)
	BZHIQ(bytes, ones, bytes)
	KMOVQ(bytes, k)
	VMOVDQU8_Z(Mem{Base: p, Disp: 3 * vectorSize}, k, m[3])
	lane7 := GP32()
	MOVL(U32(0x80), lane7)
	KMOVB(lane7, k)
	VPBROADCASTQ(n, k, m[3])
	polyGroup(c, h, m, bit128, f.powers(frameFirst), f.powers(frameSecond))

	Comment("the sum of the lanes")
	var sum [3]reg.GPVirtual
	for i := range h {
		half := YMM()
		VEXTRACTI64X4(U8(1), h[i], half)
		VPADDQ(half, h[i].AsY(), h[i].AsY())
	}
	for i := range h {
		half := XMM()
		VEXTRACTI64X2(U8(1), h[i].AsY(), half)
		VPADDQ(half, h[i].AsX(), h[i].AsX())
	}
	for i := range h {
		half := XMM()
		VPSRLDQ(U8(8), h[i].AsX(), half)
		VPADDQ(half, h[i].AsX(), h[i].AsX())
		sum[i] = GP64()
		VMOVQ(h[i].AsX(), sum[i])
	}
	return joinLimbs(sum)
}

// polyGroup takes 16 blocks into h.
func polyGroup(c polyConstants, h limbs, m [4]reg.VecVirtual, bit128 [2]reg.VecVirtual, first, second factor) {
	sum := newProduct()
	for _, half := range []int{1, 0} { // what needs h comes last
		a, b := m[2*half], m[2*half+1]
		low, high := ZMM(), ZMM()
		VPUNPCKLQDQ(b, a, low)
		VPUNPCKHQDQ(b, a, high)
		x := split(c, low, high)
		VPORQ(bit128[half], x[2], x[2])
		if half == 1 {
			sum.add(x, second)
			continue
		}
		for i := range 3 {
			VPADDQ(h[i], x[i], x[i])
		}
		sum.add(x, first)
	}
	sum.reduce(c, h)
}

// joinLimbs makes three words of 64 bits of a number's limbs; the last is small.
func joinLimbs(x [3]reg.GPVirtual) [3]reg.GPVirtual {
	mask, carry := GP64(), GP64()
	MOVQ(U64(1<<limbBits-1), mask)
	carryTo := func(from, to reg.GPVirtual) {
		MOVQ(from, carry)
		SHRQ(U8(limbBits), carry)
		ANDQ(mask, from)
		ADDQ(carry, to)
	}
	carryTo(x[0], x[1])
	carryTo(x[1], x[2])
	MOVQ(x[2], carry)
	SHRQ(U8(130-2*limbBits), carry)
	BZHIQ(bits(130-2*limbBits), x[2], x[2])
	LEAQ(Mem{Base: carry, Index: carry, Scale: 4}, carry)
	ADDQ(carry, x[0])
	carryTo(x[0], x[1])
	carryTo(x[1], x[2])

	t := GP64()
	MOVQ(x[1], t)
	SHLQ(U8(limbBits), t)
	ORQ(t, x[0])
	SHRQ(U8(64-limbBits), x[1])
	MOVQ(x[2], t)
	SHLQ(U8(2*limbBits-64), t)
	ORQ(t, x[1])
	SHRQ(U8(128-2*limbBits), x[2])
	return x
}

func bits(n uint64) reg.GPVirtual {
	r := GP64()
	MOVQ(U64(n), r)
	return r
}

// polyPadded is the tag of a message of n bytes, at most shortMax, that is in
// vectors with zeros behind it.
func polyPadded(label string, f frame, text [2]reg.VecVirtual, n reg.GPVirtual) (low, high reg.GPVirtual) {
	for i := range text {
		VMOVDQA64(text[i], f.at(framePadded+vectorSize*i))
	}
	blocks, lengths, none := GP64(), GP64(), GP64()
	LEAQ(Mem{Base: n, Disp: 15}, blocks)
	SHRQ(U8(4), blocks)
	MOVQ(blocks, lengths)
	SHLQ(U8(4), lengths)
	XORL(none.As32(), none.As32())
	MOVQ(none, Mem{Base: f.base, Disp: framePadded, Index: lengths, Scale: 1})
	MOVQ(n, Mem{Base: f.base, Disp: framePadded + 8, Index: lengths, Scale: 1})
	INCQ(blocks)
	return polyTag(f, polyShort(label, f, f.at(framePadded), blocks))
}

// polyShort is Poly1305 of blocks, at least one, at the message, with the key in
// the frame. It returns the sum, not quite reduced.
func polyShort(label string, f frame, message Mem, blocks reg.GPVirtual) [3]reg.GPVirtual {
	r0, r1, r1x5 := GP64(), GP64(), GP64() // the last is 5·(r₁/4): r₁ is a multiple of 4
	MOVQ(constant("clamp"), r0)
	MOVQ(constant("clamp").Offset(8), r1)
	ANDQ(f.at(frameKey), r0)
	ANDQ(f.at(frameKey+8), r1)
	MOVQ(r1, r1x5)
	SHRQ(U8(2), r1x5)
	ADDQ(r1, r1x5)

	h := [3]reg.GPVirtual{GP64(), GP64(), GP64()}
	for i := range h {
		XORQ(h[i], h[i])
	}
	p := GP64()
	LEAQ(message, p)

	Label(label)
	ADDQ(Mem{Base: p}, h[0])
	ADCQ(Mem{Base: p, Disp: 8}, h[1])
	ADCQ(U8(1), h[2])

	// Weight 1:   h₀·r₀ + h₁·r₁ₓ₅           (h₁·r₁·2¹²⁸ = h₁·(r₁/4)·2¹³⁰)
	// Weight 2⁶⁴: h₀·r₁ + h₁·r₀ + h₂·r₁ₓ₅
	// Weight 2¹²⁸: h₂·r₀
	high0, low1, high1, high := GP64(), GP64(), GP64(), GP64()
	MOVQ(h[0], reg.RDX)
	MULXQ(r0, h[0], high0)
	MULXQ(r1, low1, high1)
	MOVQ(h[1], reg.RDX)
	MULXQ(r1x5, h[1], high)
	ADDQ(h[1], h[0])
	ADCQ(high, high0)
	MULXQ(r0, h[1], high)
	ADDQ(low1, h[1])
	ADCQ(high, high1)
	MOVQ(h[2], reg.RDX)
	IMULQ(r1x5, reg.RDX)
	IMULQ(r0, h[2])
	ADDQ(reg.RDX, h[1])
	ADCQ(U8(0), high1)
	ADDQ(high0, h[1])
	ADCQ(high1, h[2])

	// What is above 2¹³⁰ comes back at the bottom times 5.
	above := GP64()
	MOVQ(h[2], above)
	MOVQ(h[2], high)
	SHRQ(U8(2), above)
	ANDQ(I8(-4), high)
	ADDQ(high, above)
	ANDQ(U8(3), h[2])
	ADDQ(above, h[0])
	ADCQ(U8(0), h[1])
	ADCQ(U8(0), h[2])

	ADDQ(U8(16), p)
	DECQ(blocks)
	JNZ(LabelRef(label))
	clearWords(r0, r1, r1x5)
	return h
}

// polyTag makes the tag of a sum that is below twice the modulus, and of the
// second half of the key.
func polyTag(f frame, h [3]reg.GPVirtual) (low, high reg.GPVirtual) {
	// h - p is h + 5 - 2¹³⁰, and h ≥ p if that bit is reached.
	low, high = GP64(), GP64()
	top := GP64()
	MOVQ(h[0], low)
	MOVQ(h[1], high)
	MOVQ(h[2], top)
	ADDQ(U8(5), low)
	ADCQ(U8(0), high)
	ADCQ(U8(0), top)
	CMPQ(top, U8(4))
	CMOVQCS(h[0], low)
	CMOVQCS(h[1], high)
	ADDQ(f.at(frameKey+16), low)
	ADCQ(f.at(frameKey+24), high)
	clearWords(h[0], h[1], h[2])
	return low, high
}
