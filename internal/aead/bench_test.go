package aead

import (
	"crypto/cipher"
	"fmt"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

// Beside the library, in turn: only the ratio of two neighbours is worth reading.
func BenchmarkAEAD(b *testing.B) {
	for _, n := range []int{64, 256, 1280, 1420, 8192, 65535} {
		nonce := make([]byte, chacha20poly1305.NonceSize)
		plain := make([]byte, n)
		p := newPair(b, make([]byte, chacha20poly1305.KeySize))
		ours, err := New(make([]byte, chacha20poly1305.KeySize))
		if err != nil {
			b.Fatal(err)
		}
		sealed := p.library.Seal(nil, nonce, plain, nil)
		packet := make([]byte, len(sealed))
		for _, of := range []struct {
			name string
			aead cipher.AEAD
		}{{"library", p.library}, {"ours", ours}} {
			b.Run(fmt.Sprintf("seal/%d/%s", n, of.name), func(b *testing.B) {
				b.SetBytes(int64(n))
				for b.Loop() {
					of.aead.Seal(packet[:0], nonce, plain, nil)
				}
			})
			b.Run(fmt.Sprintf("open/%d/%s", n, of.name), func(b *testing.B) {
				b.SetBytes(int64(n))
				for b.Loop() {
					copy(packet, sealed)
					if _, err := of.aead.Open(packet[:0], nonce, packet, nil); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
