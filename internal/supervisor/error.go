package supervisor

import (
	"errors"
	"syscall"

	"wireguard4netns/internal/host"
	"wireguard4netns/internal/ns"
	"wireguard4netns/internal/plan"
	"wireguard4netns/internal/state"
	"wireguard4netns/internal/tunnel"
)

// known are the errors that keep their identity on the way from the supervisor,
// so that errors.Is works on both sides. The order is part of the protocol
// between two processes of one binary, and of nothing else.
var known = []error{
	ns.ErrUserNSDenied, ns.ErrUserNSLimit, ns.ErrNoTUN, ns.ErrTUNDenied, ns.ErrLinkExists,
	ns.ErrTargetGone, ns.ErrTargetDenied, ns.ErrNotNetNS, ns.ErrNotUserNS,
	state.ErrInUse, state.ErrBadName, state.ErrUnsafe,
	host.ErrUnresolved, plan.ErrNoAddress, plan.ErrNotServer,
	tunnel.ErrNoHandshake, tunnel.ErrPortInUse, tunnel.ErrNotKept, ErrNotOurs, ErrNotHeld, ErrFormat,
	syscall.ENOSPC, syscall.EDQUOT, syscall.EADDRINUSE, syscall.EACCES, syscall.EPERM, syscall.ENOENT,
	syscall.EMFILE, syscall.EAGAIN, syscall.EEXIST, ErrEnding, ErrSettings,
}

// remoteError is an error of the supervisor as it reaches the front.
type remoteError struct {
	Text  string
	Kinds []int `json:",omitempty"` // indices of known
}

func newRemoteError(err error) *remoteError {
	r := &remoteError{Text: err.Error()}
	for i, k := range known {
		if errors.Is(err, k) {
			r.Kinds = append(r.Kinds, i)
		}
	}
	return r
}

func (r *remoteError) Error() string { return r.Text }

// Unwrap gives back the errors that the original was.
func (r *remoteError) Unwrap() []error {
	var list []error
	for _, i := range r.Kinds {
		if i >= 0 && i < len(known) {
			list = append(list, known[i])
		}
	}
	return list
}
