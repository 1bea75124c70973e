// Package ns creates, joins and holds the namespaces of a tunnel.
//
// A namespace lives while a process is in it or a descriptor refers to it. The
// supervisor holds descriptors only: nothing of ours stays inside, and when the
// supervisor ends, by whatever cause, the kernel takes the namespaces back.
package ns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/sys"
)

// Errors that a caller can tell apart with errors.Is.
var (
	ErrUserNSDenied = errors.New("user namespaces are not allowed here")
	ErrUserNSLimit  = errors.New("the limit of user or network namespaces is reached")
	ErrNoTUN        = errors.New("no /dev/net/tun")
	ErrTUNDenied    = errors.New("/dev/net/tun may not be opened")
	ErrLinkExists   = errors.New("a link of this name exists there")
	ErrTargetGone   = errors.New("no such process")
	ErrTargetDenied = errors.New("the namespace belongs to another user")
	ErrNotNetNS     = errors.New("not a network namespace")
	ErrNotUserNS    = errors.New("not a user namespace")
)

// Set is the namespaces of one tunnel, held by descriptors that it owns.
type Set struct {
	User  *os.File // nil: the caller's own
	Net   *os.File
	Mount *os.File // nil where the namespaces are somebody else's
	Etc   *os.File // what inside.Rewrite takes; nil: /etc is not ours

	id     Identity // of Net, after Release
	holder holder
}

// Close lets go of the namespaces.
func (s *Set) Close() error {
	s.holder.end()
	var errs []error
	for _, f := range []**os.File{&s.User, &s.Net, &s.Mount, &s.Etc} {
		if *f != nil {
			errs = append(errs, (*f).Close())
			*f = nil
		}
	}
	return errors.Join(errs...)
}

// Release closes the descriptors and keeps what Members, WaitEmpty and KillAll
// need. A namespace opened by the path of a mount keeps that mount busy
// (umount(2)); what Interface made holds the network namespace as well.
func (s *Set) Release() (err error) {
	if s.id, err = s.NetIdentity(); err != nil {
		return err
	}
	return s.Close()
}

// Identity of a namespace: what the kernel compares.
type Identity struct{ Dev, Ino uint64 }

// NetIdentity returns the identity of the network namespace.
func (s *Set) NetIdentity() (Identity, error) {
	if s.Net == nil {
		return s.id, nil
	}
	return identityOf(s.Net)
}

func identityOf(f *os.File) (Identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Identity{}, &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return Identity{Dev: uint64(st.Dev), Ino: st.Ino}, nil
}

func identityAt(path string) (Identity, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Identity{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return Identity{Dev: uint64(st.Dev), Ino: st.Ino}, nil
}

// Interface makes a TUN device called name in the network namespace. It returns
// the device and a route-netlink socket of that namespace; both are the caller's.
func (s *Set) Interface(name string) (tun, netlink *os.File, err error) {
	userns := -1
	if s.User != nil {
		userns = int(s.User.Fd())
	}
	const flags = unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR
	tunFD, netlinkFD, err := sys.Join(userns, int(s.Net.Fd()), name, flags)
	if err != nil {
		return nil, nil, joinError(name, err)
	}
	return os.NewFile(uintptr(tunFD), "/dev/net/tun"), os.NewFile(uintptr(netlinkFD), "netlink"), nil
}

// joinError adds to a failed step of sys.Join what it means.
func joinError(name string, err error) error {
	var step *sys.StepError
	if !errors.As(err, &step) {
		return err
	}
	var meaning error
	switch {
	case step.Step == sys.StepOpenTUN && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO)):
		meaning = ErrNoTUN
	case step.Step == sys.StepOpenTUN && errors.Is(err, fs.ErrPermission):
		meaning = ErrTUNDenied
	case step.Step == sys.StepCreateTUN && (errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EINVAL)):
		return fmt.Errorf("create link %s: %w", name, ErrLinkExists) // the errno differs with its kind
	case (step.Step == sys.StepJoinUserNS || step.Step == sys.StepJoinNetNS) && errors.Is(err, fs.ErrPermission):
		meaning = ErrTargetDenied
	default:
		return err
	}
	return fmt.Errorf("%s: %w: %w", step.Step, meaning, step.Err)
}

// startError adds to a failed start of a process in new namespaces what it means.
func startError(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EUSERS):
		return fmt.Errorf("create namespaces: %w: %w", ErrUserNSLimit, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("create namespaces: %w: %w", ErrUserNSDenied, err)
	}
	return fmt.Errorf("create namespaces: %w", err)
}
