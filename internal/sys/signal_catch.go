//go:build amd64 || arm64

package sys

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Package os/signal does not tell who sent a signal, and signalfd(2) needs it
// blocked in all threads, which the Go runtime undoes for some (SIGINT, SIGTERM)
// in each thread it makes. So there is a signal handler of our own: it writes the
// siginfo_t that it is given to a pipe, whatever thread it runs on.

// signalPipe is where catchSignal writes.
//
//lint:ignore U1000 it is used in signal_*.s
var signalPipe int32

// catchSignalPC is the address of the handler, restoreSignalPC that of what it
// returns to; both are in signal_*.s.
var catchSignalPC, restoreSignalPC uintptr

// siginfo is siginfo_t of sigaction(2), as far as it is used.
type siginfo struct {
	number, errno, code int32
	_                   int32
	pid                 int32
	_                   [108]byte
}

// sigactiont is the kernel's struct sigaction.
type sigactiont struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// Of asm-generic/signal-defs.h and siginfo.h.
const (
	saSiginfo  = 0x4
	saRestorer = 0x04000000
	saOnStack  = 0x08000000
	saRestart  = 0x10000000
	sigIgn     = 1
	siUser     = 0 // by kill(2)
)

// CatchSignals has what comes in of the signals sent to the channel it returns,
// from now on and for as long as the process lives, but for those that are
// ignored. A child has the default for them after exec. Package os/signal must
// not be used for the same signals.
func CatchSignals(signals []unix.Signal) (<-chan Signal, error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	signalPipe = int32(pipe[1])
	action := sigactiont{
		handler: catchSignalPC, restorer: restoreSignalPC, mask: ^uint64(0),
		flags: saSiginfo | saOnStack | saRestart,
	}
	if restoreSignalPC != 0 {
		action.flags |= saRestorer
	}
	for _, s := range signals {
		if err := setAction(s, &action); err != nil {
			return nil, err
		}
	}
	caught := make(chan Signal)
	go readSignals(os.NewFile(uintptr(pipe[0]), "signals"), caught)
	return caught, nil
}

// ResetSignals gives the signals that are not ignored their default effect, to the
// next exec: the runtime's handlers may take one on a thread that the exec ends
// before it acts on it.
func ResetSignals(signals []unix.Signal) error {
	for _, s := range signals {
		if err := setAction(s, new(sigactiont)); err != nil {
			return err
		}
	}
	return nil
}

// setAction sets what is done at a signal that is not ignored.
func setAction(s unix.Signal, action *sigactiont) error {
	var old sigactiont
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), 0, uintptr(unsafe.Pointer(&old)), unsafe.Sizeof(old.mask), 0, 0)
	if errno == 0 && old.handler != sigIgn {
		_, _, errno = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(action)), 0, unsafe.Sizeof(old.mask), 0, 0)
	}
	if errno != 0 {
		return os.NewSyscallError("rt_sigaction", errno)
	}
	return nil
}

func readSignals(pipe *os.File, caught chan<- Signal) {
	var info siginfo
	buf := unsafe.Slice((*byte)(unsafe.Pointer(&info)), unsafe.Sizeof(info))
	self := int32(os.Getpid())
	for {
		// The handler writes less than PIPE_BUF: it comes in one piece, pipe(7).
		if n, err := pipe.Read(buf); err != nil || n != len(buf) {
			close(caught)
			return
		}
		if info.code == siUser && info.pid == self {
			continue // a write of our own to a closed pipe (SIGPIPE)
		}
		caught <- Signal{Number: unix.Signal(info.number), Kernel: info.code > 0}
	}
}
