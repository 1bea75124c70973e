// Asm writes the assembly of package aead. Read it in this order: this file, which
// has the functions; message.go; chacha20.go and poly1305.go, each with a drawing of
// what is in which register; frame.go; probe.go, which is for tests.
package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// A message of up to shortMax bytes stays in registers: four blocks of ChaCha20, of
// which the first has the key of Poly1305, and Poly1305 block by block.
//
// A longer one is done in passes. All of it is in the cache of level 1, or nearly.
//
//	seal                               open
//	8 blocks in rows: key, 448 bytes   8 blocks in rows: key, 448 bytes kept
//	powers of r                        powers of r
//	16 blocks in words, as often       16 blocks in words, kept; now there is
//	as needed; 8 or 4 in rows at       enough for 1472 bytes
//	the end, for 512 or 256 bytes      Poly1305 of all, and look at the tag
//	Poly1305 of all                    decrypt what was kept, the rest as at left
//
// The powers are a chain of multiplications, in which the processor mostly waits; so
// they stand before blocks of ChaCha20, which it does at the same time.
const shortMax = 2 * vectorSize

func main() {
	ConstraintExpr("amd64")
	defineConstants()
	seal()
	open()
	poly1305()
	distance()
	stain()
	residue()
	Generate()
}

func seal() {
	TEXT("seal", 0, "func(dst, src *byte, n int, key *[32]byte, nonce0, nonce1 uint64)")
	Pragma("noescape")
	Doc("seal encrypts n bytes and puts the tag behind them. The nonces are the last row of the state: the counter,", "which is 0, is the lower half of nonce0.")
	m, in := parameters()
	f := newFrame()
	CMPQ(m.n, U32(shortMax))
	JHI(LabelRef("long"))
	sealShort(f, m, in)
	Label("long")
	sealLong(f, m, in)
}

func sealShort(f frame, m message, in cipherInput) {
	rows := in.rows("short_rounds", 1)
	f.saveKey(rows[0])
	blocks := blocksOfRows(rows)
	text, masks := m.loadShort()
	for i, k := range masks {
		VPXORQ(blocks[i+1], text[i], text[i])
		VMOVDQU8_Z(text[i], k, text[i])
		VMOVDQU8(text[i], k, Mem{Base: m.dst, Disp: vectorSize * i})
	}
	low, high := polyPadded("short_poly", f, text, m.n)
	m.reload()
	m.storeTag(low, high)
	f.wipe(frameFirst)
	RET()
}

func sealLong(f frame, m message, in cipherInput) {
	rows := in.rows("first_rounds", 2)
	f.saveKey(rows[0])
	polyPowers(f)
	rest := m.copy()
	rest.xor("first", vectors(blocksOfRows(rows)[1:]), "authenticate")
	ADDQ(U8(rowsBlocks), in.counter)
	rest.encrypt("encrypt", in, "authenticate")
	Label("authenticate")
	low, high := polyTag(f, polyLong("poly", f, m.dst, m.n))
	m.storeTag(low, high)
	f.wipe(frameStream)
	RET()
}

func open() {
	TEXT("open", 0, "func(dst, src *byte, n int, key *[32]byte, nonce0, nonce1 uint64) bool")
	Pragma("noescape")
	Doc("open decrypts n bytes if the tag behind them is right. If not, it leaves dst alone. The nonces are as in seal.")
	m, in := parameters()
	f := newFrame()
	CMPQ(m.n, U32(shortMax))
	JHI(LabelRef("long"))
	openShort(f, m, in)
	Label("long")
	openLong(f, m, in)
}

func openShort(f frame, m message, in cipherInput) {
	text, masks := m.loadShort()
	rows := in.rows("short_rounds", 1)
	f.saveKey(rows[0])
	blocks := blocksOfRows(rows)
	low, high := polyPadded("short_poly", f, text, m.n)
	m.reload()
	m.checkTag(low, high, "short_end")
	for i, k := range masks {
		VPXORQ(blocks[i+1], text[i], text[i])
		VMOVDQU8(text[i], k, Mem{Base: m.dst, Disp: vectorSize * i})
	}
	Label("short_end")
	f.wipe(frameFirst)
	RET()
}

func openLong(f frame, m message, in cipherInput) {
	rows := in.rows("first_rounds", 2)
	f.saveKey(rows[0])
	stream := f.keep(nil, blocksOfRows(rows)[1:])
	ADDQ(U8(rowsBlocks), in.counter)
	polyPowers(f)
	CMPQ(m.n, U32(vectorSize*len(stream)))
	JLS(LabelRef("authenticate"))
	stream = f.keep(stream, in.words("second_rounds"))
	ADDQ(U8(wordsBlocks), in.counter)

	Label("authenticate")
	low, high := polyTag(f, polyLong("poly", f, m.src, m.n))
	m.checkTag(low, high, "end")
	m.xor("first", stream, "end")
	m.encrypt("encrypt", in, "end")
	Label("end")
	f.wipe(frameSize)
	RET()
}

func poly1305() {
	TEXT("poly1305", 0, "func(tag *[16]byte, src *byte, n int, key *[32]byte)")
	Pragma("noescape")
	Doc("poly1305 is the authenticator of seal and open by itself, for tests.")
	m := message{GP64(), GP64(), GP64()}
	key := GP64()
	Load(Param("src"), m.src)
	Load(Param("n"), m.n)
	Load(Param("key"), key)
	f := newFrame()
	both := YMM()
	VMOVDQU64(Mem{Base: key}, both)
	VMOVDQA64(both, f.at(frameKey))
	end := func(low, high reg.GPVirtual) {
		tag := GP64()
		Load(Param("tag"), tag)
		MOVQ(low, Mem{Base: tag})
		MOVQ(high, Mem{Base: tag, Disp: 8})
		f.wipe(frameStream)
		RET()
	}
	CMPQ(m.n, U32(shortMax))
	JHI(LabelRef("long"))
	text, _ := m.loadShort()
	end(polyPadded("short", f, text, m.n))
	Label("long")
	polyPowers(f)
	end(polyTag(f, polyLong("poly", f, m.src, m.n)))
}

func distance() {
	TEXT("distance", attr.NOSPLIT, "func(from, to *byte) int")
	Pragma("noescape")
	Doc("distance is how far one byte is from another in memory.")
	from, to := GP64(), GP64()
	Load(Param("from"), from)
	Load(Param("to"), to)
	SUBQ(from, to)
	Store(to, ReturnIndex(0))
	RET()
}
