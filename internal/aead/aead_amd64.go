package aead

import (
	"crypto/cipher"
	"encoding/binary"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/cpu"
)

//go:generate sh -c "cd asm && go run . -out ../aead_amd64.s -stubs ../stubs_amd64.go -pkg aead"

// accelerated tells whether processor and kernel have what the assembly uses, and
// GODEBUG=cpu.…=off has not switched it off. Tests change it.
var accelerated = cpu.X86.HasBMI2 && cpu.X86.HasAVX && cpu.X86.HasAVX2 && cpu.X86.HasAVX512 &&
	cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL &&
	cpu.X86.HasAVX512IFMA && cpu.X86.HasAVX512VBMI2

const (
	nonceSize = chacha20poly1305.NonceSize
	tagSize   = chacha20poly1305.Overhead
	// maxPlain is what the counter, of 32 bits, reaches.
	maxPlain = 1<<38 - 64
)

// vector is the AEAD in assembly. What is rare or not allowed is the library's.
type vector struct {
	cipher.AEAD
	key [chacha20poly1305.KeySize]byte
}

func newVector(key []byte, library cipher.AEAD) *vector {
	return &vector{library, [chacha20poly1305.KeySize]byte(key)}
}

func (v *vector) Seal(dst, nonce, plaintext, additionalData []byte) []byte {
	n := len(plaintext)
	if len(nonce) != nonceSize || len(additionalData) > 0 || n > maxPlain {
		return v.AEAD.Seal(dst, nonce, plaintext, additionalData)
	}
	all := slices.Grow(dst, n+tagSize)[:len(dst)+n+tagSize]
	out := all[len(dst):]
	if overlap(out, plaintext) {
		return v.AEAD.Seal(dst, nonce, plaintext, additionalData)
	}
	nonce0, nonce1 := lastRow(nonce)
	seal(&out[0], first(plaintext), n, &v.key, nonce0, nonce1)
	return all
}

func (v *vector) Open(dst, nonce, ciphertext, additionalData []byte) ([]byte, error) {
	n := len(ciphertext) - tagSize
	if len(nonce) != nonceSize || len(additionalData) > 0 || n < 0 || n > maxPlain {
		return v.AEAD.Open(dst, nonce, ciphertext, additionalData)
	}
	all := slices.Grow(dst, n)[:len(dst)+n]
	out := all[len(dst):]
	if overlap(out, ciphertext) {
		return v.AEAD.Open(dst, nonce, ciphertext, additionalData)
	}
	nonce0, nonce1 := lastRow(nonce)
	if !open(first(out), &ciphertext[0], n, &v.key, nonce0, nonce1) {
		clear(out)
		return nil, errOpen
	}
	return all, nil
}

// errOpen is the library's error of a message that is not right.
var errOpen = func() error {
	library, err := chacha20poly1305.New(make([]byte, chacha20poly1305.KeySize))
	if err != nil {
		return err
	}
	_, err = library.Open(nil, make([]byte, nonceSize), nil, nil)
	return err
}()

// lastRow is the last row of ChaCha20's state: the counter, which is 0, and the
// nonce. They are passed by value, as the nonce may be where the output goes.
func lastRow(nonce []byte) (uint64, uint64) {
	return uint64(binary.LittleEndian.Uint32(nonce)) << 32, binary.LittleEndian.Uint64(nonce[4:])
}

// overlap tells whether two buffers share memory and do not begin together.
func overlap(a, b []byte) bool {
	if len(a) == 0 || len(b) == 0 {
		return false
	}
	d := distance(&a[0], &b[0])
	return -len(b) < d && d < len(a) && d != 0
}

// first is nil where there is none.
func first(b []byte) *byte {
	if len(b) == 0 {
		return nil
	}
	return &b[0]
}
