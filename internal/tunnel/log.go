package tunnel

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/state"
)

// maxLog bounds the log of a tunnel, in bytes; what was written before is
// dropped then. It lies in memory, as a rule (/run).
const maxLog = 256 << 10

// Log is the file "log" in the tunnel's directory.
type Log struct {
	mu   sync.Mutex
	file *os.File
	size int
}

func openLog(d *state.Dir) (*Log, error) {
	f, err := os.OpenFile(filepath.Join(d.Path(), "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600|os.ModeSticky) // as the lock is
	if err != nil {
		return nil, err
	}
	return &Log{file: f}, nil
}

// Line writes a line with the time before it. A full disk loses it.
func (l *Log) Line(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > maxLog {
		l.file.Truncate(0)
		l.size = 0
	}
	line = strings.ReplaceAll(line, "\n", "; ")
	n, _ := fmt.Fprintf(l.file, "%s %s\n", time.Now().Format(time.RFC3339Nano), line)
	l.size += n
}

// Also returns a function that writes a line and passes it on to say.
func (l *Log) Also(say func(string)) func(string) {
	return func(line string) {
		l.Line(line)
		say(line)
	}
}

// TakeStderr sends what this process writes to standard error, the last words of a
// crash, to the file: whoever started it may wait for the end of its own.
func (l *Log) TakeStderr() error {
	return os.NewSyscallError("dup3", unix.Dup3(int(l.file.Fd()), unix.Stderr, 0))
}

// Close closes the file.
func (l *Log) Close() error { return l.file.Close() }
