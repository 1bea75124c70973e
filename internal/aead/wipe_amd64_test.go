package aead

import (
	"bytes"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/crypto/chacha20"
)

// What the functions had on the stack is looked for below it.
func TestWipes(t *testing.T) {
	if !accelerated {
		return // the library's stack is the library's
	}
	random := newSource(11)
	for _, n := range []int{0, 64, 128, 300, 1420, 3000} {
		key, nonce := [32]byte(random.bytes(32)), random.bytes(12)
		cipher, err := chacha20.NewUnauthenticatedCipher(key[:], nonce)
		if err != nil {
			t.Fatal(err)
		}
		stream := make([]byte, 64+n)
		cipher.XORKeyStream(stream, stream)
		packet := append(random.bytes(n), make([]byte, 16)...)
		nonce0, nonce1 := lastRow(nonce)
		sealed := func() { seal(&packet[0], &packet[0], n, &key, nonce0, nonce1) }
		opened := func() { open(&packet[0], &packet[0], n, &key, nonce0, nonce1) }
		for i, left := range [][]byte{leftBy(sealed), leftBy(opened)} {
			for piece := range slices.Chunk(stream, 8) {
				if len(piece) == 8 && bytes.Contains(left, piece) {
					t.Fatalf("%d bytes, call %d: key stream is left on the stack", n, i)
				}
			}
		}
		if below := leftBy(func() { spill(stream[:8]) }); !bytes.Contains(below, stream[:8]) {
			t.Fatal("the test looks at the wrong place")
		}
	}
}

const stackLook = 8 << 10

// leftBy is a copy of what is on the stack below the caller's frame after a call.
//
//go:noinline
func leftBy(call func()) []byte {
	left := make([]byte, stackLook)
	deepen() // or the stack might move
	call()
	var here byte
	for i := range left {
		left[i] = *(*byte)(unsafe.Add(unsafe.Pointer(&here), i-stackLook))
	}
	return left
}

//go:noinline
func deepen() byte {
	var room [4 * stackLook]byte
	return room[len(room)-1]
}

// spill leaves bytes on the stack.
//
//go:noinline
func spill(b []byte) byte {
	var room [1024]byte
	copy(room[100:], b)
	return room[len(b)]
}
