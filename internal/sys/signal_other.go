//go:build !amd64 && !arm64

package sys

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// CatchSignals has what comes in of the signals sent to the channel it returns,
// from now on and for as long as the process lives, but for those that are
// ignored, as far as package os/signal knows them. Here it is not known who sent
// a signal: one that comes while the process is in the foreground of its terminal
// is taken for a key.
func CatchSignals(signals []unix.Signal) (<-chan Signal, error) {
	notified := make(chan os.Signal, 64)
	for _, s := range signals {
		if !signal.Ignored(s) {
			signal.Notify(notified, s)
		}
	}
	caught := make(chan Signal)
	go func() {
		for s := range notified {
			caught <- Signal{Number: s.(unix.Signal), Kernel: s != unix.SIGTERM && foreground()}
		}
	}()
	return caught, nil
}

// ResetSignals does nothing here.
func ResetSignals([]unix.Signal) error { return nil }

func foreground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
