package sys

import "golang.org/x/sys/unix"

// Signal is one that the process got.
type Signal struct {
	Number unix.Signal
	Kernel bool // sent by the kernel (a key on the terminal, a hang-up), not by kill(2)
}
