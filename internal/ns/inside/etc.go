package inside

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// How /etc gets files of our own.
//
// A bind mount over /etc/resolv.conf does not last: when the host puts another
// file there by rename(2), as NetworkManager and systemd-resolved do, the
// kernel drops the mount and the host's new file shows. So the whole directory
// is replaced:
//
//	/etc          overlay: layer over the host's /etc, read-only
//	/etc/.host    the host's /etc, bound here, read-only
//	beneath       scratch, a tmpfs: layer/ (our files, and the link
//	              hosts → .host/hosts), and empty, to hide files with. It is
//	              out of the app's reach; the supervisor holds layer/ and may
//	              write our files anew (Rewrite)
//
// The overlay needs Linux 5.11 and no mount below the host's /etc. Containers
// have some (hosts, hostname), and then, as wherever the overlay is refused,
//
//	/etc          layer, with a link NAME → .host/NAME for each other file of
//	              the host, or a copy of it where it is a link itself
//	/etc/.host    as above; with the mounts below it
//
// What the app sees of the host's later changes: hosts always as it is now. Of
// the other files what is written into them; of one replaced by rename, or made
// anew, with the overlay perhaps the old state (the kernel keeps what was looked
// up once), and with links only what is replaced, not what is new. Nothing that
// the host does changes our own files.

const hostEtc = "/etc/.host"

// A scratch is a tmpfs mounted over /etc, to lie beneath the new one.
type scratch struct {
	host  place // the host's /etc
	clone place // the same with the mounts below it, not yet mounted anywhere
	layer place
	empty place
}

func newScratch(files map[string][]byte) (*scratch, error) {
	s := new(scratch)
	if err := s.make(files); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *scratch) make(files map[string][]byte) (err error) {
	if s.host, err = hold("/etc"); err != nil {
		return err
	}
	// Taken before anything lies over /etc: it would be in the copy.
	if s.clone, err = cloneTree("/etc"); err != nil {
		return err
	}
	if err := mount("tmpfs", "/etc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755"); err != nil {
		return err
	}
	if err := writeLayer("/etc/layer", files); err != nil {
		return err
	}
	if s.layer, err = hold("/etc/layer"); err != nil {
		return err
	}
	if err := os.WriteFile("/etc/empty", nil, 0o444); err != nil {
		return err
	}
	s.empty, err = hold("/etc/empty")
	return err
}

// takeLayer leaves the layer to the caller.
func (s *scratch) takeLayer() *os.File {
	layer := s.layer.File
	s.layer = place{}
	return layer
}

func (s *scratch) close() {
	for _, p := range []place{s.host, s.clone, s.layer, s.empty} {
		_ = p.Close()
	}
}

func writeLayer(dir string, files map[string][]byte) error {
	if err := os.MkdirAll(filepath.Join(dir, filepath.Base(hostEtc)), 0o755); err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), content, 0o644); err != nil {
			return err
		}
	}
	if _, ours := files["hosts"]; ours {
		return nil
	}
	return os.Symlink(filepath.Base(hostEtc)+"/hosts", filepath.Join(dir, "hosts"))
}

// replaceEtc covers the scratch: with an /etc that has files, as an overlay or,
// failing that, by links; without files, with the host's own again.
func (s *scratch) replaceEtc(files map[string][]byte) error {
	if files == nil {
		return s.clone.attach("/etc")
	}
	if err := s.overlay(); err != nil {
		if errLinks := s.link(); errLinks != nil {
			return errors.Join(errLinks, err)
		}
	}
	if err := s.clone.attach(hostEtc); err != nil {
		return err
	}
	return remountReadOnly(hostEtc)
}

func (s *scratch) overlay() error {
	layers := fmt.Sprintf("lowerdir=%s:%s,userxattr", s.layer.path(), s.host.path())
	return mount("overlay", "/etc", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, layers)
}

func (s *scratch) link() error {
	entries, err := os.ReadDir(s.host.path())
	if err != nil {
		return fmt.Errorf("read the host's /etc: %w", err)
	}
	for _, entry := range entries {
		link := filepath.Join(s.layer.path(), entry.Name())
		target := filepath.Join(filepath.Base(hostEtc), entry.Name())
		if entry.Type() == fs.ModeSymlink {
			// The text itself, so that readlink(1) of localtime or mtab says
			// what it says outside.
			if target, err = os.Readlink(filepath.Join(s.host.path(), entry.Name())); err != nil {
				continue // gone meanwhile
			}
		}
		if err := os.Symlink(target, link); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return bindReadOnly(s.layer.path(), "/etc")
}

// Rewrite writes files of our own anew, in the layer that Prepare returned; all
// who see that /etc see it at once. A file that was not there before cannot
// come. Each has its old content, then a mixture for a moment, then the new.
func Rewrite(layer *os.File, files map[string][]byte) error {
	for name, content := range files {
		if err := rewrite(layer, name, content); err != nil {
			return fmt.Errorf("rewrite /etc/%s inside: %w", name, err)
		}
	}
	return nil
}

func rewrite(layer *os.File, name string, content []byte) error {
	fd, err := unix.Openat(int(layer.Fd()), name, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(content)
	if err == nil {
		err = f.Truncate(int64(len(content)))
	}
	return errors.Join(err, f.Close())
}
