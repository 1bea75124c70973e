package uapi

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

const keySize = 32

var errHexKey = errors.New("want 64 hexadecimal digits")

// Secret is a private or a preshared key. No fmt verb, no log/slog handler and
// no encoder prints it; only the text of a set request holds its digits.
type Secret [keySize]byte

const hidden = "(hidden)"

// IsZero reports whether there is no key: WireGuard writes "none" as zeros.
func (s Secret) IsZero() bool { return s == Secret{} }

func (s Secret) String() string                 { return hidden }
func (s Secret) GoString() string               { return hidden }
func (s Secret) Format(f fmt.State, _ rune)     { _, _ = io.WriteString(f, hidden) }
func (s Secret) MarshalText() ([]byte, error)   { return []byte(hidden), nil }
func (s Secret) MarshalBinary() ([]byte, error) { return nil, errors.New("encode secret key: refused") }

// PublicKey names a peer.
type PublicKey [keySize]byte

// String returns the base64 form that wg(8) prints.
func (k PublicKey) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

func parseKey(value string) (key [keySize]byte, err error) {
	if len(value) != hex.EncodedLen(keySize) {
		return key, errHexKey
	}
	if _, err := hex.Decode(key[:], []byte(value)); err != nil {
		// The cause of package hex quotes the offending digit: not for secrets.
		return [keySize]byte{}, errHexKey
	}
	return key, nil
}
