package sys

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// UserNSOf returns the user namespace that owns the namespace nsfd refers to
// (NS_GET_USERNS, ioctl_ns(2)).
func UserNSOf(nsfd int) (*os.File, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(nsfd), unix.NS_GET_USERNS, 0)
	if errno != 0 {
		return nil, os.NewSyscallError("ioctl NS_GET_USERNS", errno)
	}
	unix.CloseOnExec(int(fd))
	return os.NewFile(fd, "userns"), nil
}

// NSType returns the CLONE_NEW flag of the namespace that nsfd refers to, or an
// error when it refers to none (NS_GET_NSTYPE, ioctl_ns(2)).
func NSType(nsfd int) (int, error) {
	kind, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(nsfd), unix.NS_GET_NSTYPE, 0)
	if errno != 0 {
		return 0, os.NewSyscallError("ioctl NS_GET_NSTYPE", errno)
	}
	return int(kind), nil
}

// TUNName returns the name of the link that belongs to a TUN descriptor, in
// whatever network namespace it is (TUNGETIFF).
func TUNName(fd int) (string, error) {
	var req ifreq
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNGETIFF, uintptr(unsafe.Pointer(&req)))
	if errno != 0 {
		return "", os.NewSyscallError("ioctl TUNGETIFF", errno)
	}
	return unix.ByteSliceToString(req.name[:]), nil
}
