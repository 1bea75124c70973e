//go:build cgo

package sandbox

// builtWithCgo: threads of the C library come and go by calls that are not in
// syscalls.go, and the Go runtime cannot reach them all (AllThreadsSyscall).
const builtWithCgo = true
