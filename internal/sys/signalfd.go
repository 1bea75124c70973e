package sys

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Signal is one that was read from a signalfd(2).
type Signal struct {
	Number unix.Signal
	Kernel bool // sent by the kernel (a key on the terminal, a hang-up), not by kill(2)
}

func sigset(signals []unix.Signal) *unix.Sigset_t {
	set := new(unix.Sigset_t)
	bits := (*uint64)(unsafe.Pointer(set)) // the kernel's set; the rest is libc's
	for _, s := range signals {
		*bits |= 1 << (uint(s) - 1)
	}
	return set
}

// BlockSignals blocks signals in the calling thread. An exec from it starts the
// next program with them blocked.
func BlockSignals(signals []unix.Signal) error {
	return os.NewSyscallError("rt_sigprocmask", unix.PthreadSigmask(unix.SIG_BLOCK, sigset(signals), nil))
}

// SignalFD returns a descriptor on which signals arrive that are blocked.
func SignalFD(signals []unix.Signal) (int, error) {
	fd, err := unix.Signalfd(-1, sigset(signals), unix.SFD_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("signalfd", err)
	}
	return fd, nil
}

// ReadSignal waits for the next signal on a signalfd.
func ReadSignal(fd int) (Signal, error) {
	var info unix.SignalfdSiginfo
	buf := unsafe.Slice((*byte)(unsafe.Pointer(&info)), unsafe.Sizeof(info))
	for {
		_, err := unix.Read(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return Signal{}, os.NewSyscallError("read signalfd", err)
		}
		return Signal{Number: unix.Signal(info.Signo), Kernel: info.Code > 0}, nil
	}
}
