package nstest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// Start starts cmd and ends it by SIGKILL at the end of the test, if it has
// not ended before. What it prints is logged if the test fails.
func Start(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	var log logBuffer
	if cmd.Stdout == nil {
		cmd.Stdout = &log
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &log
	}
	// A process that it leaves behind must not keep Wait waiting for output.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", cmd, err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
		if t.Failed() {
			t.Logf("%s printed:\n%s", strings.Join(cmd.Args, " "), log.String())
		}
	})
}

// WaitListen waits until something in the Host listens on a TCP port.
func (h *Host) WaitListen(t testing.TB, port int) {
	t.Helper()
	Eventually(t, 10*time.Second, func() error {
		out, err := h.Command("ss", "-Hltn", fmt.Sprintf("sport = :%d", port)).Output()
		if err == nil && len(out) == 0 {
			err = fmt.Errorf("nothing listens on port %d", port)
		}
		return err
	})
}

// startRole starts the test binary in a role inside the Host, gives it in as
// JSON on its standard input and waits for its first line of output. The role
// ends when its input does.
func (h *Host) startRole(t testing.TB, role string, in any) (input io.Closer, output *bufio.Reader, cmd *exec.Cmd) {
	t.Helper()
	cmd = selfCommand(h.Command, role)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	Start(t, cmd)
	if err := json.NewEncoder(stdin).Encode(in); err != nil {
		t.Fatalf("%s: %v", role, err)
	}
	output = bufio.NewReader(stdout)
	if line, err := output.ReadString('\n'); err != nil {
		t.Fatalf("%s: %v", role, errors.Join(err, errors.New(line)))
	}
	return stdin, output, cmd
}

// logBuffer is a bytes.Buffer for two writers and a reader.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
