package aead

import (
	"bytes"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

// One AEAD in many goroutines, each of whose stacks is new, small and full of
// packets, while garbage is collected again and again: signals come at every
// instruction, and stacks and what they point to are moved.
func TestInterrupted(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	random := newSource(16)
	p := newPair(t, random.bytes(chacha20poly1305.KeySize))
	nonce := random.bytes(chacha20poly1305.NonceSize)
	var wait sync.WaitGroup
	done := make(chan struct{})
	for n := range 300 {
		n = 7 * n % 1500
		plain := random.bytes(n)
		want := p.library.Seal(nil, nonce, plain, nil)
		wait.Go(func() {
			for range 20 {
				var packet [1516]byte
				copy(packet[:], plain)
				sealed := p.ours.Seal(packet[:0], nonce, packet[:n], nil)
				if !bytes.Equal(sealed, want) {
					t.Errorf("%d bytes sealed to %x, want %x", n, sealed, want)
				}
				opened, err := p.ours.Open(make([]byte, 0, n), nonce, sealed, nil)
				if err != nil || !bytes.Equal(opened, plain) {
					t.Errorf("%d bytes opened to %x (%v), want %x", n, opened, err, plain)
				}
				runtime.Gosched()
			}
		})
	}
	go func() {
		wait.Wait()
		close(done)
	}()
	for {
		select {
		case <-done:
			return
		default:
			runtime.GC()
		}
	}
}
