// Package sys is the floor: the only place with unsafe, raw system calls and
// ioctl. It takes no decisions and logs nothing; each function does one thing
// that neither the standard library nor golang.org/x/sys/unix offers.
//
// File descriptors are plain ints here and are borrowed for the call, unless a
// function says that it returns a new one, which the caller then owns.
package sys
