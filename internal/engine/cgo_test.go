//go:build cgo

package engine

import "wireguard4netns/internal/sandbox"

// sealed: the race detector needs cgo, which most layers do not go with.
const sealed = sandbox.Auto
