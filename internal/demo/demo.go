// Package demo shows a tunnel that needs no account, no server and no network:
// both ends are made here, on one machine, over its loopback.
//
//	this process                        processes that it starts
//	listen on 127.0.0.1 (a trap)
//	Peer role, in a session of its own ─▶ tunnel with any free port
//	                                        └▶ Page role inside it: a web page
//	                                  ◀─ Peer: key, port, on a pipe, once the
//	                                     page is there
//	tunnel to that port
//	  └▶ Look role inside it ─────────▶ a line for each thing that it sees
//	look at both from outside
//	close the pipe to Page            ─▶ it ends, and the peer with it
//
// Each private key stays in the memory of the process that made it; no file and
// no argument ever holds one. Whoever dies takes all with it: the kernel kills
// Look with this process, and Page reads the end of its pipe.
package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns"
	"wireguard4netns/conf"
)

// The addresses inside are from the ranges for documentation (RFC 5737,
// RFC 3849), so the demo cannot be about any other network.
var (
	peerAddr = netip.MustParseAddr("192.0.2.1")
	appAddr4 = netip.MustParsePrefix("192.0.2.2/32")
	appAddr6 = netip.MustParsePrefix("2001:db8::2/128")
	page     = netip.AddrPortFrom(peerAddr, 8080)
)

// appAddrs are what the link gets: IPv6 too, if this kernel has it.
func appAddrs() []netip.Prefix {
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		return []netip.Prefix{appAddr4}
	}
	return []netip.Prefix{appAddr4, appAddr6}
}

// Names of the links inside.
const (
	appLink  = "demo"
	peerLink = "peer"
)

// handshakeTime is how long both ends, on one machine, may take to meet.
const handshakeTime = 10 * time.Second

// ErrPeer: the peer ended before it was there, and has said why itself.
var ErrPeer = errors.New("the demo's peer did not start")

// Roles are the arguments with which this program becomes the other processes.
type Roles struct{ Peer, Page, Look string }

// Demo says how to show it.
type Demo struct {
	Roles   Roles
	Options wireguard4netns.Options // of the tunnel; the names are the demo's
	Environ []string
	Stdout  *os.File
	Stderr  *os.File
}

// Run makes both ends, prints a line for each thing that is to be true, and
// undoes it all. It tells whether each was seen to be true. It must be called
// on the main thread (wireguard4netns.Tunnel.StartApp).
func (d *Demo) Run(ctx context.Context) (ok bool, err error) {
	trap, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return false, err
	}
	defer trap.Close()
	p, t, err := d.tunnel(ctx)
	if err != nil {
		return false, err
	}
	defer p.close()
	fmt.Fprintln(d.Stdout, "Inside, what a program in the tunnel sees:")
	host := trap.Addr().(*net.TCPAddr).AddrPort()
	inside, err := d.look(ctx, t, host)
	if err != nil {
		return false, errors.Join(err, t.Close())
	}
	fmt.Fprintln(d.Stdout, "Outside, what the host sees:")
	outside := report(d.Stdout, []step{
		{"peer", func() (string, error) { return p.traffic(ctx) }},
		{"host", func() (string, error) { return visitors(trap) }},
		{"undone", func() (string, error) { return undone(t, p) }},
	})
	return inside && outside, ctx.Err()
}

// Exec makes both ends and turns this process into the stand-in of app, which
// runs in the tunnel; the peer lives until that ends. It returns only with an
// error, and must be called on the main thread.
func (d *Demo) Exec(ctx context.Context, app wireguard4netns.App) error {
	p, t, err := d.tunnel(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.Stderr, "demo: the only network here is WireGuard, and at its other end is http://%s/\n", page)
	if err = p.keep(); err == nil {
		err = t.Exec(app, true)
	}
	return errors.Join(err, t.Close(), p.close())
}

// tunnel makes the peer and a tunnel to it.
func (d *Demo) tunnel(ctx context.Context) (*peer, *wireguard4netns.Tunnel, error) {
	key := newKey()
	p, err := startPeer(ctx, d, key.PublicKey())
	if err != nil {
		return nil, nil, err
	}
	c := &conf.Config{
		Interface: conf.Interface{PrivateKey: key, Addresses: appAddrs(), DNS: []netip.Addr{peerAddr}},
		Peers: []conf.Peer{{
			Name: "demo", PublicKey: p.PublicKey, AllowedIPs: []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)},
			Endpoint: conf.Endpoint{Host: "127.0.0.1", Port: p.Port},
		}},
	}
	o := d.Options
	o.IfName, o.ConfName, o.Wait = appLink, "the demo's configuration", handshakeTime
	t, err := wireguard4netns.Start(ctx, c, nil, o)
	if err != nil {
		return nil, nil, errors.Join(err, p.close())
	}
	return p, t, nil
}

// look runs the Look role in the tunnel and tells whether all it saw was true.
func (d *Demo) look(ctx context.Context, t *wireguard4netns.Tunnel, host netip.AddrPort) (bool, error) {
	view := View{IfName: t.IfName, Addresses: appAddrs(), DNS: peerAddr, Page: page, Host: host}
	p, err := t.StartApp(wireguard4netns.App{
		Args: []string{"/proc/self/exe", d.Roles.Look, view.String()}, Env: d.Environ, Dir: "/",
	}, true)
	if err != nil {
		return false, err
	}
	stop := context.AfterFunc(ctx, func() { p.Kill() })
	defer stop()
	state, err := p.Wait()
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	return err == nil && state.ExitCode() == 0, err
}

// visitors sees whether anybody came to the trap, after showing that one can.
// Connections are accepted in the order in which they came.
func visitors(trap net.Listener) (string, error) {
	addr := trap.Addr().String()
	c, err := net.Dial("tcp4", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	first, err := trap.Accept()
	if err != nil {
		return "", err
	}
	defer first.Close()
	if first.RemoteAddr().String() != c.LocalAddr().String() {
		return "", fmt.Errorf("%s came to %s from inside", first.RemoteAddr(), addr)
	}
	return addr + " answers here, and nobody came to it from inside", nil
}

// undone ends both tunnels, of which the first is ending, and sees that they left
// nothing.
func undone(t *wireguard4netns.Tunnel, p *peer) (string, error) {
	if err := errors.Join(t.Close(), p.close()); err != nil {
		return "", err
	}
	if err := gone(t.Pid, t.Dir, p.Dir); err != nil {
		return "", err
	}
	return "both tunnels are gone, with their processes and directories", nil
}

func gone(pid int, dirs ...string) error {
	if err := syscall.Kill(pid, 0); err != unix.ESRCH {
		return fmt.Errorf("process %d is still there", pid)
	}
	for _, dir := range dirs {
		if _, err := os.Lstat(dir); err == nil {
			return fmt.Errorf("%s is still there", dir)
		}
	}
	return nil
}

// A step is a thing that is to be true, and what shows it.
type step struct {
	name string
	see  func() (seen string, err error)
}

// report takes steps in their order, a line each, and tells whether all were true.
func report(w io.Writer, steps []step) bool {
	ok := true
	for _, s := range steps {
		verdict := "ok  "
		seen, err := s.see()
		if err != nil {
			verdict, seen, ok = "FAIL", err.Error(), false
		}
		fmt.Fprintf(w, "  %s  %-8s %s\n", verdict, s.name, seen)
	}
	return ok
}

func newKey() conf.PrivateKey {
	var b [32]byte
	rand.Read(b[:]) // never fails, crypto/rand
	return conf.NewPrivateKey(b)
}
