package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"wireguard4netns/conf"
)

// file is a configuration that was read.
type file struct {
	config *conf.Config
	name   string // as messages call it
	path   string // absolute, without symbolic links; empty: not a regular file
	ifname string // what wg-quick would call the link
}

var errNoConf = errors.New("no such file or tunnel")

// configDirs are where a CONF that is a name is looked up.
func (env *Env) configDirs() []string {
	return []string{env.configDir(), "/etc/wireguard"}
}

func (env *Env) configDir() string {
	home := env.get("XDG_CONFIG_HOME")
	if home == "" {
		home = filepath.Join(env.get("HOME"), ".config")
	}
	return filepath.Join(home, "wireguard4netns")
}

// find returns the path that CONF means.
func (env *Env) find(name string) (string, error) {
	_, err := os.Stat(name)
	if err == nil || strings.Contains(name, "/") {
		return name, nil
	}
	closed := ""
	for _, dir := range env.configDirs() {
		path := filepath.Join(dir, name+".conf")
		_, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrPermission):
			closed = " (" + dir + " may not be read)" // as it should not, where root's keys are
		case !errors.Is(err, fs.ErrNotExist):
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w%s", name, errNoConf, closed)
}

// confNames lists what a CONF that is a name can be.
func (env *Env) confNames() (names []string) {
	for _, dir := range env.configDirs() {
		files, _ := filepath.Glob(filepath.Join(dir, "*.conf"))
		for _, f := range files {
			names = append(names, strings.TrimSuffix(filepath.Base(f), ".conf"))
		}
	}
	return names
}

// load reads the file that CONF means and says what its reader should know.
func (env *Env) load(name string, say func(string)) (*file, error) {
	path, err := env.find(name)
	if err != nil {
		return nil, err
	}
	// From here on there is a key in this process: no core file, no tracing.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, os.NewSyscallError("prctl", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: syscall.EISDIR}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxConf+1))
	if err != nil {
		return nil, err
	}
	config, warnings, err := conf.Parse(bytes.NewReader(text), path)
	if err != nil {
		return nil, err
	}
	for _, w := range warnings[:min(len(warnings), maxWarnings)] {
		say("warning: " + w.String())
	}
	if more := len(warnings) - maxWarnings; more > 0 {
		say(fmt.Sprintf("warning: %d more of %s", more, path))
	}
	r := &file{config: config, name: path}
	if info.Mode().IsRegular() {
		if mode := info.Mode().Perm(); mode&0o077 != 0 {
			say(fmt.Sprintf("warning: %s holds a private key and others may read it: chmod 600 %s", path, path))
		}
		if r.path, err = filepath.Abs(path); err != nil {
			return nil, err
		}
		if real, err := filepath.EvalSymlinks(r.path); err == nil {
			r.path = real
		}
	}
	r.ifname, err = conf.InterfaceName(path)
	if err != nil {
		r.ifname = "" // --ifname may say another
	}
	return r, nil
}

// maxWarnings is how many things of one file are told.
const maxWarnings = 20

// maxConf is more than conf.Parse takes, so that it is Parse that says so.
const maxConf = 2 << 20

// linkName decides the name of the link.
func (f *file) linkName(flag string) (string, error) {
	if flag != "" {
		if err := conf.CheckInterfaceName(flag); err != nil {
			return "", &usageError{err: err, hint: "an interface name has 1 to 15 of the characters a-z A-Z 0-9 _ = + . -"}
		}
		return flag, nil
	}
	if f.ifname == "" {
		_, err := conf.InterfaceName(f.name)
		return "", &usageError{err: err, hint: "name the link with --ifname, or rename the file"}
	}
	return f.ifname, nil
}
