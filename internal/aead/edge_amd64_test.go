package aead

import (
	"bytes"
	"crypto/subtle"
	"math/big"
	"testing"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"
)

// Sums near which a carry, or the last subtraction of the modulus, is another. From
// a random message none of them is ever reached, so the message is made for the sum.
func edges(random source, key *[32]byte) []*big.Int {
	bases := []*big.Int{new(big.Int), power2(44), power2(64), power2(88), power2(127), word128, power2(129),
		new(big.Int).Mul(big.NewInt(3), word128)}
	for _, bits := range []uint{44, 64, 88} { // a multiple of it
		top := number(random.bytes(17))
		bases = append(bases, top.Lsh(top.Rsh(top, 8*17-130+bits), bits))
	}
	var sums []*big.Int
	for _, base := range bases {
		for d := int64(-6); d <= 6; d++ {
			sums = append(sums, new(big.Int).Add(base, big.NewInt(d)))
		}
		for _, bits := range []int{8, 20, 58} { // what comes back at the bottom may be as large
			sums = append(sums, new(big.Int).Add(base, big.NewInt(int64(random.Uint64()>>(64-bits)))))
		}
	}
	for top := range int64(4) { // tags of all zeros and all ones
		zero := new(big.Int).Mul(big.NewInt(top), word128)
		zero.Sub(zero, number(key[16:]))
		sums = append(sums, zero, new(big.Int).Sub(zero, big.NewInt(1)))
	}
	for _, sum := range sums {
		sum.Mod(sum, modulus)
	}
	return sums
}

// aim makes a message of n bytes, random but for one block, such that it and what
// comes behind it have the sum.
func aim(random source, n int, behind func([]byte) []byte, r, sum *big.Int) []byte {
	for {
		message := random.bytes(n)
		at := int(random.Uint64() % uint64(n/16))
		block := message[16*at : 16*at+16]
		clear(block)
		all := behind(message)
		rest := new(big.Int).Sub(sum, polynomial(all, r))
		if solve(block, rest, r, (len(all)+15)/16-at) {
			return message
		}
	}
}

// solve sets a block to what is rest when it is multiplied by r^power. It tells
// whether there is such a block.
func solve(block []byte, rest, r *big.Int, power int) bool {
	x := raise(r, power)
	x.ModInverse(x, modulus).Mul(x, rest)
	x.Mod(x, modulus)
	if x.Cmp(word128) >= 0 {
		return false
	}
	b := littleEndian(x)
	copy(block, b[:])
	return true
}

func raise(r *big.Int, power int) *big.Int {
	return new(big.Int).Exp(r, big.NewInt(int64(power)), modulus)
}

// Seal and open, not only poly1305: they have the same steps in other registers.
func TestSumsAtEdges(t *testing.T) {
	random := newSource(12)
	for _, n := range []int{17, 48, 112, 128, 129, 144, 240, 272, 448, 497, 1424} {
		key, nonce := random.bytes(chacha20poly1305.KeySize), random.bytes(chacha20poly1305.NonceSize)
		p := newPair(t, key)
		stream := keyStream(t, key, nonce, 64+n)
		polyKey := [32]byte(stream)
		for _, sum := range edges(random, &polyKey) {
			message := aim(random, n, authenticated, factorIn(&polyKey), sum)
			tag := tagOf(sum, &polyKey)
			plain := make([]byte, n)
			subtle.XORBytes(plain, message, stream[64:])
			checkSum(t, p, nonce, plain, message, tag)
		}
	}
}

func checkSum(t *testing.T, p pair, nonce, plain, message []byte, tag [16]byte) {
	t.Helper()
	sealed := append(message, tag[:]...)
	if got := p.ours.Seal(nil, nonce, plain, nil); !bytes.Equal(got, sealed) {
		t.Fatalf("sealed %x to\n%x, want\n%x", plain, got, sealed)
	}
	if got, err := p.ours.Open(nil, nonce, sealed, nil); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("opened %x to\n%x (%v), want\n%x", sealed, got, err, plain)
	}
	for _, d := range []int64{5, -5} { // as if the modulus had been subtracted, or not
		wrong := new(big.Int).Add(number(tag[:]), big.NewInt(d))
		other := littleEndian(wrong.Mod(wrong, word128))
		if _, err := p.ours.Open(nil, nonce, append(bytes.Clone(message), other[:]...), nil); err == nil {
			t.Fatalf("opened %x with the tag %x, right is %x", message, other, tag)
		}
	}
}

func keyStream(t *testing.T, key, nonce []byte, n int) []byte {
	t.Helper()
	cipher, err := chacha20.NewUnauthenticatedCipher(key, nonce)
	if err != nil {
		t.Fatal(err)
	}
	stream := make([]byte, n)
	cipher.XORKeyStream(stream, stream)
	return stream
}

// factors have limbs that are full, empty or nearly, of 26, 44 and 64 bits.
func factors() []*[32]byte {
	ones := bytes.Repeat([]byte{0xff}, 16)
	keys := []*[32]byte{(*[32]byte)(append(ones, ones...)), {0: 1}, {0: 2}, {15: 0x0f}, {8: 4}, {8: 0xfc, 15: 0x0f}}
	for _, limb := range []struct{ from, to int }{{0, 26}, {0, 44}, {44, 88}, {88, 128}, {0, 64}, {64, 128}, {26, 52}, {0, 88}} {
		r := new(big.Int).Sub(power2(uint(limb.to)), power2(uint(limb.from)))
		half := littleEndian(r)
		keys = append(keys, (*[32]byte)(append(half[:], ones...)))
	}
	return keys
}

// Poly1305 with each of these factors: the whole sum at an edge, and the sum before
// blocks of all ones.
func TestPolyEdges(t *testing.T) {
	random := newSource(13)
	same := func(message []byte) []byte { return message }
	for _, key := range factors() {
		for i, sum := range edges(random, key) {
			n := []int{112, 127, 128, 144, 240, 256, 500}[i%7]
			checkPoly(t, aim(random, n, authenticated, factorIn(key), sum), key)
			before := aim(random, 112, same, factorIn(key), sum)
			checkPoly(t, append(before, bytes.Repeat([]byte{0xff}, n)...), key)
		}
	}
}

// The number that each lane has after the first 16 blocks is at an edge. Blocks of
// all ones follow.
func TestPolyLanes(t *testing.T) {
	random := newSource(14)
	for range 30 {
		for _, key := range append(factors(), (*[32]byte)(random.bytes(32))) {
			r := factorIn(key)
			wanted := edges(random, key)
			message := bytes.Repeat([]byte{0xff}, 16*47)
			for lane := range 8 {
				for aimed := false; !aimed; {
					sum := wanted[random.Uint64()%uint64(len(wanted))]
					second := random.bytes(16)
					copy(message[16*(lane+8):], second)
					rest := new(big.Int).Add(number(second), word128)
					rest.Mul(rest, raise(r, 8)).Sub(sum, rest)
					rest.Sub(rest, new(big.Int).Mul(word128, raise(r, 16)))
					aimed = solve(message[16*lane:16*lane+16], rest, r, 16)
				}
			}
			checkPoly(t, message, key)
		}
	}
}
