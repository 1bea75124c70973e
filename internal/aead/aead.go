package aead

import (
	"crypto/cipher"

	"golang.org/x/crypto/chacha20poly1305"
)

// New returns ChaCha20-Poly1305 with the key, which must have 32 bytes. It can be
// used by several goroutines at once. Results, errors and panics are those of
// golang.org/x/crypto/chacha20poly1305.
func New(key []byte) (cipher.AEAD, error) {
	library, err := chacha20poly1305.New(key)
	if err != nil {
		return nil, err
	}
	if !accelerated {
		return library, nil
	}
	return newVector(key, library), nil
}
