package sandbox

import (
	"errors"
	"fmt"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// restrictLandlock denies all that Landlock knows of at this kernel, up to the
// ABI that would deny UDP, too (10).
func restrictLandlock() error {
	if version, err := ll.LandlockGetABIVersion(); err != nil || version < 1 {
		return errors.Join(errors.New("not offered by the kernel"), err)
	}
	if err := landlock.V9.BestEffort().Restrict(); err != nil {
		return fmt.Errorf("restrict: %w", err)
	}
	return nil
}
