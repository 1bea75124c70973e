package conf

import (
	"crypto/ecdh"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"unique"
)

// keyLen is the length in bytes of every key in WireGuard.
const keyLen = 32

const hidden = "(hidden)"

// A PublicKey names a peer. It prints as base64.
type PublicKey [32]byte

// ParsePublicKey reads base64, strictly as wg(8) does.
func ParsePublicKey(s string) (PublicKey, error) {
	k, err := decodeKey(s)
	return PublicKey(k), err
}

// String returns k in base64.
func (k PublicKey) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// Hex returns k as the UAPI writes it.
func (k PublicKey) Hex() string { return hex.EncodeToString(k[:]) }

// IsZero reports whether k is the zero key, which no peer can have.
func (k PublicKey) IsZero() bool { return k == PublicKey{} }

// MarshalText returns k in base64.
func (k PublicKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads base64.
func (k *PublicKey) UnmarshalText(text []byte) (err error) {
	*k, err = ParsePublicKey(string(text))
	return err
}

// A PrivateKey is an interface's X25519 key. It prints as "(hidden)".
// Private keys are equal if == says so.
type PrivateKey struct{ secret }

// NewPrivateKey returns the key with these bytes. They are kept as they are:
// clamping is left to X25519.
func NewPrivateKey(b [32]byte) PrivateKey { return PrivateKey{newSecret(b)} }

// ParsePrivateKey reads base64, strictly as wg(8) does. Its error never holds
// a part of s.
func ParsePrivateKey(s string) (PrivateKey, error) {
	k, err := decodeKey(s)
	return NewPrivateKey(k), err
}

// PublicKey returns the public key of k.
func (k PrivateKey) PublicKey() PublicKey {
	private, err := ecdh.X25519().NewPrivateKey(k.Bytes())
	if err != nil {
		panic("conf: X25519 refuses a key of 32 bytes")
	}
	return PublicKey(private.PublicKey().Bytes())
}

// A PresharedKey is the symmetric key of two peers; the zero key stands for
// none. It prints as "(hidden)". Preshared keys are equal if == says so.
type PresharedKey struct{ secret }

// NewPresharedKey returns the key with these bytes.
func NewPresharedKey(b [32]byte) PresharedKey { return PresharedKey{newSecret(b)} }

// ParsePresharedKey reads base64, strictly as wg(8) does. Its error never
// holds a part of s.
func ParsePresharedKey(s string) (PresharedKey, error) {
	k, err := decodeKey(s)
	return NewPresharedKey(k), err
}

// secret keeps a key behind two handles. fmt calls no methods on what is in
// somebody's unexported field, nor for %p; there it prints the bytes of an
// array, and for a verb that it does not know it follows one pointer.
// Zero keys have the zero handle, so == compares keys.
type secret struct {
	key unique.Handle[unique.Handle[[keyLen]byte]]
}

func newSecret(b [keyLen]byte) secret {
	if b == [keyLen]byte{} {
		return secret{}
	}
	return secret{unique.Make(unique.Make(b))}
}

// IsZero reports whether the key is absent or all zeros.
func (s secret) IsZero() bool { return s == secret{} }

// Bytes returns a copy of the key itself.
func (s secret) Bytes() []byte {
	if s.IsZero() {
		return make([]byte, keyLen)
	}
	b := s.key.Value().Value()
	return b[:]
}

// Base64 returns the key itself as configuration files write it.
func (s secret) Base64() string { return base64.StdEncoding.EncodeToString(s.Bytes()) }

// Hex returns the key itself as the UAPI writes it.
func (s secret) Hex() string { return hex.EncodeToString(s.Bytes()) }

// String returns "(hidden)".
func (s secret) String() string { return hidden }

// GoString returns "(hidden)".
func (s secret) GoString() string { return hidden }

// Format writes "(hidden)" for every verb.
func (s secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, hidden) }

// MarshalText returns "(hidden)".
func (s secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// LogValue returns "(hidden)".
func (s secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// decodeKey reads one key in base64. Its errors are predicates ("has 31
// bytes") and tell nothing of the key but its length.
func decodeKey(s string) (key [keyLen]byte, err error) {
	if s == "" {
		return key, errors.New("is empty")
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	switch {
	case strings.ContainsAny(s, "\r\n"), err != nil && len(s) != 43:
		return key, fmt.Errorf("is not base64 (%d characters)", len(s))
	case err != nil:
		return key, errors.New("is not base64 (43 characters; the = at the end may be missing)")
	case len(b) != keyLen:
		return key, fmt.Errorf("has %d bytes instead of %d", len(b), keyLen)
	}
	return [keyLen]byte(b), nil
}
