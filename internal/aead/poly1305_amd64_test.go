package aead

import (
	"bytes"
	"encoding/binary"
	"math/big"
	"slices"
	"sync"
	"testing"
)

var (
	modulus = new(big.Int).Sub(power2(130), big.NewInt(5))
	word128 = power2(128)
)

func power2(n uint) *big.Int { return new(big.Int).Lsh(big.NewInt(1), n) }

// number is a little-endian one.
func number(b []byte) *big.Int {
	b = bytes.Clone(b)
	slices.Reverse(b)
	return new(big.Int).SetBytes(b)
}

func littleEndian(x *big.Int) (b [16]byte) {
	x.FillBytes(b[:])
	slices.Reverse(b[:])
	return b
}

// reference is Poly1305 of RFC 8439, 2.5.1, as it is written there.
func reference(message []byte, key *[32]byte) [16]byte {
	return tagOf(polynomial(message, factorIn(key)), key)
}

func factorIn(key *[32]byte) *big.Int {
	r := number(key[:16])
	return r.And(r, number([]byte{
		0xff, 0xff, 0xff, 0x0f, 0xfc, 0xff, 0xff, 0x0f, 0xfc, 0xff, 0xff, 0x0f, 0xfc, 0xff, 0xff, 0x0f}))
}

func polynomial(message []byte, r *big.Int) *big.Int {
	sum := new(big.Int)
	for block := range slices.Chunk(message, 16) {
		sum.Add(sum, number(append(bytes.Clone(block), 1)))
		sum.Mul(sum, r).Mod(sum, modulus)
	}
	return sum
}

func tagOf(sum *big.Int, key *[32]byte) [16]byte {
	tag := new(big.Int).Add(sum, number(key[16:]))
	return littleEndian(tag.Mod(tag, word128))
}

// authenticated is what the AEAD takes the tag of, without additional data.
func authenticated(message []byte) []byte {
	b := append(bytes.Clone(message), make([]byte, -len(message)&15)...)
	b = binary.LittleEndian.AppendUint64(b, 0)
	return binary.LittleEndian.AppendUint64(b, uint64(len(message)))
}

func checkPoly(t *testing.T, message []byte, key *[32]byte) {
	t.Helper()
	if !accelerated {
		return // the library's was made by others
	}
	var got [16]byte
	stain()
	poly1305(&got, first(message), len(message), key)
	if want := reference(authenticated(message), key); got != want {
		t.Fatalf("key %x, %d bytes %x: %x, want %x", key[:], len(message), message, got, want)
	}
}

// RFC 8439, 2.5.2 and A.3, 4 to 11: the reference is right, and ours is the same for
// what these messages are in the AEAD.
func TestPolyReference(t *testing.T) {
	ff := "ffffffffffffffffffffffffffffffff"
	for _, v := range []struct{ key, message, tag string }{
		{"85d6be7857556d337f4452fe42d506a8 0103808afb0db2fd4abff6af4149f51b",
			"43727970746f6772617068696320466f72756d205265736561726368 2047726f7570", "a8061dc1305136c6c22b8baf0c0127a9"},
		{"1c9240a5eb55d38af333888604f6b5f0 473917c1402b80099dca5cbc207075c0",
			"2754776173206272696c6c69672c2061 6e642074686520736c6974687920746f 7665730a446964206779726520616e64" +
				"2067696d626c6520696e207468652077 6162653a0a416c6c206d696d73792077 6572652074686520626f726f676f7665" +
				"732c0a416e6420746865206d6f6d6520 7261746873206f757467726162652e", "4541669a7eaaee61e708dc7cbcc5eb62"},
		{"02000000000000000000000000000000 00000000000000000000000000000000", ff, "03000000000000000000000000000000"},
		{"02000000000000000000000000000000" + ff, "02000000000000000000000000000000", "03000000000000000000000000000000"},
		{"01000000000000000000000000000000 00000000000000000000000000000000",
			ff + "f0ffffffffffffffffffffffffffffff 11000000000000000000000000000000", "05000000000000000000000000000000"},
		{"01000000000000000000000000000000 00000000000000000000000000000000",
			ff + "fbfefefefefefefefefefefefefefefe 01010101010101010101010101010101", "00000000000000000000000000000000"},
		{"02000000000000000000000000000000 00000000000000000000000000000000",
			"fdffffffffffffffffffffffffffffff", "faffffffffffffffffffffffffffffff"},
		{"01000000000000000400000000000000 00000000000000000000000000000000",
			"e33594d7505e43b90000000000000000 3394d7505e4379cd0100000000000000 00000000000000000000000000000000" +
				"01000000000000000000000000000000", "14000000000000005500000000000000"},
		{"01000000000000000400000000000000 00000000000000000000000000000000",
			"e33594d7505e43b90000000000000000 3394d7505e4379cd0100000000000000 00000000000000000000000000000000",
			"13000000000000000000000000000000"},
	} {
		key := [32]byte(unhex(t, v.key))
		checkPoly(t, unhex(t, v.message), &key)
		if got := reference(unhex(t, v.message), &key); !bytes.Equal(got[:], unhex(t, v.tag)) {
			t.Errorf("%s: %x, want %s", v.message, got, v.tag)
		}
	}
}

// Keys and blocks whose bits are all the same, and what is near.
func TestPolyExtremes(t *testing.T) {
	random := newSource(7)
	keys := []*[32]byte{{}, {0: 1}, {0: 4}, {0: 5}, {11: 0x10}, {15: 0x0f}, {15: 0x10}, (*[32]byte)(bytes.Repeat([]byte{0xff}, 32))}
	for range 4 {
		keys = append(keys, (*[32]byte)(random.bytes(32)))
	}
	fills := [][]byte{{0}, {0xff}, {0xfe}, {0x01}, {0x80}, {0xff, 0}, {0xfb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	for n := range 600 {
		key, fill := keys[n%len(keys)], fills[n/2%len(fills)]
		checkPoly(t, bytes.Repeat(fill, n/len(fill)+1)[:n], key)
	}
	for _, n := range []int{0, 16, 112, 128, 144, 240, 256, 272, 496, 512, 1424, 4096} {
		for _, key := range keys {
			for _, fill := range fills {
				checkPoly(t, bytes.Repeat(fill, n/len(fill)+1)[:n], key)
			}
		}
	}
}

// Sums on both sides of the modulus, of 2¹²⁸ and of 2¹³⁰. With r = 1 the result is
// the sum of all blocks; four of them make it what is wanted.
func TestPolyNearModulus(t *testing.T) {
	random := newSource(8)
	wanted := []*big.Int{}
	for _, near := range []*big.Int{new(big.Int), modulus, word128, power2(129), power2(130), power2(88), power2(44), power2(64)} {
		for d := int64(-6); d <= 6; d++ {
			x := new(big.Int).Add(near, big.NewInt(d))
			wanted = append(wanted, x.Mod(x, modulus))
		}
	}
	one := &[32]byte{0: 1}
	for _, n := range []int{64, 128, 144, 240, 256, 1424} {
		for _, want := range wanted {
			message := random.bytes(n)
			adjust(message, want)
			if got, want := reference(authenticated(message), one), littleEndian(new(big.Int).Mod(want, word128)); got != want {
				t.Fatalf("the test aims at %x and makes %x", want, got)
			}
			checkPoly(t, message, one)
		}
	}
}

// adjust sets the first four blocks such that the sum of all is want.
func adjust(message []byte, want *big.Int) {
	rest := new(big.Int).Set(want)
	for block := range slices.Chunk(authenticated(message)[64:], 16) {
		rest.Sub(rest, number(block)).Sub(rest, word128)
	}
	rest.Sub(rest, new(big.Int).Mul(word128, big.NewInt(4)))
	rest.Mod(rest, modulus)
	largest := new(big.Int).Sub(word128, big.NewInt(1))
	for i := range 4 {
		part := rest
		if part.Cmp(largest) > 0 {
			part = largest
		}
		block := littleEndian(part)
		copy(message[16*i:], block[:])
		rest = new(big.Int).Sub(rest, part)
	}
}

func TestPolyRandom(t *testing.T) {
	random := newSource(9)
	for n := range 1500 {
		checkPoly(t, random.bytes(n), (*[32]byte)(random.bytes(32)))
	}
}

// The functions have more than two kilobytes of frame, so in a goroutine that is
// new the stack moves, with the buffers that are on it.
func TestStackMoves(t *testing.T) {
	if !accelerated {
		return // nothing of ours is on the stack
	}
	p := newPair(t, make([]byte, 32))
	want := p.library.Seal(nil, make([]byte, 12), make([]byte, 300), nil)
	var wait sync.WaitGroup
	for range 100 {
		wait.Go(func() {
			var key [32]byte
			var buffer [316]byte
			seal(&buffer[0], &buffer[0], 300, &key, 0, 0)
			if !bytes.Equal(buffer[:], want) {
				t.Errorf("sealed on the stack: %x, want %x", buffer, want)
			}
			if !open(&buffer[0], &buffer[0], 300, &key, 0, 0) || !isAll(buffer[:300], 0) {
				t.Errorf("opened on the stack: %x", buffer)
			}
		})
	}
	wait.Wait()
}
