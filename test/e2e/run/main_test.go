// Package run_test is about what the caller of the program sees: its app, its
// mistakes and what is left when something is killed. It runs the program itself,
// as an ordinary user of a machine
// made by the test, and looks from outside.
package run_test

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wireguard4netns/internal/nstest"
)

// appEnv names what the test binary does as the app in a tunnel.
const appEnv = "W4N_E2E_APP"

func TestMain(m *testing.M) {
	if app, ok := apps[os.Getenv(appEnv)]; ok {
		app()
		os.Exit(0)
	}
	nstest.Main(m)
}

// deadline is more than anything here takes on a busy machine.
const deadline = 20 * time.Second

// machine is that of a user who has the program and a configuration.
type machine struct {
	*nstest.Host
	t       testing.TB
	program string
	conf    string // path of a file; nobody answers at its endpoint
	private string // its keys
	psk     string
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	m := &machine{t: t, Host: nstest.NewHost(t), program: nstest.Build(t), private: newKey(), psk: newKey()}
	m.conf = filepath.Join(t.TempDir(), "wg0.conf")
	writeFile(t, m.conf, fmt.Sprintf(`[Interface]
PrivateKey = %s
Address = 10.77.0.2/32, fd77::2/128
DNS = 10.77.0.1
[Peer]
PublicKey = %s
PresharedKey = %s
Endpoint = 127.0.0.1:51820
AllowedIPs = 0.0.0.0/0, ::/0
`, m.private, newKey(), m.psk))
	return m
}

// newKey is 32 bytes in base64: a private key, or what passes for a public one.
func newKey() string {
	var key [32]byte
	rand.Read(key[:])
	return base64.StdEncoding.EncodeToString(key[:])
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// w4n is a command line of the program.
func (m *machine) w4n(args ...string) *exec.Cmd { return m.UserCommand(m.program, args...) }

// run is the program's run with the machine's configuration. Arguments before
// "--" are flags; without "--" all are the command.
func (m *machine) run(args ...string) *exec.Cmd {
	line := []string{"run"}
	for i, arg := range args {
		if arg == "--" {
			line, args = append(line, args[:i]...), args[i+1:]
			break
		}
	}
	return m.w4n(append(append(line, m.conf, "--"), args...)...)
}

// result is how a command ended.
type result struct {
	code           int // 128 and the signal that ended it
	stdout, stderr string
}

// finish runs cmd to its end.
func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return result{await(t, cmd), stdout.String(), stderr.String()}
}

// await waits for the end of cmd and returns its exit code.
func await(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	late := time.AfterFunc(deadline, func() { cmd.Process.Kill() })
	cmd.Wait()
	if !late.Stop() {
		t.Errorf("%s did not end within %v", strings.Join(cmd.Args, " "), deadline)
	}
	return exitCode(cmd.ProcessState)
}
