package nstest

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"testing"
)

// Where FreePort looks: below what the kernel gives to who asks for any port
// (ip_local_port_range in ip(7), 32768 and more).
const (
	firstPort = 22000
	ports     = 10000
)

var lastPort atomic.Uint32

// FreePort returns a port for a UDP socket of the real machine that another process
// is to open. Nobody gets it by chance, and no other test of this process gets it.
//
// It was not tried: a socket that is closed again lives on in whatever another test
// has forked meanwhile, until that executes its program.
func FreePort(t testing.TB) uint16 {
	t.Helper()
	var used strings.Builder
	for _, name := range []string{"/proc/self/net/udp", "/proc/self/net/udp6"} {
		text, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		used.Write(text)
	}
	lastPort.CompareAndSwap(0, 1+rand.Uint32N(ports))
	for {
		port := firstPort + lastPort.Add(1)%ports
		if !strings.Contains(used.String(), fmt.Sprintf(":%04X ", port)) {
			return uint16(port)
		}
	}
}
