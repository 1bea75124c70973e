package doctor

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/conf"
)

// Inside is what a program in a tunnel sees.
type Inside struct {
	Sources []netip.Addr // from which it would speak to the world, by family
	Overlay bool         // /etc is one
}

// The tunnel that is tried has addresses for documentation (RFC 5737, RFC 3849).
// Nothing is ever sent on it.
var (
	tryAddr4 = netip.MustParsePrefix("192.0.2.2/32")
	tryAddr6 = netip.MustParsePrefix("2001:db8::2/128")
)

func tryAddrs() []netip.Prefix {
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		return []netip.Prefix{tryAddr4} // a kernel without IPv6
	}
	return []netip.Prefix{tryAddr4, tryAddr6}
}

// tryTime is how long a tunnel that is tried may take, from its start to its end.
const tryTime = 30 * time.Second

// A tryError is what run said.
type tryError struct{ what, hint string }

func (e *tryError) Error() string { return e.what }

// try has run make a tunnel, with the role look in it. The configuration comes to
// it on a pipe.
func try(ctx context.Context, environ, look, flags []string) (in Inside, err error) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	text, err := throwaway().Marshal()
	if err != nil {
		return in, err
	}
	theirs, ours, err := os.Pipe()
	if err != nil {
		return in, os.NewSyscallError("pipe", err)
	}
	defer theirs.Close()
	// It is smaller than a pipe's buffer, pipe(7).
	if _, err := ours.Write(text); err != nil {
		return in, err
	}
	ours.Close()
	args := append([]string{"run", "--ifname=doctor", "--kill-on-exit"}, flags...)
	args = append(args, "/dev/fd/3", "--", "/proc/self/exe")
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append(args, look...)...)
	cmd.Env, cmd.Dir, cmd.ExtraFiles = environ, "/", []*os.File{theirs}
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return in, said(stderr.String(), err)
	}
	return in, json.Unmarshal(stdout.Bytes(), &in)
}

// said returns the last error that run printed, and its hint.
func said(stderr string, err error) error {
	e := &tryError{what: err.Error()}
	for line := range strings.Lines(stderr) {
		line = strings.TrimSpace(line)
		if what, ok := strings.CutPrefix(line, "wireguard4netns: "); ok {
			e.what = what
		} else if hint, ok := strings.CutPrefix(line, "hint: "); ok {
			e.hint = hint
		}
	}
	return e
}

// throwaway is a configuration that nobody answers to.
func throwaway() *conf.Config {
	c := &conf.Config{
		Interface: conf.Interface{PrivateKey: newKey(), Addresses: tryAddrs(), DNS: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		Peers:     []conf.Peer{{PublicKey: newKey().PublicKey(), Endpoint: conf.Endpoint{Host: "127.0.0.1", Port: 9}}},
	}
	for _, a := range c.Interface.Addresses {
		c.Peers[0].AllowedIPs = append(c.Peers[0].AllowedIPs, netip.PrefixFrom(a.Addr(), 0).Masked())
	}
	return c
}

func newKey() conf.PrivateKey {
	var b [32]byte
	rand.Read(b[:]) // never fails, crypto/rand
	return conf.NewPrivateKey(b)
}

// Look is the role of the program in a tunnel that is tried.
func Look() (in Inside, err error) {
	for network, address := range map[string]string{"udp4": "198.51.100.1:9", "udp6": "[2001:db8:1::1]:9"} {
		// It sends nothing, but takes a route and the address that goes with it.
		if c, err := net.Dial(network, address); err == nil {
			in.Sources = append(in.Sources, c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap())
			c.Close()
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs("/etc", &st); err != nil {
		return in, &os.PathError{Op: "statfs", Path: "/etc", Err: err}
	}
	in.Overlay = st.Type == unix.OVERLAYFS_SUPER_MAGIC
	return in, nil
}

func (m *Machine) tunnel(ctx context.Context) Finding {
	in, err := m.Try(ctx)
	if err != nil {
		return m.tryFailure(err)
	}
	for _, want := range tryAddrs() {
		if !slices.Contains(in.Sources, want.Addr()) {
			return fail(Advice{Why: "the kernel took the address and the route, and does not use them"},
				"a program in the tunnel speaks from %v and not from %s", in.Sources, want.Addr())
		}
	}
	return ok("run works: namespaces, TUN device, addresses, routes, a program inside")
}

// tryFailure is a finding of what run said, with its own hint.
func (m *Machine) tryFailure(err error) Finding {
	var e *tryError
	if errors.As(err, &e) {
		return fail(Advice{Do: e.hint}, "%s", e.what)
	}
	return m.failure(fmt.Errorf("try a tunnel: %w", err))
}

func (m *Machine) overlay(ctx context.Context) Finding {
	in, err := m.Try(ctx)
	if err != nil {
		return m.tryFailure(err)
	}
	if !in.Overlay {
		return note(Advice{Why: "no overlay can be mounted in a user namespace, or something is mounted below /etc; files that appear in the host's /etc later are not seen inside"},
			"/etc inside is made of links to the host's")
	}
	return ok("/etc inside is an overlay over the host's")
}

func (m *Machine) sandbox(ctx context.Context) Finding {
	if _, err := m.Try(ctx, "--sandbox=strict"); err != nil {
		return note(Advice{Why: "run goes on without what is missing; with --sandbox=strict it does not"}, "not every layer of the engine's sandbox can be had: %v", err)
	}
	return ok("the engine can be closed in by every layer: namespaces, empty root, capabilities, landlock, seccomp")
}
