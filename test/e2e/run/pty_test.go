package run_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Keys of a terminal that are signals.
const (
	ctrlC         = "\x03"
	ctrlZ         = "\x1a"
	ctrlBackslash = "\x1c"
)

// terminal is a pseudo-terminal with a user before it (pty(7)).
type terminal struct {
	t      *testing.T
	master *os.File
	slave  string

	mu   sync.Mutex
	text []byte        // printed and not yet expected
	grew chan struct{} // closed at the next change of text or end
	end  bool
}

// startTerminal starts cmd as the leader of a session with a terminal of its own.
func startTerminal(t *testing.T, cmd *exec.Cmd) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, master: master, grew: make(chan struct{})}
	t.Cleanup(term.hangUp)
	number, err := unix.IoctlGetInt(term.fd(), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(term.fd(), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	term.slave = fmt.Sprintf("/dev/pts/%d", number)
	term.resize(24, 80)
	slave, err := os.OpenFile(term.slave, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go term.read()
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	return term
}

// fd borrows the descriptor and leaves it non-blocking, unlike os.File.Fd.
func (term *terminal) fd() (fd int) {
	raw, err := term.master.SyscallConn()
	if err == nil {
		err = raw.Control(func(n uintptr) { fd = int(n) })
	}
	if err != nil {
		term.t.Fatal(err)
	}
	return fd
}

func (term *terminal) read() {
	buf := make([]byte, 4096)
	for {
		n, err := term.master.Read(buf)
		term.mu.Lock()
		term.text = append(term.text, buf[:n]...)
		term.end = err != nil // EIO: nobody has the other end open
		close(term.grew)
		term.grew = make(chan struct{})
		term.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// expect waits until what is printed matches pattern, and takes it away up to
// the end of the match. It returns the submatches.
func (term *terminal) expect(pattern string) []string {
	term.t.Helper()
	re := regexp.MustCompile(pattern)
	late := time.After(deadline)
	for {
		term.mu.Lock()
		text, grew, end := term.text, term.grew, term.end
		if at := re.FindIndex(text); at != nil {
			found := re.FindStringSubmatch(string(text))
			term.text = text[at[1]:]
			term.mu.Unlock()
			return found
		}
		term.mu.Unlock()
		if end {
			term.t.Fatalf("the terminal closed before %q was printed, after %q", pattern, text)
		}
		select {
		case <-grew:
		case <-late:
			term.t.Fatalf("%q was not printed within %v, but %q", pattern, deadline, text)
		}
	}
}

// printed is an error unless what was printed and not yet expected matches.
func (term *terminal) printed(pattern string) error {
	term.mu.Lock()
	defer term.mu.Unlock()
	if !regexp.MustCompile(pattern).Match(term.text) {
		return fmt.Errorf("%q was not printed, but %q", pattern, term.text)
	}
	return nil
}

// rest waits until nobody has the terminal open and returns what was printed.
func (term *terminal) rest() string {
	term.t.Helper()
	late := time.After(deadline)
	for {
		term.mu.Lock()
		text, grew, end := string(term.text), term.grew, term.end
		term.mu.Unlock()
		if end {
			return text
		}
		select {
		case <-grew:
		case <-late:
			term.t.Fatalf("the terminal was not closed within %v; printed: %q", deadline, text)
		}
	}
}

// typed is what the user types.
func (term *terminal) typed(keys string) {
	term.t.Helper()
	if _, err := term.master.WriteString(keys); err != nil {
		term.t.Fatal(err)
	}
}

func (term *terminal) resize(rows, columns uint16) {
	term.t.Helper()
	if err := unix.IoctlSetWinsize(term.fd(), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		term.t.Fatal(err)
	}
}

// hangUp closes the user's end.
func (term *terminal) hangUp() { term.master.Close() }
