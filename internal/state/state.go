// Package state keeps the directory of a tunnel: the sockets, the log and the
// facts that other processes of the same user may read.
//
//	ROOT/            0700, one per user
//	  NAME/          a tunnel, from Publish to Remove
//	    lock         flock(2)ed by the supervisor as long as it lives
//	    LINK.sock    a socket, or a symbolic link to one that lies elsewhere
//	  .NAME/         the same tunnel before Publish: nobody looks there
//
// Whoever holds the lock owns the directory. A directory whose lock is free
// belongs to a supervisor that was killed, and the next Claim takes it away.
package state

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Errors that a caller can tell apart with errors.Is.
var (
	ErrInUse   = errors.New("a tunnel of this name exists")
	ErrBadName = errors.New("not a tunnel name: letters, digits and _=+.- only, 64 at most, no leading dot")
	ErrUnsafe  = errors.New("not a private directory of this user")
)

var (
	// errRemoved: what was there a moment ago is not any more.
	errRemoved = errors.New("removed meanwhile")
	// errStarting: one that is not visible yet.
	errStarting = fmt.Errorf("%w, or is about to", ErrInUse)
)

const (
	lockFile = "lock" // sticky: systemd-tmpfiles(8) removes no such file, however old
	hidden   = "."
)

var nameRule = regexp.MustCompile(`^[a-zA-Z0-9_=+-][a-zA-Z0-9_=+.-]{0,63}$`)

// IsName tells whether a tunnel can have this name.
func IsName(name string) bool { return nameRule.MatchString(name) }

// Owner returns the number of the process that made the tunnel called name, for
// people.
func Owner(root, name string) string { return owner(filepath.Join(root, name)) }

// A Dir is the directory of one tunnel, claimed by this process.
type Dir struct {
	root, name string
	lock       *os.File

	moving    sync.Mutex // held while the directory gets its name
	published bool       // under moving
}

// Claim takes the name of a tunnel below root and makes its directory, not yet
// visible. It also takes away what killed supervisors left below root. While another
// process has the name and is not visible yet, it waits a moment: who asked for that
// tunnel may have been killed, and then it goes.
func Claim(root, name string) (*Dir, error) {
	if !nameRule.MatchString(name) {
		return nil, fmt.Errorf("claim tunnel %q: %w", name, ErrBadName)
	}
	for until := time.Now().Add(endTime); ; time.Sleep(pollTime) {
		d, err := claimNow(root, name)
		if err == nil {
			return d, nil
		}
		err = fmt.Errorf("claim tunnel %s: %w", name, err)
		if !errors.Is(err, errStarting) || time.Now().After(until) {
			return nil, err
		}
	}
}

func claimNow(root, name string) (_ *Dir, err error) {
	gate, err := enter(root)
	if err != nil {
		return nil, err
	}
	defer gate.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, dropRoot(root))
		}
	}()
	if err := sweep(root); err != nil {
		return nil, err
	}
	for _, c := range []struct {
		taken string
		err   error
	}{{name, ErrInUse}, {hidden + name, errStarting}} {
		path := filepath.Join(root, c.taken)
		if _, err := os.Lstat(path); err == nil && !awaitEnd(path) {
			return nil, fmt.Errorf("%w: process %s has it", c.err, owner(path))
		}
	}
	d := &Dir{root: root, name: name}
	if err := d.make(); err != nil {
		os.RemoveAll(d.Path())
		if d.lock != nil {
			d.lock.Close()
		}
		return nil, err
	}
	return d, nil
}

// Adopt returns the directory of a tunnel that stands, from its Lock in the process
// that had it before. It owns lock.
func Adopt(root, name string, lock *os.File) *Dir {
	return &Dir{root: root, name: name, lock: lock, published: true}
}

// Lock returns the file by which this process owns the directory, and whoever it
// is handed to; it stays d's.
func (d *Dir) Lock() *os.File { return d.lock }

func (d *Dir) make() error {
	if err := os.Mkdir(d.Path(), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(d.Path(), lockFile), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600|os.ModeSticky)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return os.NewSyscallError("flock", err)
	}
	d.lock = f
	// For people, and for the error of who comes second.
	_, err = fmt.Fprintln(f, os.Getpid())
	return err
}

// A supervisor that was killed a moment ago is waited for: soonTime until it has
// begun to end, and endTime for the kernel, which takes its time to remove a link.
const (
	soonTime = 50 * time.Millisecond
	endTime  = 2 * time.Second
	pollTime = 10 * time.Millisecond
)

// awaitEnd takes away the directory of a supervisor that is about to be gone, and
// tells whether it was one.
func awaitEnd(path string) bool {
	pid, err := strconv.Atoi(owner(path))
	if err != nil {
		return false
	}
	if fd, err := unix.PidfdOpen(pid, 0); err == nil {
		defer unix.Close(fd)
		wait := func(d time.Duration) {
			unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(d.Milliseconds()))
		}
		if wait(soonTime); !ending(pid) {
			return false
		}
		wait(endTime)
	}
	return abandoned(path) && errors.Join(removeOutside(path), os.RemoveAll(path)) == nil
}

// ending tells whether a process has begun to exit (PF_EXITING, linux/sched.h) or has
// ended: its descriptors may be open a little longer.
func ending(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	// After the name, which may hold anything: state, and six fields on the flags.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 7 {
		return true
	}
	flags, _ := strconv.ParseUint(fields[6], 10, 64)
	return fields[0] == "Z" || fields[0] == "X" || flags&pfExiting != 0
}

const pfExiting = 0x4

// Name returns the name of the tunnel.
func (d *Dir) Name() string { return d.name }

// Path returns where the directory is now; Publish changes it.
func (d *Dir) Path() string {
	d.moving.Lock()
	defer d.moving.Unlock()
	return d.path()
}

func (d *Dir) path() string {
	if d.published {
		return filepath.Join(d.root, d.name)
	}
	return filepath.Join(d.root, hidden+d.name)
}

// PublishedPath returns where the directory is from Publish on.
func (d *Dir) PublishedPath() string { return filepath.Join(d.root, d.name) }

// Publish makes the tunnel visible, all of it at once.
func (d *Dir) Publish() error {
	d.moving.Lock()
	defer d.moving.Unlock()
	if err := os.Rename(d.path(), filepath.Join(d.root, d.name)); err != nil {
		return fmt.Errorf("publish tunnel %s: %w", d.name, err)
	}
	d.published = true
	return nil
}

// Remove takes the directory away and lets go of the name.
func (d *Dir) Remove() error {
	gate, err := lock(d.root)
	if err != nil {
		return err
	}
	defer gate.Close()
	err = os.RemoveAll(d.Path())
	return errors.Join(err, d.lock.Close(), dropRoot(d.root))
}

// List returns the names of the tunnels below root that stand, in their order.
func List(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && nameRule.MatchString(e.Name()) && !abandoned(filepath.Join(root, e.Name())) {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// RemoveStale takes away what killed supervisors left below root.
func RemoveStale(root string) error {
	gate, err := lock(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer gate.Close()
	return errors.Join(sweep(root), dropRoot(root))
}

// enter makes root if need be and waits for its lock: the one gate for all that
// makes or removes directories in it.
func enter(root string) (gate *os.File, err error) {
	for {
		// The end of the last tunnel may remove root between any two of these.
		switch err = makeRoot(root); err {
		case errRemoved:
			continue
		case nil:
			gate, err = lock(root)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
		}
		return gate, err
	}
}

// makeRoot makes root, or checks that the one there is this user's alone: in
// /tmp somebody else may have been first.
func makeRoot(root string) error {
	err := os.Mkdir(root, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(root), 0o700); err == nil {
			err = os.Mkdir(root, 0o700)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(root, &st); err == unix.ENOENT {
		return errRemoved
	} else if err != nil {
		return &fs.PathError{Op: "stat", Path: root, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Getuid() || st.Mode&0o077 != 0 {
		return fmt.Errorf("%s: %w", root, ErrUnsafe)
	}
	return nil
}

// dropRoot removes root when the last tunnel is gone.
func dropRoot(root string) error {
	if err := os.Remove(root); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EBUSY) {
		return err
	}
	return nil
}

// lock waits for the lock on a directory itself.
func lock(dir string) (*os.File, error) {
	for {
		f, err := os.Open(dir)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			f.Close()
			return nil, os.NewSyscallError("flock", err)
		}
		// It may have been removed and made again while we waited.
		held, err1 := f.Stat()
		now, err2 := os.Stat(dir)
		if err1 == nil && err2 == nil && os.SameFile(held, now) {
			return f, nil
		}
		f.Close()
		if err2 != nil {
			return nil, err2
		}
	}
}

// sweep removes the directories below root whose lock nobody holds any more.
func sweep(root string) error {
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(root, e.Name())
		if e.IsDir() && nameRule.MatchString(strings.TrimPrefix(e.Name(), hidden)) && over(path) {
			if err := errors.Join(removeOutside(path), os.RemoveAll(path)); err != nil {
				return err
			}
		}
	}
	return nil
}

// over is abandoned, a moment later if who holds the lock has begun to end: a killed
// supervisor's sockets are closed, and its commands answered, before its lock is let go.
func over(path string) bool {
	if abandoned(path) {
		return true
	}
	pid, err := strconv.Atoi(owner(path))
	if err != nil || !ending(pid) {
		return false
	}
	if fd, err := unix.PidfdOpen(pid, 0); err == nil {
		unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(endTime.Milliseconds()))
		unix.Close(fd)
	}
	return abandoned(path)
}

// removeOutside removes the sockets that links in a tunnel's directory lead to,
// if nobody listens there: another tunnel may have taken the name.
func removeOutside(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // published meanwhile, under another name
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		socket, err := os.Readlink(filepath.Join(path, e.Name()))
		if err != nil || !silent(socket) {
			continue
		}
		if err := os.Remove(socket); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// listening tells whether there is a socket in a directory that is not silent.
func listening(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	for _, e := range entries {
		if e.Type() == fs.ModeSocket && !silent(filepath.Join(dir, e.Name())) {
			return true
		}
	}
	return false
}

// silent tells whether path is a socket on which nobody listens.
func silent(path string) bool {
	// Of another file connect(2) says the same.
	if info, err := os.Lstat(path); err != nil || info.Mode().Type() != fs.ModeSocket {
		return false
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: path}) == unix.ECONNREFUSED
}

// owner returns the number of the process that made a tunnel's directory.
func owner(path string) string {
	text, err := os.ReadFile(filepath.Join(path, lockFile))
	if err != nil || len(text) == 0 {
		return "(unknown)"
	}
	return strings.TrimSpace(string(text))
}

// abandoned tells whether no process holds the lock in a tunnel's directory. Where
// somebody has removed the lock, a socket on which a process listens says the same.
func abandoned(path string) bool {
	f, err := os.Open(filepath.Join(path, lockFile))
	if errors.Is(err, fs.ErrNotExist) {
		return !listening(path)
	}
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}
