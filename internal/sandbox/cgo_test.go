//go:build cgo

package sandbox

import (
	"strings"
	"testing"
)

// The rest of the tests is for builds without cgo: nothing can be said to be
// sealed with it, and that is said.
func TestWithCgoNothingIsCalledSealed(t *testing.T) {
	if _, err := Engine(Strict, Missing{EmptyRoot: nil}); err == nil || !strings.Contains(err.Error(), "seccomp: built with cgo") {
		t.Errorf("strict: %v, want an error that names cgo", err)
	}
}
