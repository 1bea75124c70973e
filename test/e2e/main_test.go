// Package e2e_test looks at the program as a whole, from outside: namespaces
// that real programs made, peers that are not ours, the host's own traffic.
package e2e_test

import (
	"testing"

	"wireguard4netns/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }
