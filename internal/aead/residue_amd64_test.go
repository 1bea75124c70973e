package aead

import (
	"bytes"
	"crypto/subtle"
	"runtime/debug"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

func stainHere() {
	if accelerated {
		stain()
	}
}

// Two keys, and what each makes the same message of: from what is left in registers
// and on the stack nobody can tell which it was. A forgery is not decrypted at all.
func TestLeavesNothing(t *testing.T) {
	if !accelerated {
		return // what the library leaves is the library's
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // or the stack might move
	random := newSource(11)
	keys := [2][]byte{random.bytes(chacha20poly1305.KeySize), random.bytes(chacha20poly1305.KeySize)}
	nonce := random.bytes(chacha20poly1305.NonceSize)
	for _, n := range []int{0, 1, 64, 128, 129, 300, 448, 449, 1420, 1473, 3000} {
		message := random.bytes(n)
		sealed, plain := make([]byte, n+chacha20poly1305.Overhead), make([]byte, n+1)
		c := &call{sealed: &sealed[0], plain: &plain[0], n: n}
		c.nonce0, c.nonce1 = lastRow(nonce)
		c.leaves((*call).spill) // the stack grows

		var seals, opens, refusals, spills [2][]byte
		for i, key := range keys {
			c.key = [chacha20poly1305.KeySize]byte(key)
			text := keyStream(t, key, nonce, 64+n)[64:]
			subtle.XORBytes(text, text, message)

			copy(plain, text)
			seals[i] = c.leaves((*call).seal)
			if !bytes.Equal(sealed[:n], message) {
				t.Fatalf("%x sealed to %x, want %x", text, sealed, message)
			}
			clear(plain)
			opens[i] = c.leaves((*call).open)
			if !c.right || !bytes.Equal(plain[:n], text) {
				t.Fatalf("%x opened to %x (%t), want %x", sealed, plain, c.right, text)
			}
			clear(plain)
			sealed[n] ^= 0x80
			refusals[i] = c.leaves((*call).open)
			if c.right || !isAll(plain, 0) {
				t.Fatalf("%d bytes: a forgery opened to %x (%t)", n, plain, c.right)
			}
			spills[i] = c.leaves((*call).spill)
		}
		for name, left := range map[string][2][]byte{"seal": seals, "open": opens, "open of a forgery": refusals} {
			if at := differ(left); at >= 0 {
				t.Errorf("%d bytes: %s leaves something of the key at %d of the residue", n, name, at)
			}
		}
		if differ(spills) < 0 {
			t.Fatal("the test looks at the wrong place")
		}
	}
}

// call is what the functions are called with. The race detector, which leaves
// something too, is kept out.
type call struct {
	sealed, plain  *byte
	n              int
	key            [chacha20poly1305.KeySize]byte
	nonce0, nonce1 uint64
	right          bool
	left           [6312]byte
}

// leaves is what is in the registers and below the caller's frame after do.
//
//go:noinline
//go:norace
func (c *call) leaves(do func(*call)) []byte {
	stain()
	do(c)
	residue(&c.left)
	return bytes.Clone(c.left[:])
}

//go:norace
func (c *call) seal() { seal(c.sealed, c.plain, c.n, &c.key, c.nonce0, c.nonce1) }

//go:norace
func (c *call) open() { c.right = open(c.plain, c.sealed, c.n, &c.key, c.nonce0, c.nonce1) }

// spill leaves the key on the stack.
//
//go:norace
func (c *call) spill() { spill(&c.key) }

//go:noinline
//go:norace
func spill(key *[chacha20poly1305.KeySize]byte) byte {
	var room [1024]byte
	copy(room[100:], key[:])
	return room[key[0]]
}

// differ is the first index at which the two are not the same, or -1.
func differ(left [2][]byte) int {
	for i := range left[0] {
		if left[0][i] != left[1][i] {
			return i
		}
	}
	return -1
}
