package nstest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Capture records every packet on the links of a Host, in both directions.
type Capture struct {
	input io.Closer
	cmd   *exec.Cmd
	done  chan error

	mu      sync.Mutex
	packets []Packet
}

// captureBytes of each packet, from the network header, are recorded.
const captureBytes = 128

// StartCapture records on one link of the Host or, with an empty name, on all
// of them (then also on those that appear later).
func StartCapture(t testing.TB, h *Host, link string) *Capture {
	t.Helper()
	input, output, cmd := h.startRole(t, "capture", link)
	c := &Capture{input: input, cmd: cmd, done: make(chan error, 1)}
	go func() { c.done <- c.read(output) }()
	return c
}

// Packets returns what was recorded until now, oldest first.
func (c *Capture) Packets() []Packet {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Packet(nil), c.packets...)
}

// Stop ends the record and returns it whole. It fails the test if the kernel
// dropped packets from it, for then it proves nothing.
func (c *Capture) Stop(t testing.TB) []Packet {
	t.Helper()
	c.input.Close()
	if err := errors.Join(<-c.done, c.cmd.Wait()); err != nil {
		t.Fatalf("capture: %v", err)
	}
	return c.Packets()
}

func (c *Capture) read(output *bufio.Reader) error {
	decoder := json.NewDecoder(output)
	for {
		var p Packet
		if err := decoder.Decode(&p); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		c.mu.Lock()
		c.packets = append(c.packets, p)
		c.mu.Unlock()
	}
}

func init() { roles["capture"] = captureRole }

func captureRole() error {
	var link string
	input := json.NewDecoder(os.Stdin)
	if err := input.Decode(&link); err != nil {
		return err
	}
	fd, err := openCapture(link)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	stop := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	out := bufio.NewWriter(os.Stdout)
	err = record(fd, stop, out)
	return errors.Join(err, out.Flush(), dropped(fd))
}

// openCapture returns a socket on which each packet arrives without its link
// header: packet(7).
func openCapture(link string) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	// Loss makes a capture worthless: as much room as the system gives.
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 64<<20)
	addr := unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL)}
	if link != "" {
		ifi, err := net.InterfaceByName(link)
		if err != nil {
			return -1, err
		}
		addr.Ifindex = ifi.Index
	}
	return fd, os.NewSyscallError("bind", unix.Bind(fd, &addr))
}

// record writes each packet as JSON until stop, and then what is still queued.
func record(fd int, stop <-chan struct{}, out *bufio.Writer) error {
	encoder := json.NewEncoder(out)
	links := map[int]string{}
	buf := make([]byte, captureBytes)
	for stopped := false; ; {
		// MSG_TRUNC: n is the packet's real length.
		n, from, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		switch {
		case err == unix.EAGAIN && stopped:
			return nil
		case err == unix.EAGAIN:
			if err := out.Flush(); err != nil {
				return err
			}
			select {
			case <-stop:
				stopped = true
			default:
				wait := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
				unix.Poll(wait, 20)
			}
			continue
		case err == unix.EINTR:
			continue
		case err != nil:
			return os.NewSyscallError("recvfrom", err)
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if !ok {
			continue
		}
		p := parsePacket(networkOrder(int(ll.Protocol)), buf[:min(n, len(buf))])
		p.Length = n
		p.Out = ll.Pkttype == unix.PACKET_OUTGOING
		p.Link = linkName(links, ll.Ifindex)
		if err := encoder.Encode(p); err != nil {
			return err
		}
	}
}

func linkName(known map[int]string, index int) string {
	if name, ok := known[index]; ok {
		return name
	}
	name := fmt.Sprint(index)
	if ifi, err := net.InterfaceByIndex(index); err == nil {
		name = ifi.Name
	}
	known[index] = name
	return name
}

func dropped(fd int) error {
	stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return os.NewSyscallError("read packet statistics", err)
	}
	if stats.Drops != 0 {
		return fmt.Errorf("the kernel dropped %d of %d packets", stats.Drops, stats.Packets)
	}
	return nil
}

func networkOrder(v int) uint16 { return uint16(v)<<8 | uint16(v)>>8 }
