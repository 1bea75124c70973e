package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/sandbox"
	"wireguard4netns/internal/uapi"
)

// suiteRoles are what the test binary can be inside the machines of the suite,
// by os.Args[1]. Each says where it is in its first line of output, if it is
// anywhere, and ends with its standard input.
var suiteRoles = map[string]func(args []string) error{
	"engine-suite-sink":    sinkRole,    // ADDRESS: one TCP stream; prints its length so far, then "end"
	"engine-suite-source":  sourceRole,  // ADDRESS RATE: sends that stream; prints its length at the end
	"engine-suite-gather":  gatherRole,  // ADDRESS: UDP; prints a tally for each line of input
	"engine-suite-scatter": scatterRole, // ADDRESS JSON: sends UDP
	"engine-suite-several": severalRole, // ADDRESS SIZE: UDP; prints the most that came at once, when so much has come
	"engine-suite-outpost": outpostRole, // ENGINE MTU SOCKET: an engine on the TUN device at descriptor 3; prints when it is in trouble
}

// stream is what each TCP flow of the suite carries: no two parts are alike.
func stream() *rand.ChaCha8 { return rand.NewChaCha8([32]byte{7}) }

func sinkRole(args []string) error {
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	c, err := l.Accept()
	if err != nil {
		return err
	}
	expected := stream()
	got, want := make([]byte, 1<<16), make([]byte, 1<<16)
	total, told := 0, time.Time{}
	for {
		n, err := c.Read(got)
		if _, _ = expected.Read(want[:n]); !bytes.Equal(got[:n], want[:n]) {
			return fmt.Errorf("wrong bytes after %d", total)
		}
		total += n
		if now := time.Now(); now.Sub(told) > 10*time.Millisecond || err != nil {
			told = now
			fmt.Println(total)
		}
		if errors.Is(err, io.EOF) {
			fmt.Println("end")
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// sourceRole sends at most rate bytes a second, if it is not zero.
func sourceRole(args []string) error {
	rate, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	c, err := net.Dial("tcp", args[0])
	if err != nil {
		return err
	}
	var stop atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop.Store(true)
	}()
	data, from := make([]byte, 1<<16), stream()
	if rate > 0 {
		data = make([]byte, rate/100)
	}
	total := 0
	for !stop.Load() {
		_, _ = from.Read(data)
		n, err := c.Write(data)
		if total += n; err != nil {
			return err
		}
		if rate > 0 {
			time.Sleep(10 * time.Millisecond)
		}
	}
	fmt.Println(total)
	return c.Close()
}

// A tally is what a gatherer has of numbered datagrams.
type tally struct {
	Received   int // different ones
	Duplicates int
	Late       int // behind one with a higher number
	Corrupt    int
	Highest    uint32
	Missing    []uint32 // below Highest, the first few
}

const numberSize = 4

// numbered is the n-th datagram.
func numbered(n uint32, size int) []byte {
	b := make([]byte, max(size, numberSize))
	binary.BigEndian.PutUint32(b, n)
	for i := numberSize; i < len(b); i++ {
		b[i] = byte(i*7) + byte(n)
	}
	return b
}

func gatherRole(args []string) error {
	conn, err := net.ListenPacket("udp", args[0])
	if err != nil {
		return err
	}
	_ = conn.(*net.UDPConn).SetReadBuffer(4 << 20)
	var mu sync.Mutex
	var all tally
	seen := map[uint32]bool{}
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			mu.Lock()
			all.add(buf[:n], seen)
			mu.Unlock()
		}
	}()
	fmt.Println(conn.LocalAddr().(*net.UDPAddr).Port)
	questions := bufio.NewScanner(os.Stdin)
	for questions.Scan() {
		mu.Lock()
		reply := all
		for n := uint32(1); n < all.Highest && len(reply.Missing) < 10; n++ {
			if !seen[n] {
				reply.Missing = append(reply.Missing, n)
			}
		}
		mu.Unlock()
		if err := json.NewEncoder(os.Stdout).Encode(reply); err != nil {
			return err
		}
	}
	return nil
}

func (a *tally) add(b []byte, seen map[uint32]bool) {
	if len(b) < numberSize {
		a.Corrupt++
		return
	}
	n := binary.BigEndian.Uint32(b)
	switch {
	case !bytes.Equal(b, numbered(n, len(b))):
		a.Corrupt++
	case seen[n]:
		a.Duplicates++
	default:
		seen[n] = true
		if a.Received++; n < a.Highest {
			a.Late++
		}
		a.Highest = max(a.Highest, n)
	}
}

// A burst is UDP to be sent: datagrams with the numbers from First to Last, Step
// apart.
type burst struct {
	First, Last, Step uint32
	Size              int // zero: the number is the size
	Together          int // so many in one call, by UDP_SEGMENT
	Pause             time.Duration
	PauseEvery        int // datagrams
}

func scatterRole(args []string) error {
	var b burst
	if err := json.Unmarshal([]byte(args[1]), &b); err != nil {
		return err
	}
	c, err := net.Dial("udp", args[0])
	if err != nil {
		return err
	}
	if b.Together > 1 {
		raw, err := c.(*net.UDPConn).SyscallConn()
		if err != nil {
			return err
		}
		var option error
		if err := raw.Control(func(fd uintptr) {
			option = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, b.Size)
		}); err != nil || option != nil {
			return errors.Join(err, option)
		}
	}
	var out []byte
	sent := 0
	for n := b.First; n <= b.Last; n += max(1, b.Step) {
		size := b.Size
		if size == 0 {
			size = int(n)
		}
		out = append(out, numbered(n, size)...)
		if sent++; sent%max(1, b.Together) == 0 || n == b.Last {
			if _, err := c.Write(out); err != nil && !errors.Is(err, unix.EMSGSIZE) && !errors.Is(err, unix.ECONNREFUSED) {
				return err
			}
			out = out[:0]
		}
		if b.PauseEvery > 0 && sent%b.PauseEvery == 0 {
			time.Sleep(b.Pause)
		}
	}
	return nil
}

func outpostRole(args []string) error {
	mtu, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	name, special, _ := strings.Cut(args[0], "+")
	e, err := Open(context.Background(), Config{
		Engine: name, IfName: "wg0+" + special, MTU: mtu, TUN: os.NewFile(3, "tun"), Sandbox: sandbox.None,
		Log: func(line string) { fmt.Fprintln(os.Stderr, line) },
	})
	if err != nil {
		return err
	}
	defer e.Close()
	l, err := uapi.Listen(args[2])
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = l.Close()
	}()
	fmt.Println("ready")
	go func() {
		for range e.Trouble() {
			fmt.Println("trouble")
		}
	}()
	return l.Serve(context.Background(), e)
}
