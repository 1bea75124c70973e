package engine

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"wireguard4netns/internal/nstest"
)

// Roles of the test binary inside the machines of a test, by os.Args[1].
const (
	roleReceive = "engine-test-receive" // NETWORK ADDRESS: prints a line when it listens, then what comes
	roleSend    = "engine-test-send"    // NETWORK ADDRESS: sends its standard input
)

func runRole(args []string) {
	var err error
	switch args[0] {
	case roleReceive:
		err = receiveRole(args[1], args[2])
	case roleSend:
		err = sendRole(args[1], args[2])
	default:
		role, ok := suiteRoles[args[0]]
		if !ok {
			return
		}
		err = role(args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func receiveRole(network, address string) error {
	if network == "udp" {
		conn, err := net.ListenPacket(network, address)
		if err != nil {
			return err
		}
		fmt.Println("listening")
		buf := make([]byte, 1<<16)
		n, _, err := conn.ReadFrom(buf)
		_, _ = os.Stdout.Write(buf[:n])
		return err
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	conn, err := listener.Accept()
	if err == nil {
		_, err = io.Copy(os.Stdout, conn)
	}
	return err
}

func sendRole(network, address string) error {
	conn, err := net.Dial(network, address)
	if err != nil {
		return err
	}
	if _, err = io.Copy(conn, os.Stdin); err == nil {
		err = conn.Close()
	}
	return err
}

// receive starts to receive on port 7000 of the site's machine. What comes is
// read from the reader.
func (s *site) receive(t testing.TB, network string) *bufio.Reader {
	t.Helper()
	cmd := s.role(t, roleReceive, network, ":7000")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	nstest.Start(t, cmd)
	r := bufio.NewReader(out)
	if line, err := r.ReadString('\n'); err != nil || line != "listening\n" {
		t.Fatalf("receive: %q, %v", line, err)
	}
	return r
}

// send is the command that sends its input to port 7000 of b.
func (s *site) send(t testing.TB, network string, b *site) *exec.Cmd {
	return s.role(t, roleSend, network, netip.AddrPortFrom(b.addr, 7000).String())
}

func (s *site) role(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return s.host.Command(exe, args...)
}

// transfer sends so many bytes from a's machine to b's.
func transfer(t testing.TB, a, b *site, network string, size int) {
	t.Helper()
	data := strings.Repeat("wireguard", size/9+1)[:size]
	r := b.receive(t, network)
	send := a.send(t, network, b)
	send.Stdin = strings.NewReader(data)
	if out, err := send.CombinedOutput(); err != nil {
		t.Fatalf("send: %v\n%s", err, out)
	}
	got, err := io.ReadAll(r)
	if err != nil || string(got) != data {
		t.Errorf("%s: %d bytes arrived of %d: %v", network, len(got), size, err)
	}
}

// stall measures the longest pause of a TCP flow from a to b over the four
// seconds in which harm is done to it.
func stall(t testing.TB, a, b *site, harm func()) (longest time.Duration, total int) {
	t.Helper()
	zero, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer zero.Close()
	r := b.receive(t, "tcp")
	send := a.send(t, "tcp", b)
	send.Stdin = zero
	nstest.Start(t, send)
	buf := make([]byte, 1<<16)
	harmed := false
	last := time.Now()
	for start := last; time.Since(start) < 4*time.Second; {
		n, err := r.Read(buf)
		if err != nil {
			t.Fatalf("flow ended: %v", err)
		}
		if total += n; !harmed && total > 50<<20 {
			harmed = true
			harm()
		}
		longest = max(longest, time.Since(last))
		last = time.Now()
	}
	if !harmed {
		t.Fatalf("only %d bytes came before the engine was to be killed", total)
	}
	_ = send.Process.Kill()
	_ = send.Wait()
	_, _ = io.Copy(io.Discard, r)
	return longest, total
}
