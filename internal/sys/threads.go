package sys

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Credentials belong to threads, and a Go process has several: these calls are
// made on each, which the runtime offers to programs without cgo only. With cgo
// they return ENOTSUP.

// SetName gives the calling thread, and on the main thread the process, the name
// that ps and pgrep know (PR_SET_NAME): 15 bytes at most. An exec of
// /proc/self/exe leaves "exe".
func SetName(name string) {
	b := append([]byte(name), 0)
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&b[0])), 0, 0, 0)
}

// PrctlAllThreads makes prctl(2) with one argument on each thread.
func PrctlAllThreads(option, argument uintptr) error {
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, option, argument, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// DropCapabilitiesAllThreads sets all capability sets of each thread to nothing;
// the ambient set follows (capabilities(7)).
func DropCapabilitiesAllThreads() error {
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET,
		uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(&none[0])), 0)
	runtime.KeepAlive(header)
	runtime.KeepAlive(&none)
	if errno != 0 {
		return errno
	}
	return nil
}
