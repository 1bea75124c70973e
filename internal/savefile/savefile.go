// Package savefile writes files that hold keys: whole or not at all, readable by
// their owner alone.
package savefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ErrChanged: the file is not what it was.
var ErrChanged = errors.New("changed meanwhile")

// Replace gives the file at path another text, if it still holds before; else it
// returns ErrChanged. A symbolic link stays, its target is replaced. The file then
// has mode 0600 and the owner that it had; it must be writable, and so must its
// directory. After an error the file is as it was, and nothing is left beside it.
func Replace(path string, before, text []byte) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	// Only the directory's mode counts for rename(2); what is marked as read-only
	// is meant to stay.
	old, err := os.OpenFile(real, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer old.Close()
	info, err := old.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return &fs.PathError{Op: "replace", Path: real, Err: errors.New("not a regular file")}
	}
	return write(real, text, func(aside *os.File) error {
		if err := keepOwner(aside, info); err != nil {
			return err
		}
		now, err := io.ReadAll(io.LimitReader(old, int64(len(before))+1))
		if err != nil {
			return err
		}
		if !bytes.Equal(now, before) {
			return fmt.Errorf("replace %s: %w", real, ErrChanged)
		}
		return nil
	})
}

// Write makes the file at path, or replaces what is there, with mode 0600.
func Write(path string, text []byte) error {
	return write(path, text, func(*os.File) error { return nil })
}

// write makes the file beside path and, when last agrees, renames it.
func write(path string, text []byte, last func(aside *os.File) error) (err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	aside, err := os.CreateTemp(dir.Name(), ".wireguard4netns-*") // mode 0600, O_EXCL
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(aside.Name())
		}
	}()
	_, err = aside.Write(text)
	if err == nil {
		err = aside.Sync()
	}
	if err == nil {
		err = last(aside)
	}
	if err = errors.Join(err, aside.Close()); err != nil {
		return err
	}
	if err := os.Rename(aside.Name(), path); err != nil {
		return err
	}
	dir.Sync() // the new text is there; a file system without this has done what it can
	return nil
}

// keepOwner matters where root replaces a user's file.
func keepOwner(aside *os.File, info fs.FileInfo) error {
	was := info.Sys().(*syscall.Stat_t)
	now, err := aside.Stat()
	if err != nil {
		return err
	}
	if is := now.Sys().(*syscall.Stat_t); is.Uid == was.Uid {
		return nil
	}
	return aside.Chown(int(was.Uid), int(was.Gid))
}
