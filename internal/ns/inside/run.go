package inside

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// replaceRun puts an empty tmpfs over dir and brings back, from the directory
// beneath, what cfg keeps or exposes, and empty twins of what programs expect
// to be able to write: lock, and the runtime directory of the user. It is an
// allow list, not a list of sockets to hide, because a resolver's socket may
// be made at any time later.
//
// missed says what was to be kept and could not; of what was to be exposed
// that is an error.
func replaceRun(dir string, cfg Config) (missed []string, err error) {
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
		// A link leads to a directory that is replaced by its own name.
		return nil, nil
	}
	keep, expose := below(dir, cfg.Keep), below(dir, cfg.Expose)
	if slices.Contains(expose, ".") {
		return nil, nil
	}
	host, err := hold(dir)
	if err != nil {
		return nil, err
	}
	defer host.Close()
	if err := mount("tmpfs", dir, unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return nil, err
	}
	r := run{dir: dir, host: host.path()}
	if err := r.twins(cfg.UID); err != nil {
		return nil, err
	}
	for _, pattern := range keep {
		matches, err := filepath.Glob(filepath.Join(r.host, pattern))
		if err != nil {
			return nil, fmt.Errorf("keep %s: %w", pattern, err)
		}
		for _, match := range matches {
			if err := r.bringBack(strings.TrimPrefix(match, r.host+"/")); err != nil {
				missed = append(missed, err.Error())
			}
		}
	}
	for _, name := range expose {
		if err := r.bringBack(name); err != nil {
			return nil, err
		}
	}
	return missed, nil
}

// below returns those of paths that lie in dir, relative to it. The directory
// part of a path is resolved first, for /var/run where that is a link to /run.
func below(dir string, paths []string) []string {
	var names []string
	for _, path := range paths {
		parent := filepath.Dir(path)
		if real, err := filepath.EvalSymlinks(parent); err == nil {
			parent = real
		}
		name, err := filepath.Rel(dir, filepath.Join(parent, filepath.Base(path)))
		if err == nil && filepath.IsLocal(name) {
			names = append(names, name)
		}
	}
	return names
}

// A run is a directory being replaced: dir, and the host's beneath it.
type run struct{ dir, host string }

func (r run) twins(uid int) error {
	twins := []struct {
		name string
		mode fs.FileMode
	}{
		{"lock", 0o777 | fs.ModeSticky},
		{fmt.Sprintf("user/%d", uid), 0o700},
	}
	for _, twin := range twins {
		if info, err := os.Stat(filepath.Join(r.host, twin.name)); err != nil || !info.IsDir() {
			continue
		}
		path := filepath.Join(r.dir, twin.name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(path, twin.mode); err != nil {
			return err
		}
	}
	return nil
}

// bringBack shows what the host has under name: a link as a link, and what it
// leads to in the same directory with it; all else by a bind mount.
func (r run) bringBack(name string) error {
	source, target := filepath.Join(r.host, name), filepath.Join(r.dir, name)
	info, err := os.Lstat(source)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("keep %s: %w", target, errors.Unwrap(err))
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	switch {
	case info.Mode().Type() == fs.ModeSymlink:
		return r.copyLink(source, target)
	case info.IsDir():
		err = os.MkdirAll(target, 0o755)
	default:
		err = newFile(target)
	}
	if errors.Is(err, fs.ErrExist) {
		// Kept as well as exposed, or in a directory that is. It is the host's
		// own, not to be opened.
		return nil
	}
	if err != nil {
		return err
	}
	return bind(source, target)
}

func newFile(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return file.Close()
}

func (r run) copyLink(source, target string) error {
	text, err := os.Readlink(source)
	if err != nil {
		return err
	}
	if err := os.Symlink(text, target); err != nil {
		// Exposed and kept, or a ring of links: it is there already.
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	leadsTo := text
	if !filepath.IsAbs(text) {
		leadsTo = filepath.Join(filepath.Dir(target), text)
	}
	if name, err := filepath.Rel(r.dir, leadsTo); err == nil && filepath.IsLocal(name) && name != "." {
		return r.bringBack(name)
	}
	return nil
}
