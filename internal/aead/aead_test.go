package aead

import (
	"bytes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

// pair is ours and the library's, with the same key.
type pair struct{ ours, library cipher.AEAD }

func newPair(t testing.TB, key []byte) pair {
	t.Helper()
	ours, err := New(key)
	if err != nil {
		t.Fatal(err)
	}
	library, err := chacha20poly1305.New(key)
	if err != nil {
		t.Fatal(err)
	}
	return pair{stained{ours}, library}
}

// stained is an AEAD before which the registers and the stack are filled. Ours
// leaves zeros, and would not need to clear what it finds so.
type stained struct{ cipher.AEAD }

func (s stained) Seal(dst, nonce, plaintext, additionalData []byte) []byte {
	stainHere()
	return s.AEAD.Seal(dst, nonce, plaintext, additionalData)
}

func (s stained) Open(dst, nonce, ciphertext, additionalData []byte) ([]byte, error) {
	stainHere()
	return s.AEAD.Open(dst, nonce, ciphertext, additionalData)
}

// source makes bytes that are the same in each run.
type source struct{ *rand.ChaCha8 }

func newSource(seed byte) source { return source{rand.NewChaCha8([32]byte{seed})} }

func (s source) bytes(n int) []byte {
	b := make([]byte, n)
	s.Read(b)
	return b
}

// both runs a test with and without the assembly.
func both(t *testing.T, test func(t *testing.T)) {
	t.Run("this processor", test)
	t.Run("library", func(t *testing.T) {
		defer func(was bool) { accelerated = was }(accelerated)
		accelerated = false
		test(t)
	})
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const sunscreen = "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it."

// RFC 8439, 2.4.2: the counter begins at 1, as in the AEAD.
func TestCipherVector(t *testing.T) {
	both(t, func(t *testing.T) {
		key := unhex(t, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
		aead, err := New(key)
		if err != nil {
			t.Fatal(err)
		}
		got := aead.Seal(nil, unhex(t, "000000000000004a00000000"), []byte(sunscreen), nil)
		want := unhex(t, "6e2e359a2568f98041ba0728dd0d6981 e97e7aec1d4360c20a27afccfd9fae0b"+
			"f91b65c5524733ab8f593dabcd62b357 1639d624e65152ab8f530c359f0861d8"+
			"07ca0dbf500d6a6156a38e088a22b65e 52bc514d16ccf806818ce91ab7793736"+
			"5af90bbf74a35be6b40b8eedf2785e42 874d")
		if !bytes.Equal(got[:len(sunscreen)], want) {
			t.Errorf("got %x, want %x", got, want)
		}
	})
}

// RFC 8439, 2.8.2, which has additional data.
func TestAdditionalDataVector(t *testing.T) {
	both(t, func(t *testing.T) {
		aead, err := New(unhex(t, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"))
		if err != nil {
			t.Fatal(err)
		}
		nonce, additional := unhex(t, "070000004041424344454647"), unhex(t, "50515253c0c1c2c3c4c5c6c7")
		got := aead.Seal(nil, nonce, []byte(sunscreen), additional)
		want := unhex(t, "d31a8d34648e60db7b86afbc53ef7ec2 a4aded51296e08fea9e2b5a736ee62d6"+
			"3dbea45e8ca9671282fafb69da92728b 1a71de0a9e060b2905d6a5b67ecd3b36"+
			"92ddbd7f2d778b8c9803aee328091b58 fab324e4fad675945585808b4831d7bc"+
			"3ff4def08e4b7a9de576d26586cec64b 6116 1ae10b594f09e26a7e902ecbd0600691")
		if !bytes.Equal(got, want) {
			t.Errorf("got %x, want %x", got, want)
		}
		if back, err := aead.Open(nil, nonce, got, additional); err != nil || string(back) != sunscreen {
			t.Errorf("open: %q, %v", back, err)
		}
	})
}

// The same messages as OpenSSL 4.0.0 made of them: this is the hash of what it
// returned, message after message.
func TestOpenSSL(t *testing.T) {
	both(t, func(t *testing.T) {
		key := make([]byte, chacha20poly1305.KeySize)
		for i := range key {
			key[i] = byte(0x80 + i)
		}
		aead := newPair(t, key).ours
		hash := sha256.New()
		for n := range 2102 {
			if n == 2101 {
				n = 65535
			}
			plain := make([]byte, n)
			for i := range plain {
				plain[i] = byte(3*i + n)
			}
			nonce := binary.LittleEndian.AppendUint64(make([]byte, 4), uint64(n))
			hash.Write(aead.Seal(nil, nonce, plain, nil))
		}
		if got, want := hash.Sum(nil), unhex(t, "5c39593c8cb529c0be4bff47207a7fae65f92b3d72711c64059c0b9d9c3178ae"); !bytes.Equal(got, want) {
			t.Errorf("got %x, want %x", got, want)
		}
	})
}

// More blocks than 16 bits count.
func TestLong(t *testing.T) {
	random := newSource(15)
	p := newPair(t, random.bytes(chacha20poly1305.KeySize))
	check(t, p, random.bytes(chacha20poly1305.NonceSize), random.bytes(64<<16+77), 0, 0)
}

// allLengths is more than what seal and open do before they begin to repeat: open has
// 23 blocks of key stream, then 16, then up to 8.
const allLengths = 64*(23+16+8) + 65

// Every length up to that, some above, at every alignment, in place and not.
func TestAgainstLibrary(t *testing.T) {
	random := newSource(1)
	lengths := []int{4096, 8192, 8191, 9000, 16384, 32767, 65519, 65534, 65535}
	for n := range allLengths {
		lengths = append(lengths, n)
	}
	for i, n := range lengths {
		p := newPair(t, random.bytes(chacha20poly1305.KeySize))
		nonce := random.bytes(chacha20poly1305.NonceSize)
		check(t, p, nonce, random.bytes(n), i%64, i/2%64)
	}
}

func TestNonces(t *testing.T) {
	random := newSource(2)
	for _, nonce := range []string{
		"000000000000000000000000", "ffffffffffffffffffffffff",
		"00000000ffffffffffffffff", "000000000000000000000080", "ffffffff0000000000000000",
		"00000000ffffffff00000000", "000000000000000001000000",
	} {
		for _, key := range [][]byte{make([]byte, 32), bytes.Repeat([]byte{0xff}, 32), random.bytes(32)} {
			for _, n := range []int{0, 1, 64, 128, 129, 448, 1420, 4000} {
				check(t, newPair(t, key), unhex(t, nonce), random.bytes(n), 0, 0)
			}
		}
	}
}

// check seals and opens plain, which begins at an offset, into a buffer that
// begins at another, and then in place.
func check(t testing.TB, p pair, nonce, plain []byte, from, to int) {
	t.Helper()
	n := len(plain)
	sealed := p.library.Seal(nil, nonce, plain, nil)

	src := append(make([]byte, from), plain...)
	dst := bytes.Repeat([]byte{0xa5}, to+len(sealed)+64)
	got := p.ours.Seal(dst[:to], nonce, src[from:], nil)
	switch {
	case !bytes.Equal(got[to:], sealed):
		t.Fatalf("%d bytes sealed to\n%x, want\n%x", n, got[to:], sealed)
	case !bytes.Equal(src[from:], plain):
		t.Fatalf("sealing %d bytes changed them", n)
	case !isAll(dst[:to], 0xa5) || !isAll(dst[len(got):], 0xa5):
		t.Fatalf("sealing %d bytes wrote outside", n)
	}

	src = append(make([]byte, from), sealed...)
	dst = bytes.Repeat([]byte{0xa5}, to+n+64)
	got, err := p.ours.Open(dst[:to], nonce, src[from:], nil)
	switch {
	case err != nil:
		t.Fatalf("open %d bytes: %v", n, err)
	case !bytes.Equal(got[to:], plain):
		t.Fatalf("%d bytes opened to\n%x, want\n%x", n, got[to:], plain)
	case !bytes.Equal(src[from:], sealed):
		t.Fatalf("opening %d bytes changed them", n)
	case !isAll(dst[:to], 0xa5) || !isAll(dst[len(got):], 0xa5):
		t.Fatalf("opening %d bytes wrote outside", n)
	}

	inPlace := append(make([]byte, from, from+n+chacha20poly1305.Overhead), plain...)[from:]
	if got := p.ours.Seal(inPlace[:0], nonce, inPlace, nil); !bytes.Equal(got, sealed) || n > 0 && &got[0] != &inPlace[0] {
		t.Fatalf("%d bytes sealed in place to\n%x, want\n%x", n, got, sealed)
	}
	inPlace = inPlace[:n+chacha20poly1305.Overhead]
	if got, err := p.ours.Open(inPlace[:0], nonce, inPlace, nil); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("%d bytes opened in place to\n%x (%v), want\n%x", n, got, err, plain)
	}
}

func isAll(b []byte, c byte) bool {
	for i := range b {
		if b[i] != c {
			return false
		}
	}
	return true
}

// A message of which any bit is another is refused, and nothing of it is left.
func TestForgery(t *testing.T) {
	both(t, func(t *testing.T) {
		random := newSource(3)
		p := newPair(t, random.bytes(chacha20poly1305.KeySize))
		nonce := random.bytes(chacha20poly1305.NonceSize)
		for _, n := range []int{0, 1, 15, 16, 64, 127, 128, 129, 255, 448, 449, 1420, 1473, 3000} {
			sealed := p.library.Seal(nil, nonce, random.bytes(n), nil)
			for bit := range 8 * chacha20poly1305.Overhead {
				checkForgery(t, p, nonce, sealed, 8*n+bit)
			}
			for i := range n {
				checkForgery(t, p, nonce, sealed, 8*i+i%8)
			}
		}
	})
}

func checkForgery(t testing.TB, p pair, nonce, sealed []byte, bit int) {
	t.Helper()
	forged := bytes.Clone(sealed)
	forged[bit/8] ^= 1 << (bit % 8)
	n := len(sealed) - chacha20poly1305.Overhead
	dst := bytes.Repeat([]byte{0xa5}, n+64)
	_, want := p.library.Open(nil, nonce, forged, nil)
	got, err := p.ours.Open(dst[:0], nonce, forged, nil)
	switch {
	case err == nil || err != want || got != nil:
		t.Fatalf("%d bytes, bit %d: opened to %x, %v, want %v", n, bit, got, err, want)
	case !isAll(dst[:n], 0) || !isAll(dst[n:], 0xa5):
		t.Fatalf("%d bytes, bit %d: left %x", n, bit, dst)
	}
	tag := bytes.Clone(forged[n:])
	if _, err := p.ours.Open(forged[:0], nonce, forged, nil); err != want {
		t.Fatalf("%d bytes, bit %d, in place: %v", n, bit, err)
	}
	if !isAll(forged[:n], 0) || !bytes.Equal(forged[n:], tag) {
		t.Fatalf("%d bytes, bit %d, in place: left %x", n, bit, forged)
	}
}

func TestRefused(t *testing.T) {
	both(t, func(t *testing.T) {
		for _, n := range []int{0, 31, 33} {
			_, err := New(make([]byte, n))
			_, want := chacha20poly1305.New(make([]byte, n))
			if err == nil || err.Error() != want.Error() {
				t.Errorf("key of %d bytes: %v, want %v", n, err, want)
			}
		}
		p := newPair(t, make([]byte, chacha20poly1305.KeySize))
		nonce := make([]byte, chacha20poly1305.NonceSize)
		for n := range chacha20poly1305.Overhead {
			_, want := p.library.Open(nil, nonce, make([]byte, n), nil)
			if _, err := p.ours.Open(nil, nonce, make([]byte, n), nil); err == nil || err != want {
				t.Errorf("message of %d bytes: %v, want %v", n, err, want)
			}
		}
		sealed := p.library.Seal(nil, nonce, []byte(sunscreen), []byte("x"))
		if _, err := p.ours.Open(nil, nonce, sealed, nil); err == nil {
			t.Error("opened without its additional data")
		}
	})
}

// Buffers that overlap, in each way, and nonces of each length: what the library
// does with them, we do.
func TestMisuse(t *testing.T) {
	const n = 200
	random := newSource(4)
	p := newPair(t, random.bytes(chacha20poly1305.KeySize))
	memory := random.bytes(4 * n)
	outcome := func(aead cipher.AEAD, seal bool, nonce, to, from, size int) (what any) {
		m := bytes.Clone(memory)
		defer func() {
			if p := recover(); p != nil {
				what = p
			}
		}()
		if seal {
			return string(aead.Seal(m[to:to], m[:nonce], m[from:from+size], nil))
		}
		sealed := p.library.Seal(nil, memory[:chacha20poly1305.NonceSize], memory[from:from+size], nil)
		copy(m[from:], sealed)
		opened, err := aead.Open(m[to:to], m[:nonce], m[from:from+len(sealed)], nil)
		return [2]any{string(opened), err}
	}
	compare := func(nonce, to, from, size int) {
		t.Helper()
		for _, seal := range []bool{true, false} {
			got, want := outcome(p.ours, seal, nonce, to, from, size), outcome(p.library, seal, nonce, to, from, size)
			if got != want {
				t.Errorf("seal %t, nonce %d, %d bytes at %d to %d: %q, want %q", seal, nonce, size, from, to, got, want)
			}
		}
	}
	for _, size := range []int{0, 1, 64, n} {
		for to := max(0, n-size-40); to < n+size+40; to++ {
			compare(chacha20poly1305.NonceSize, to, n, size)
		}
	}
	for to := range 2 * chacha20poly1305.NonceSize { // over the nonce
		compare(chacha20poly1305.NonceSize, to, 2*n, n)
	}
	for nonce := range 25 {
		compare(nonce, n/2, 2*n, n)
	}
}

func TestAppends(t *testing.T) {
	random := newSource(5)
	p := newPair(t, random.bytes(chacha20poly1305.KeySize))
	nonce := random.bytes(chacha20poly1305.NonceSize)
	plain := random.bytes(500)
	for _, room := range []int{0, 1, 499, 500, 515, 516, 600} {
		head := append(make([]byte, 0, 7+room), "header "...)
		sealed := p.ours.Seal(head, nonce, plain, nil)
		if want := p.library.Seal(head, nonce, plain, nil); !bytes.Equal(sealed, want) {
			t.Errorf("seal with room for %d: %x, want %x", room, sealed, want)
		}
		opened, err := p.ours.Open(head, nonce, sealed[7:], nil)
		if err != nil || string(opened) != "header "+string(plain) {
			t.Errorf("open with room for %d: %x, %v", room, opened, err)
		}
	}
}

func TestAllocatesNothing(t *testing.T) {
	aead := newPair(t, make([]byte, chacha20poly1305.KeySize)).ours
	nonce := make([]byte, chacha20poly1305.NonceSize)
	plain, sealed := make([]byte, 1420), make([]byte, 0, 1436)
	allocations := testing.AllocsPerRun(100, func() {
		sealed = aead.Seal(sealed[:0], nonce, plain, nil)
		if _, err := aead.Open(plain[:0], nonce, sealed, nil); err != nil {
			t.Error(err)
		}
		sealed[0] ^= 1
		if _, err := aead.Open(sealed[:0], nonce, sealed, nil); err == nil {
			t.Error("opened a forgery")
		}
	})
	if allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
}

func FuzzAgainstLibrary(f *testing.F) {
	random := newSource(6)
	for _, n := range []int{0, 1, 16, 64, 128, 129, 448, 449, 1420, 1472, 1473, 5000} {
		f.Add(random.bytes(32), random.bytes(12), random.bytes(n), uint8(n), uint8(3*n), uint32(n))
	}
	f.Fuzz(func(t *testing.T, key, nonce, plain []byte, from, to uint8, bit uint32) {
		key, nonce = append(key, make([]byte, 32)...)[:32], append(nonce, make([]byte, 12)...)[:12]
		p := newPair(t, key)
		check(t, p, nonce, plain, int(from), int(to))
		sealed := p.library.Seal(nil, nonce, plain, nil)
		checkForgery(t, p, nonce, sealed, int(bit%uint32(8*len(sealed))))
	})
}
