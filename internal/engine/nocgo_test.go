//go:build !cgo

package engine

import "wireguard4netns/internal/sandbox"

// sealed is the tightest level that this build of the tests can have.
const sealed = sandbox.Strict
