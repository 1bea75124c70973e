package run_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/nstest"
)

// forms are how a key may be written.
func forms(t *testing.T, key string) map[string][]byte {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"raw": raw, "base64": []byte(strings.TrimRight(key, "=")),
		"hex": []byte(hex.EncodeToString(raw)), "HEX": []byte(strings.ToUpper(hex.EncodeToString(raw))),
	}
}

// inMemory returns in what forms the keys are in a process's memory.
func inMemory(t *testing.T, pid int, keys map[string]string) (found []string) {
	t.Helper()
	memory, err := readMemory(pid)
	if err != nil {
		t.Fatal(err)
	}
	if len(memory) < 100_000 {
		t.Fatalf("only %d bytes of process %d could be read", len(memory), pid)
	}
	for name, key := range keys {
		for form, text := range forms(t, key) {
			if bytes.Contains(memory, text) {
				found = append(found, name+" in "+form)
			}
		}
	}
	return found
}

// readMemory returns all that a process has written or may write to.
func readMemory(pid int) (all []byte, err error) {
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uint64
		var mode string
		if _, err := fmt.Sscanf(strings.Replace(lines.Text(), "-", " ", 1), "%x %x %s", &from, &to, &mode); err != nil {
			return nil, err
		}
		if mode[0] != 'r' || from > math.MaxInt64 {
			continue
		}
		part, err := peek(pid, from, to)
		if err != nil && !errors.Is(err, unix.EFAULT) { // vvar cannot be read
			return nil, err
		}
		all = append(all, part...)
	}
	return all, nil
}

// peek reads the memory of a process, which may be one that is not dumpable: its
// files in /proc are root's.
func peek(pid int, from, to uint64) ([]byte, error) {
	part := make([]byte, to-from)
	if len(part) == 0 {
		return nil, nil
	}
	n, err := unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &part[0], Len: to - from}}, []unix.RemoteIovec{{Base: uintptr(from), Len: int(to - from)}}, 0)
	return part[:max(n, 0)], err
}

// startOf returns the arguments and the environment that a process was started
// with, by their places in proc_pid_stat(5).
func startOf(pid int) ([]byte, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const argStart, envEnd = 48 - 3, 51 - 3
	from, err := strconv.ParseUint(fields[argStart], 10, 64)
	if err != nil {
		return nil, err
	}
	to, err := strconv.ParseUint(fields[envEnd], 10, 64)
	if err != nil {
		return nil, err
	}
	return peek(pid, from, to)
}

func TestKeysAreWhereTheyMustBeOnly(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	keys := map[string]string{"private key": m.private, "preshared key": m.psk}
	cmd := m.run("--verbose", "--", "sleep", "300")
	nstest.Start(t, cmd)
	m.processNamed(t, "sleep 300")
	if found := inMemory(t, m.processNamed(t, "wireguard4netns-wait"), keys); found != nil {
		t.Errorf("the waiter has the %v", found)
	}
	if found := inMemory(t, m.processNamed(t, "wireguard4netns-engine"), keys); found == nil {
		t.Error("the engine has no keys: this search finds nothing")
	}
	for _, p := range m.Processes() {
		text, err := startOf(p.PID)
		if err != nil || !bytes.Contains(text, []byte("GOMAXPROCS=")) && strings.HasPrefix(p.Command, "wireguard4netns-engine") {
			t.Errorf("arguments and environment of %v: %q, %v", p, text, err)
		}
		for _, key := range keys {
			for form, secret := range forms(t, key) {
				if bytes.Contains(text, secret) {
					t.Errorf("%v was started with a key in %s", p, form)
				}
			}
		}
	}
	for _, name := range []string{"wireguard4netns-supervisor", "wireguard4netns-engine"} {
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", m.processNamed(t, name)))
		if err != nil || !bytes.Contains(limits, []byte("Max core file size        0                    0")) {
			t.Errorf("%s may write a core file (%v)", name, err)
		}
	}
	files := m.RunUser(t, "sh", "-c", "find /run/user/1000/wireguard4netns -type f -exec cat {} +")
	for _, key := range keys {
		for form, secret := range forms(t, key) {
			if strings.Contains(files, string(secret)) {
				t.Errorf("a key in %s is in the state directory", form)
			}
		}
	}
	cmd.Process.Signal(unix.SIGTERM)
	await(t, cmd)
}

// The process that has read the file writes no core file either, and nobody of
// the same user can look into it.
func TestFrontHidesItsMemory(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	before := nstest.TakeSnapshot(t, m.Host, "/run")
	cmd := m.run("--wait=1h", "--", "true")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	nstest.Start(t, cmd)
	m.processNamed(t, "wireguard4netns-engine")
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/mem", cmd.Process.Pid), &st); err != nil || int(st.Uid) == os.Getuid() {
		t.Errorf("the front may be traced: its files in /proc are of uid %d (%v)", st.Uid, err)
	}
	cmd.Process.Signal(unix.SIGQUIT)
	if code := await(t, cmd); code != 131 {
		t.Errorf("exit code %d, want 131", code)
	}
	if strings.Contains(stderr.String(), "goroutine") || strings.Contains(stderr.String(), "PC=") {
		t.Errorf("SIGQUIT printed a stack trace: %s", stderr.String())
	}
	before.Check(t)
}

// Nor is a key in what commands of a tunnel that lives say, in its files, or in what
// any of its processes was started with, after it was changed and taken over.
func TestKeysOfTunnelThatLives(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	before := nstest.TakeSnapshot(t, m.Host, "/run")
	told := m.conf + ".told"
	other := m.conf + ".other"
	text, err := os.ReadFile(m.conf)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, other, strings.Replace(string(text), "51820", "51821", 1))
	said := map[string]string{}
	say := func(args ...string) {
		got := finish(t, m.w4n(args...))
		if got.code != 0 {
			t.Errorf("%q: exit code %d: %s", args, got.code, got.stderr)
		}
		said[strings.Join(args, " ")] = got.stdout + got.stderr
	}
	say("up", "--verbose", "--name=home", "--ifname=wg0", "--metrics=unix:/run/user/1000/metrics", "--on-up=env >"+told+".up", "--on-down=env >"+told, m.conf)
	say("reload", "home", other)
	say("up", "--replace", "--name=home", "--ifname=wg0", m.conf)
	for _, command := range []string{"env", "status", "show", "logs"} {
		say(command, "home")
	}
	say("status", "--json", "home")
	say("list")
	say("monitor", "--once", "--interval=0")
	said["metrics"] = m.RunUser(t, "curl", "-s", "--unix-socket", "/run/user/1000/metrics", "http://tunnel/metrics")
	if !strings.Contains(said["metrics"], "wireguard4netns_up 1") {
		t.Errorf("metrics: %s", said["metrics"])
	}
	for _, p := range m.Processes() {
		text, err := startOf(p.PID)
		if err != nil {
			t.Errorf("arguments and environment of %v: %v", p, err)
		}
		said[p.String()] = string(text)
	}
	for name := range map[string]bool{"supervisor": true, "engine": true, "hold": true} {
		m.processNamed(t, "wireguard4netns-"+name) // they were among them
	}
	said["files"] = m.RunUser(t, "sh", "-c", "find /run/user/1000/wireguard4netns -type f -exec cat {} +")
	say("down", "home")
	for _, name := range []string{told, told + ".up"} {
		env, err := os.ReadFile(name)
		if err != nil || !strings.Contains(string(env), "W4N_NAME=home") {
			t.Errorf("%s, %v", env, err)
		}
		said[name] = string(env)
	}
	for where, text := range said {
		for name, key := range map[string]string{"private key": m.private, "preshared key": m.psk} {
			for form, secret := range forms(t, key) {
				if strings.Contains(text, string(secret)) {
					t.Errorf("the %s in %s is in %s", name, form, where)
				}
			}
		}
	}
	before.Check(t)
}
