// Package sandbox is what a process gives up.
//
// The engine holds the keys and reads what the whole internet may send. It
// needs two descriptors that it was given, and UDP sockets. So it is made in
// namespaces of its own (Namespace, by its parent), opens its TUN device, and
// then gives up the rest in this order (Engine), each layer while the next can
// still be put on:
//
//	namespaces    user, mount, pid, ipc, uts, cgroup; the host's network is kept
//	empty root    pivot_root into a tmpfs without room for a file
//	capabilities  none, and none to be had again, no_new_privs
//	landlock      no file, no TCP, no abstract socket, no signal to others
//	seccomp       an allow-list of system calls (syscalls.go); any other kills
//
// Not each machine allows each layer. What happens then is for the user to
// say, as a Level, and for Degrade to decide.
package sandbox

import (
	"errors"
	"fmt"
)

// Level is how much sandbox is asked for.
type Level int

const (
	Auto   Level = iota // each layer that the machine allows; what is missing is told
	Strict              // every layer, or an error
	None                // no layer
)

var levelNames = []string{Auto: "auto", Strict: "strict", None: "none"}

func (l Level) String() string { return levelNames[l] }

// MarshalText and UnmarshalText make a Level a flag's value.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

func (l *Level) UnmarshalText(text []byte) error {
	for level, name := range levelNames {
		if name == string(text) {
			*l = Level(level)
			return nil
		}
	}
	return fmt.Errorf("parse sandbox level %q: want auto, strict or none", text)
}

// Layer is a part of the sandbox.
type Layer string

const (
	Namespaces   Layer = "namespaces"
	EmptyRoot    Layer = "empty root"
	Capabilities Layer = "capabilities"
	Landlock     Layer = "landlock"
	Seccomp      Layer = "seccomp"
)

var layers = []Layer{Namespaces, EmptyRoot, Capabilities, Landlock, Seccomp}

// Missing tells of layers that could not be put on, and why.
type Missing map[Layer]error

// Degrade decides what a process does without the missing layers: it goes on,
// with a note of each for the log, or not at all.
func Degrade(level Level, missing Missing) (notes []string, err error) {
	var errs []error
	for _, layer := range layers {
		cause, ok := missing[layer]
		if !ok || level == None {
			continue
		}
		notes = append(notes, fmt.Sprintf("sandbox: without %s: %v", layer, cause))
		errs = append(errs, fmt.Errorf("%s: %w", layer, cause))
	}
	if level == Strict && len(errs) > 0 {
		return nil, fmt.Errorf("close sandbox: %w", errors.Join(errs...))
	}
	return notes, nil
}

// Engine closes the calling process in, all its threads, for good. Missing is
// what its parent could not do for it. It returns what Degrade does.
//
// Afterwards the process has what it has open, and what syscalls.go allows.
func Engine(level Level, missing Missing) (notes []string, err error) {
	if level == None {
		return nil, nil
	}
	lacking := Missing{}
	for layer, cause := range missing {
		lacking[layer] = cause
	}
	if cause, ok := lacking[Namespaces]; ok {
		lacking[EmptyRoot] = fmt.Errorf("no mount namespace: %w", cause)
	}
	if builtWithCgo {
		for _, layer := range []Layer{Capabilities, Landlock, Seccomp} {
			lacking[layer] = errors.New("built with cgo, want CGO_ENABLED=0")
		}
	}
	for _, step := range []struct {
		layer Layer
		do    func() error
	}{
		{EmptyRoot, emptyRoot},
		{Capabilities, dropCapabilities},
		{Landlock, restrictLandlock},
		{Seccomp, filterSystemCalls},
	} {
		if _, ok := lacking[step.layer]; ok {
			continue
		}
		if err := step.do(); err != nil {
			lacking[step.layer] = err
		}
	}
	return Degrade(level, lacking)
}
