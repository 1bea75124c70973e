package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"wireguard4netns"
	"wireguard4netns/conf"
	"wireguard4netns/internal/uapi"
)

// hello is what the peer says of itself, in a line of JSON.
type hello struct {
	PublicKey conf.PublicKey
	Port      uint16
	Dir       string // of its tunnel
	UAPIPath  string
}

// peer is the other end as the demo sees it.
type peer struct {
	hello
	cmd  *exec.Cmd
	life *os.File // its end of file ends the peer
}

// startPeer starts the peer that lets app in, and returns when its page is there.
func startPeer(ctx context.Context, d *Demo, app conf.PublicKey) (_ *peer, err error) {
	theirs, life, err := os.Pipe()
	if err != nil {
		return nil, os.NewSyscallError("pipe", err)
	}
	defer theirs.Close()
	p := &peer{life: life, cmd: exec.Command("/proc/self/exe", d.Roles.Peer, app.String())}
	p.cmd.Env, p.cmd.Stdin, p.cmd.Stderr = d.Environ, theirs, d.Stderr
	// What is typed on the terminal is for the app alone.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdout, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		life.Close()
		return nil, fmt.Errorf("start peer: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { life.Close() })
	defer stop()
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &p.hello)
	}
	if err != nil || ctx.Err() != nil {
		life.Close()
		p.cmd.Wait()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, ErrPeer
	}
	return p, nil
}

// keep lets the peer live as long as whatever this process becomes by exec.
func (p *peer) keep() error {
	_, err := unix.FcntlInt(p.life.Fd(), unix.F_SETFD, 0)
	return os.NewSyscallError("fcntl", err)
}

// close ends the peer and waits for it.
func (p *peer) close() error {
	if err := p.life.Close(); errors.Is(err, os.ErrClosed) {
		return nil
	}
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("end peer: %w", err)
	}
	return nil
}

// traffic sees what has come to the peer by WireGuard.
func (p *peer) traffic(ctx context.Context) (string, error) {
	d, err := ask(ctx, p.UAPIPath)
	if err != nil {
		return "", err
	}
	if len(d.Peers) != 1 || d.Peers[0].LastHandshake.IsZero() || d.Peers[0].RxBytes == 0 {
		return "", errors.New("the peer had no handshake and no data by WireGuard")
	}
	one := d.Peers[0]
	return fmt.Sprintf("127.0.0.1:%d had a handshake with %s and %d bytes from it, %d bytes to it",
		d.ListenPort, one.Endpoint, one.RxBytes, one.TxBytes), nil
}

// ask reads the state of a tunnel from its UAPI socket.
func ask(ctx context.Context, path string) (d uapi.Device, err error) {
	// An address of a socket holds 108 bytes, a path may be longer (unix(7)).
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return d, err
	}
	defer dir.Close()
	short := filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), filepath.Base(path))
	stream, err := new(net.Dialer).DialContext(ctx, "unix", short)
	if err != nil {
		return d, err
	}
	c := uapi.NewConn(stream)
	defer c.Close()
	body, err := c.Get(ctx)
	if err != nil {
		return d, err
	}
	return uapi.Parse(bytes.NewReader(body))
}

// Peer is the role of the other end: it makes a tunnel on a free port for the
// owner of a public key and becomes the stand-in of the Page role in it. It
// returns only with an error, and must be called on the main thread.
func Peer(ctx context.Context, d *Demo, app string) error {
	appKey, err := conf.ParsePublicKey(app)
	if err != nil {
		return fmt.Errorf("read public key: %w", err)
	}
	key := newKey()
	c := &conf.Config{
		// Port 0: the kernel chooses one, so there is no race for it.
		Interface: conf.Interface{PrivateKey: key, Addresses: []netip.Prefix{netip.PrefixFrom(peerAddr, 32)}, DNS: []netip.Addr{peerAddr}},
		Peers:     []conf.Peer{{Name: "demo", PublicKey: appKey, AllowedIPs: []netip.Prefix{appAddr4, appAddr6}}},
	}
	o := d.Options
	o.IfName, o.ConfName = peerLink, "the demo peer's configuration"
	o.Say = nil // nobody looks up names there
	t, err := wireguard4netns.Start(ctx, c, nil, o)
	if err != nil {
		return err
	}
	device, err := ask(ctx, t.UAPIPath)
	if err != nil {
		return errors.Join(err, t.Close())
	}
	line, err := json.Marshal(hello{PublicKey: key.PublicKey(), Port: device.ListenPort, Dir: t.Dir, UAPIPath: t.UAPIPath})
	if err != nil {
		return errors.Join(err, t.Close())
	}
	err = t.Exec(wireguard4netns.App{
		Args: []string{"/proc/self/exe", d.Roles.Page, string(line)}, Env: d.Environ, Dir: "/",
	}, true)
	return errors.Join(err, t.Close())
}

// Page is the role of the program in the peer: it serves the page, says hello
// when that is there and ends with its input.
func Page(hello string, stdin io.Reader, stdout io.Writer) error {
	l, err := net.Listen("tcp", page.String())
	if err != nil {
		return err
	}
	defer l.Close()
	go http.Serve(l, http.HandlerFunc(servePage))
	if _, err := fmt.Fprintln(stdout, hello); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, stdin)
	return err
}

func servePage(w http.ResponseWriter, r *http.Request) {
	from, _, _ := net.SplitHostPort(r.RemoteAddr)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, "<!doctype html>\n<title>wireguard4netns demo</title>\n<p>%s\n", greeting(from))
}

// greeting is what the page says to whoever asks from an address.
func greeting(from string) string {
	return "The other end of the tunnel greets " + from + "."
}
