// Package wggo is the engine that wireguard-go makes: its device, unmodified,
// on the descriptor of a TUN device in any network namespace. Nothing else of
// this module knows golang.zx2c4.com/wireguard.
package wggo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"wireguard4netns/internal/uapi"
)

// Options says how an engine runs.
type Options struct {
	MTU     int               // of the link
	Log     func(line string) // called from many goroutines; lines hold no keys
	Verbose bool              // log each handshake
	// Trouble is called when a look at the way to the peers is worth while: one
	// does not answer, or a packet was too large. Not more often than once a
	// second; nil: nobody asks.
	Trouble func()
	// Seal is called once, when all that needs rights or files is open and
	// before the first configuration. Its error ends Run.
	Seal func() error
}

// Run moves packets between the TUN device and its peers, configured by the
// requests on control, until control ends (nil), the TUN device ends, or ctx
// does. It takes ownership of the descriptor and of control.
func Run(ctx context.Context, tunFD int, control net.Conn, o Options) error {
	limitMemory(0)
	native, _, err := tun.CreateUnmonitoredTUNFromFD(tunFD)
	if err != nil {
		return fmt.Errorf("open TUN device: %w", err)
	}
	e := &engine{trouble: atMost(time.Second, o.Trouble)}
	sockets := &bind{Bind: conn.NewStdNetBind(), silences: newSilences(e.silent), narrow: e.trouble}
	e.device = device.NewDevice(&link{Device: native, mtu: o.MTU, log: o.Log}, sockets, logger(o))
	e.sockets = sockets
	defer e.device.Close()
	if err := o.Seal(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		<-e.device.Wait()
		cancel(errors.New("TUN device is gone"))
	}()
	err = uapi.Serve(ctx, control, e, uapi.Limits{})
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func logger(o Options) *device.Logger {
	line := func(format string, args ...any) { o.Log(fmt.Sprintf(format, args...)) }
	l := &device.Logger{Verbosef: device.DiscardLogf, Errorf: line}
	if o.Verbose {
		l.Verbosef = line
	}
	return l
}

// engine answers configuration requests.
type engine struct {
	device  *device.Device
	sockets *bind
	trouble func()
	rest    rest
	mu      sync.Mutex
	up      bool
}

func (e *engine) Get(context.Context) ([]byte, error) {
	var reply bytes.Buffer
	if err := e.device.IpcGetOperation(&reply); err != nil {
		return nil, errnoOf(err)
	}
	if d, err := uapi.Parse(bytes.NewReader(reply.Bytes())); err == nil {
		limitMemory(len(d.Peers))
		if e.rest.look(passed(d)) {
			go giveBack()
		}
	}
	return reply.Bytes(), nil
}

func passed(d uapi.Device) (bytes uint64) {
	for _, p := range d.Peers {
		bytes += p.RxBytes + p.TxBytes
	}
	return bytes
}

// Set applies body. The device comes up with the first: before, it would open
// sockets on a port that nobody asked for.
func (e *engine) Set(_ context.Context, body []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	before, rebinds := e.boundPort(body)
	err := e.device.IpcSetOperation(bytes.NewReader(body))
	if err == nil && !e.up {
		err = e.device.Up()
		e.up = err == nil
	}
	if e.sockets.refused {
		// It would be refused again with all that follows. That may be said of
		// the old one, too, which is in place all the same.
		_ = e.device.IpcSet(fmt.Sprintf("fwmark=%d\n", e.sockets.mark))
		e.sockets.refused = false
	}
	if err != nil && rebinds && e.up {
		// The old sockets are closed before the new port is tried.
		_ = e.device.IpcSet(fmt.Sprintf("listen_port=%d\n", before))
	}
	return errnoOf(err)
}

// boundPort returns the port in use if body asks for another.
func (e *engine) boundPort(body []byte) (port uint16, rebinds bool) {
	if !bytes.Contains(body, []byte("listen_port=")) {
		return 0, false
	}
	text, err := e.device.IpcGet()
	if err != nil {
		return 0, false
	}
	d, err := uapi.Parse(strings.NewReader(text))
	return d.ListenPort, err == nil && d.ListenPort != 0
}

// silent is told of an address that does not answer.
func (e *engine) silent(addr netip.AddrPort, ask bool) {
	if e.trouble(); !ask {
		return
	}
	var state bytes.Buffer
	defer func() { clear(state.Bytes()) }()
	if e.device.IpcGetOperation(&state) != nil {
		return
	}
	d, err := uapi.Parse(bytes.NewReader(state.Bytes()))
	if err != nil {
		return
	}
	for _, p := range d.Peers {
		if p.Endpoint != addr {
			continue
		}
		if peer := e.device.LookupPeer(device.NoisePublicKey(p.PublicKey)); peer != nil {
			_ = peer.SendHandshakeInitiation(false) // it logs its error
		}
	}
}

// atMost returns a function that calls do, unless it did a moment ago.
func atMost(often time.Duration, do func()) func() {
	var last atomic.Int64 // after start, plus one
	start := time.Now()
	return func() {
		now := int64(time.Since(start)) + 1
		before := last.Load()
		if do == nil || before != 0 && now-before < int64(often) || !last.CompareAndSwap(before, now) {
			return
		}
		do()
	}
}

// errnoOf reduces an error to its number: texts of wireguard-go may quote the
// request.
func errnoOf(err error) error {
	var errno syscall.Errno
	var coded *device.IPCError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &errno):
		return errno
	case errors.As(err, &coded):
		return syscall.Errno(max(coded.ErrorCode(), -coded.ErrorCode()))
	}
	return syscall.EIO
}
