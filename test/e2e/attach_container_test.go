package e2e_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"wireguard4netns/internal/nstest"
)

// Podman and RootlessKit need a real user's subordinate uids, so their
// namespaces are made on the real machine. There the peer is a Host that was
// attached to, and the two tunnels meet on the loopback device.
type realWorld struct {
	program string
	dir     string // XDG_RUNTIME_DIR
	port    uint16
}

func newRealWorld(t *testing.T, route string) (w *realWorld, conf string) {
	t.Helper()
	w = &realWorld{program: nstest.Build(t), dir: t.TempDir(), port: nstest.FreePort(t)}
	peerKey, ourKey := newKey(t), newKey(t)
	peer := nstest.NewHost(t)
	peer.Serve(t, nstest.Services{Page: "home page"})
	peerConf := fmt.Sprintf("[Interface]\nPrivateKey = %s\nListenPort = %d\nAddress = 10.77.0.1/24\n\n[Peer]\nPublicKey = %s\nAllowedIPs = 10.77.0.2/32\n",
		encode(peerKey.Bytes()), w.port, encode(ourKey.PublicKey().Bytes()))
	w.attach(t, "-c", strconv.Itoa(peer.PID()), "wg0", writeConf(t, peerConf))
	return w, writeConf(t, fmt.Sprintf("[Interface]\nPrivateKey = %s\nAddress = 10.77.0.2/32\n\n[Peer]\nPublicKey = %s\nEndpoint = 127.0.0.1:%d\nAllowedIPs = %s\n",
		encode(ourKey.Bytes()), encode(peerKey.PublicKey().Bytes()), w.port, route))
}

func newKey(t testing.TB) *ecdh.PrivateKey {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func encode(key []byte) string { return base64.StdEncoding.EncodeToString(key) }

// writeConf writes wg0.conf in a directory of its own and returns its path.
func writeConf(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "wg0.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (w *realWorld) attach(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	return startReady(t, func(flag string) *exec.Cmd {
		cmd := exec.Command(w.program, append([]string{"attach", flag}, args...)...)
		cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+w.dir)
		return cmd
	})
}

// tunnels lists the directories of the tunnels there are.
func (w *realWorld) tunnels(t testing.TB) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(w.dir, "wireguard4netns", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// checkGone fails the test unless attach ends by itself and leaves nothing.
// Its processes end before the directory goes.
func (w *realWorld) checkGone(t testing.TB, attach *exec.Cmd) {
	t.Helper()
	if code := exitCode(t, attach, goneWithin); code != 0 {
		t.Errorf("exit code %d after the namespace went", code)
	}
	if left := w.tunnels(t); len(left) != 1 { // the peer's
		t.Errorf("tunnels left: %v", left)
	}
}

func podman(args ...string) *exec.Cmd {
	return exec.Command("podman", append([]string{"--runtime=runc", "--cgroup-manager=cgroupfs"}, args...)...)
}

// TestAttachPodman gives rootless containers that have no network one.
func TestAttachPodman(t *testing.T) {
	t.Parallel()
	for form, flags := range map[string][]string{
		"default": nil,
		"user":    {"--user=1000"},
		"keep-id": {"--userns=keep-id"},
	} {
		t.Run(form, func(t *testing.T) {
			w, conf := newRealWorld(t, "0.0.0.0/0")
			name, pid := nstest.StartContainer(t, append(flags, "--network=none")...)
			attach := w.attach(t, "--configure", strconv.Itoa(pid), "wg0", conf)
			contains(t, succeed(t, podman("exec", name, "ip", "addr")), "wg0: <POINTOPOINT,MULTICAST,NOARP,UP", "inet 10.77.0.2/32")
			contains(t, succeed(t, podman("exec", name, "wget", "-qO-", "http://10.77.0.1/")), "home page")
			succeed(t, podman("rm", "--force", "--time=0", name))
			w.checkGone(t, attach)
		})
	}
}

// TestAttachRootlessKit: its netns has a network already, tap0 of slirp4netns;
// the tunnel is one more.
func TestAttachRootlessKit(t *testing.T) {
	t.Parallel()
	w, conf := newRealWorld(t, "10.77.0.0/24")
	state := filepath.Join(t.TempDir(), "state")
	kit := exec.Command("rootlesskit", "--state-dir="+state, "--net=slirp4netns", "--disable-host-loopback",
		"sh", "-c", "echo ready; read -r _")
	input, err := kit.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	firstLine(t, kit)
	text, err := os.ReadFile(filepath.Join(state, "child_pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	attach := w.attach(t, "--configure", fmt.Sprintf("/proc/%d/ns/net", pid), "wg0", conf)
	contains(t, succeed(t, enter(pid, "ip", "route")), "10.77.0.0/24 dev wg0", "default via 10.0.2.2 dev tap0")
	if _, err := echo.Call(entering(pid), transfer{Addr: "10.77.0.1:7", Bytes: 256 << 10}); err != nil {
		t.Error(err)
	}
	input.Close()
	w.checkGone(t, attach)
}
