package inside

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// hideDir covers the directory at path, if there is one, by an empty one.
func hideDir(path string) error {
	for _, target := range aliases(path) {
		info, err := os.Stat(target)
		if absent(err) || err == nil && !info.IsDir() {
			continue
		}
		if err != nil {
			return fmt.Errorf("hide %s: %w", path, errors.Unwrap(err))
		}
		if err := mount("tmpfs", target, sealed, "size=4k,nr_inodes=1,mode=555"); err != nil {
			return fmt.Errorf("hide %s: %w", path, err)
		}
	}
	return nil
}

// hideFile covers the regular file at path, if there is one, by empty.
func hideFile(path string, empty place) error {
	for _, target := range aliases(path) {
		info, err := os.Stat(target)
		if absent(err) || err == nil && !info.Mode().IsRegular() {
			continue
		}
		if err != nil {
			return fmt.Errorf("hide %s: %w", path, errors.Unwrap(err))
		}
		if err := bindReadOnly(empty.path(), target); err != nil {
			return fmt.Errorf("hide %s: %w", path, err)
		}
	}
	return nil
}

// aliases returns the names under which path is to be hidden: what it leads
// to and, below /etc, that in the host's directory too.
func aliases(path string) []string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	names := []string{path}
	if name, ok := strings.CutPrefix(path, "/etc/"); ok && !strings.HasPrefix(path, hostEtc+"/") {
		names = append(names, filepath.Join(hostEtc, name))
	}
	return names
}

// absent: there is nothing, or nothing that this user could reach.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
}
