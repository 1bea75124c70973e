//go:build !amd64

package aead

import "crypto/cipher"

var accelerated = false

func newVector(_ []byte, library cipher.AEAD) cipher.AEAD { return library }
