package sandbox

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/sys"
)

// securebits, all locked: root is nothing special, changing ids keeps nothing,
// and no ambient capability can be raised (capabilities(7)).
const securebits = 1<<0 | 1<<1 | // SECBIT_NOROOT
	1<<2 | 1<<3 | // SECBIT_NO_SETUID_FIXUP
	1<<5 | // SECBIT_KEEP_CAPS stays off
	1<<6 | 1<<7 // SECBIT_NO_CAP_AMBIENT_RAISE

// dropCapabilities leaves no thread of the process with a capability, nor with
// a way to one.
func dropCapabilities() error {
	if err := sys.PrctlAllThreads(unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	// Without CAP_SETPCAP (no namespaces, ordinary user) these two are
	// refused, and no_new_privs has to do: it makes exec gain nothing.
	lockErr := lockCapabilities()
	if err := sys.DropCapabilitiesAllThreads(); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if lockErr != nil && !errors.Is(lockErr, unix.EPERM) {
		return lockErr
	}
	return nil
}

func lockCapabilities() error {
	if err := sys.PrctlAllThreads(unix.PR_SET_SECUREBITS, securebits); err != nil {
		return fmt.Errorf("lock securebits: %w", err)
	}
	for capability := uintptr(0); ; capability++ {
		err := sys.PrctlAllThreads(unix.PR_CAPBSET_DROP, capability)
		if errors.Is(err, unix.EINVAL) && capability > unix.CAP_SETPCAP {
			return nil // past the kernel's last
		}
		if err != nil {
			return fmt.Errorf("drop capability %d from bounding set: %w", capability, err)
		}
	}
}
