package nstest

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// bootTimeout is for a machine whose two processors are emulated by one that
// does other tests at the same time: alone it takes three seconds.
const bootTimeout = 2 * time.Minute

// StartKernelPeer boots the Linux kernel's WireGuard in a virtual machine in
// software emulation, which takes some seconds. Its UDP port is one of the
// Host's, and what it sends leaves from the Host; the machine's own shell is
// what Peer.Run speaks to.
//
// On the Peer's addresses it offers by HTTP, on port 80, "/" which says
// "kernel", "/cgi-bin/zero?N" with N zero bytes, and "/cgi-bin/count" which
// answers how many bytes were posted to it.
func StartKernelPeer(t testing.TB, h *Host) *Peer {
	t.Helper()
	dir, err := kernelPeer()
	if err != nil {
		t.Fatal(err)
	}
	shell, err := bootVM(t, h, dir)
	if err != nil {
		t.Fatalf("boot kernel peer: %v", err)
	}
	p := &Peer{Host: h, process: shell.machine, run: shell.run}
	p.Run(t, "ip link add wg0 type wireguard")
	p.configure(t)
	p.Run(t, `mkdir -p /www/cgi-bin
echo kernel >/www/index.html
printf '#!/bin/sh\necho Content-Type: text/plain; echo; head -c "$QUERY_STRING" /dev/zero\n' >/www/cgi-bin/zero
printf '#!/bin/sh\necho Content-Type: text/plain; echo; wc -c\n' >/www/cgi-bin/count
chmod 755 /www/cgi-bin/*
httpd -h /www`)
	return p
}

// kernelPeer makes the machine's kernel and initrd, anew when a script that
// they are made by has changed.
func kernelPeer() (dir string, err error) {
	scripts := filepath.Join(moduleRoot(), "test", "qemu")
	sum := sha256.New()
	for _, name := range []string{"build", "init"} {
		text, err := os.ReadFile(filepath.Join(scripts, name))
		if err != nil {
			return "", err
		}
		sum.Write(text)
	}
	return cached(fmt.Sprintf("kernel-peer-%.6x", sum.Sum(nil)), func(path string) error {
		if out, err := exec.Command(filepath.Join(scripts, "build"), path).CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
}

func bootVM(t testing.TB, h *Host, dir string) (*vmShell, error) {
	messages := filepath.Join(t.TempDir(), "kernel-messages")
	// Never KVM: it hangs where virtual machines are nested.
	cmd := h.Command("qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "256",
		"-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", filepath.Join(dir, "vmlinuz"), "-initrd", filepath.Join(dir, "initrd"),
		"-append", "console=ttyS0 panic=-1",
		"-serial", "file:"+messages, "-serial", "stdio",
		"-netdev", fmt.Sprintf("user,id=net,hostfwd=udp::%d-:%d", peerPort, peerPort),
		"-device", "virtio-net-pci,netdev=net,romfile=")
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	// A pipe of our own, because it has read deadlines.
	output, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { output.Close() })
	cmd.Stdout = theirs
	Start(t, cmd)
	theirs.Close()
	t.Cleanup(func() {
		if text, _ := os.ReadFile(messages); t.Failed() {
			t.Logf("kernel peer said:\n%s", text[max(0, len(text)-4096):])
		}
	})
	shell := &vmShell{machine: cmd, input: input, output: output, lines: bufio.NewReader(output)}
	_, err = shell.until(func(line string) bool { return line == "ready" }, bootTimeout)
	return shell, err
}

// vmShell is the root shell on the machine's second serial port. It reads a
// line, runs it, prints what it prints, and then "done" with the exit code.
type vmShell struct {
	machine *exec.Cmd
	mu      sync.Mutex
	input   io.Writer
	output  *os.File
	lines   *bufio.Reader // of output
}

func (s *vmShell) run(script string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	encoded := base64.StdEncoding.EncodeToString([]byte(script))
	// The empty echo ends a last line that the script left open.
	if _, err := fmt.Fprintf(s.input, "sh -ec \"$(echo %s | base64 -d)\" </dev/null 2>&1; code=$?; echo; echo done $code\n", encoded); err != nil {
		return "", err
	}
	code := 0
	out, err := s.until(func(line string) bool {
		text, ok := strings.CutPrefix(line, "done ")
		number, err := strconv.Atoi(text)
		code = number
		return ok && err == nil
	}, time.Minute)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit status %d", code)
	}
	return strings.TrimSuffix(out, "\n"), err
}

// until collects lines up to the one for which last is true.
func (s *vmShell) until(last func(line string) bool, timeout time.Duration) (string, error) {
	if err := s.output.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}
	var text strings.Builder
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return text.String() + line, fmt.Errorf("read from virtual machine: %w", err)
		}
		if line = strings.TrimRight(line, "\r\n"); last(line) {
			return text.String(), nil
		}
		text.WriteString(line + "\n")
	}
}
