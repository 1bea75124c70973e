package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"wireguard4netns/internal/monitor"
)

// A screen draws lines on the whole terminal and reads its keys.
//
// bubbletea, the library for this, is not used: from its init on, thus in each
// process of this program, it asks the terminal for its background colour, waits
// for the answer for up to five seconds and takes away what was typed meanwhile.
type screen struct {
	tty     *os.File
	fd      int
	before  *term.State // of the terminal, when it was opened
	drawn   []string    // what is on it; nil: unknown
	keys    chan monitor.Key
	signals chan os.Signal // the size is another, or the process goes on
	read    sync.WaitGroup
	over    chan struct{}
}

// Escape sequences (console_codes(4); 1049: xterm's alternate screen).
const (
	alternateOn  = "\x1b[?1049h"
	alternateOff = "\x1b[?1049l"
	cursorHidden = "\x1b[?25l"
	cursorShown  = "\x1b[?25h"
	plainText    = "\x1b[m"
	clearScreen  = "\x1b[H\x1b[2J"
	clearLine    = "\x1b[K"
)

// escapeTime is how long the rest of a key's sequence may take; Esc alone has none.
const escapeTime = 50 * time.Millisecond

// openScreen takes the terminal of the process. /dev/tty, for an open file of our
// own can be read without blocking, and standard input may be something else.
func openScreen() (*screen, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	s := &screen{tty: tty, keys: make(chan monitor.Key), signals: make(chan os.Signal, 8), over: make(chan struct{})}
	raw, err := tty.SyscallConn() // Fd would make it block
	if err == nil {
		err = raw.Control(func(fd uintptr) { s.fd = int(fd) })
	}
	if err == nil {
		s.before, err = term.GetState(s.fd)
	}
	if err == nil {
		signal.Notify(s.signals, unix.SIGWINCH, unix.SIGCONT)
		err = s.enter()
	}
	if err != nil {
		tty.Close()
		return nil, fmt.Errorf("open terminal: %w", err)
	}
	s.read.Go(s.readKeys)
	return s, nil
}

// enter makes the terminal ours.
func (s *screen) enter() error {
	_, err := s.tty.WriteString(alternateOn + cursorHidden)
	return errors.Join(err, s.renew())
}

// renew draws all at the next time: the size may be another, or a shell may have
// had the terminal while the process was stopped.
func (s *screen) renew() error {
	s.drawn = nil
	_, err := term.MakeRaw(s.fd)
	return err
}

// leave makes it what it was.
func (s *screen) leave() error {
	_, err := s.tty.WriteString(plainText + cursorShown + alternateOff)
	return errors.Join(err, term.Restore(s.fd, s.before))
}

// close gives the terminal back.
func (s *screen) close() error {
	signal.Stop(s.signals)
	err := s.leave()
	close(s.over)
	s.tty.Close()
	s.read.Wait()
	return err
}

// suspend stops the process until a shell continues it; where there is none, the
// kernel ignores the signal (setpgid(2), orphaned process group).
func (s *screen) suspend() error {
	if err := s.leave(); err != nil {
		return err
	}
	// To this very thread: the process is stopped when the call returns.
	err := unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGTSTP)
	return errors.Join(err, s.enter())
}

// size returns that of the terminal, or what most have.
func (s *screen) size() monitor.Size {
	columns, rows, err := term.GetSize(s.fd)
	if err != nil || columns <= 0 || rows <= 0 {
		return monitor.Size{Columns: 80, Rows: 24}
	}
	return monitor.Size{Columns: columns, Rows: rows}
}

// draw shows lines, and writes only those that are not there already.
func (s *screen) draw(lines []string) error {
	var b bytes.Buffer
	if s.drawn == nil || len(lines) != len(s.drawn) {
		b.WriteString(plainText + clearScreen)
		s.drawn = make([]string, len(lines))
	}
	for i, line := range lines {
		if line != s.drawn[i] {
			fmt.Fprintf(&b, "\x1b[%d;1H%s%s", i+1, clearLine, line)
		}
	}
	s.drawn = lines
	if b.Len() == 0 {
		return nil
	}
	_, err := s.tty.Write(b.Bytes())
	return err
}

// readKeys ends, and closes keys, with the terminal.
func (s *screen) readKeys() {
	defer close(s.keys)
	var typed []byte // the start of a key
	buf := make([]byte, 256)
	for {
		var wait time.Time
		if len(typed) > 0 {
			wait = time.Now().Add(escapeTime)
		}
		s.tty.SetReadDeadline(wait)
		n, err := s.tty.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if len(typed) == 1 && !s.press(monitor.Quit) { // Esc alone
				return
			}
			typed = nil
		case err != nil:
			return
		}
		typed = append(typed, buf[:n]...)
		for {
			key, used := monitor.ReadKey(typed)
			if used == 0 {
				break
			}
			if typed = typed[used:]; !s.press(key) {
				return
			}
		}
	}
}

// press hands a key on, unless the screen is closed.
func (s *screen) press(k monitor.Key) bool {
	select {
	case s.keys <- k:
		return true
	case <-s.over:
		return false
	}
}
