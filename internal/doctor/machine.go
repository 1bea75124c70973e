package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/ns"
	"wireguard4netns/internal/ns/inside"
	"wireguard4netns/internal/state"
)

// Machine is what the checks look at. Its functions are probes, for tests that
// cannot make the machine itself so.
type Machine struct {
	Program   string // the file of this program
	StateRoot string // where the user's tunnels are
	Root      bool   // this user may do all

	Setting func(name string) (value string)  // a file below /proc/sys; empty if there is none
	Status  func(field string) (value string) // of this process, proc_pid_status(5)
	Release func() string                     // of the kernel
	Now     func() time.Time
	Create  func(context.Context) (*ns.Set, error) // namespaces, as run makes them

	// Try runs the role of Look in a tunnel that run makes with flags.
	Try func(ctx context.Context, flags ...string) (Inside, error)
}

// This is the machine we are on. look are the arguments with which this program
// becomes the role of Look.
func This(program, stateRoot string, environ, look []string) *Machine {
	if real, err := filepath.EvalSymlinks(program); err == nil {
		program = real
	}
	return &Machine{
		Program: program, StateRoot: stateRoot, Root: os.Getuid() == 0,
		Setting: setting, Status: status, Release: release, Now: time.Now, Create: create,
		Try: func(ctx context.Context, flags ...string) (Inside, error) { return try(ctx, environ, look, flags) },
	}
}

func setting(name string) string {
	text, _ := os.ReadFile("/proc/sys/" + name)
	return string(bytes.TrimSpace(text))
}

func status(field string) string {
	text, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); name == field {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func release() string {
	var u unix.Utsname
	unix.Uname(&u) // fails for a bad pointer only
	return unix.ByteSliceToString(u.Release[:])
}

func create(ctx context.Context) (*ns.Set, error) {
	s, _, err := ns.Create(ctx, inside.Config{UID: os.Getuid()})
	return s, err
}

// The first kernel that can close descriptors at exec by their range
// (CLOSE_RANGE_CLOEXEC), without which one could leak into an app.
const leastMajor, leastMinor = 5, 11

func (m *Machine) kernel(context.Context) Finding {
	var major, minor int
	if _, err := fmt.Sscanf(m.Release(), "%d.%d", &major, &minor); err != nil {
		return note(Advice{Do: fmt.Sprintf("at least Linux %d.%d is needed", leastMajor, leastMinor)}, "Linux %s: unknown kind of version", m.Release())
	}
	if major < leastMajor || major == leastMajor && minor < leastMinor {
		return fail(Advice{Do: fmt.Sprintf("use Linux %d.%d or later", leastMajor, leastMinor)}, "Linux %s", m.Release())
	}
	return ok("Linux %s", m.Release())
}

// clock: a peer answers an initiation only if its time (TAI64N) is later than
// that of the last one it had from the same key.
func (m *Machine) clock(context.Context) Finding {
	now := m.Now()
	if now.Year() < 2020 {
		return note(Advice{
			Why: "a peer refuses handshakes that are older than the last one it had",
			Do:  "set the clock: timedatectl set-ntp true, or date --set",
		}, "the clock says %s", now.Format(time.DateOnly))
	}
	return ok("%s", now.UTC().Format(time.RFC3339))
}

func (m *Machine) namespaces(ctx context.Context) Finding {
	s, err := m.Create(ctx)
	if err != nil {
		return m.failure(err)
	}
	s.Close()
	return ok("user, network and mount namespaces can be made")
}

// The least that a tunnel writes, in bytes: its log.
const roomForLog = 256 << 10

func (m *Machine) stateDirectory(context.Context) Finding {
	d, err := state.Claim(m.StateRoot, fmt.Sprintf("doctor-%d", os.Getpid()))
	if err != nil {
		return m.failure(err)
	}
	err = os.WriteFile(filepath.Join(d.Path(), "room"), make([]byte, roomForLog), 0o600)
	if err := errors.Join(err, d.Remove()); err != nil {
		return m.failure(err)
	}
	return ok("%s can be written to", m.StateRoot)
}
