package aead

import (
	"bytes"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/unix"
)

// guarded is memory between two pages that may not be touched: who reads or
// writes outside of it gets SIGSEGV.
type guarded []byte

func newGuarded(t *testing.T, pages int) guarded {
	t.Helper()
	size := unix.Getpagesize()
	all, err := unix.Mmap(-1, 0, (pages+2)*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(all); err != nil {
			t.Error(err)
		}
	})
	for _, page := range [][]byte{all[:size], all[len(all)-size:]} {
		if err := unix.Mprotect(page, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	return all[size : len(all)-size]
}

// at is n bytes at one end of the memory, with a copy of b in it, and the rest.
func (g guarded) at(end bool, n int, b []byte) (place, rest []byte) {
	for i := range g {
		g[i] = 0xa5
	}
	place, rest = g[:n:n], g[n:]
	if end {
		place, rest = g[len(g)-n:], g[:len(g)-n]
	}
	copy(place, b)
	return place, rest
}

func TestInBounds(t *testing.T) {
	random := newSource(10)
	p := newPair(t, random.bytes(chacha20poly1305.KeySize))
	src, dst := newGuarded(t, 1), newGuarded(t, 1)
	nonces := newGuarded(t, 1)
	for n := range allLengths {
		for _, end := range []bool{false, true} {
			nonce, _ := nonces.at(end, chacha20poly1305.NonceSize, random.bytes(chacha20poly1305.NonceSize))
			plain := random.bytes(n)
			sealed := p.library.Seal(nil, nonce, plain, nil)

			from, _ := src.at(end, n, plain)
			to, rest := dst.at(end, len(sealed), nil)
			if got := p.ours.Seal(to[:0], nonce, from, nil); !bytes.Equal(got, sealed) || !isAll(rest, 0xa5) {
				t.Fatalf("seal %d bytes, at the end %t: %x, want %x", n, end, got, sealed)
			}

			from, _ = src.at(end, len(sealed), sealed)
			to, rest = dst.at(end, n, nil)
			if got, err := p.ours.Open(to[:0], nonce, from, nil); err != nil || !bytes.Equal(got, plain) || !isAll(rest, 0xa5) {
				t.Fatalf("open %d bytes, at the end %t: %x (%v), want %x", n, end, got, err, plain)
			}
			from[n] ^= 1
			if _, err := p.ours.Open(from[:0], nonce, from, nil); err == nil || !isAll(from[:n], 0) {
				t.Fatalf("open %d bytes of a forgery, at the end %t: %v, left %x", n, end, err, from)
			}
		}
	}
}
