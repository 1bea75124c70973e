package sys

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TUNFlags returns the flags that a TUN descriptor was opened with (TUNGETIFF):
// unix.IFF_VNET_HDR and others.
func TUNFlags(fd int) (uint16, error) {
	var req ifreq
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNGETIFF, uintptr(unsafe.Pointer(&req)))
	if errno != 0 {
		return 0, os.NewSyscallError("ioctl TUNGETIFF", errno)
	}
	return req.flags, nil
}

// SetTUNOffload tells the kernel which packets the reader of a TUN descriptor
// takes unfinished: unix.TUN_F_CSUM and others (TUNSETOFFLOAD).
func SetTUNOffload(fd int, offloads uint) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETOFFLOAD, uintptr(offloads))
	if errno != 0 {
		return os.NewSyscallError("ioctl TUNSETOFFLOAD", errno)
	}
	return nil
}
