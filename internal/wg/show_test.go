package wg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wireguard4netns/internal/uapi"
)

// still is an engine whose answer does not change.
type still []byte

func (s still) Get(context.Context) ([]byte, error) { return s, nil }
func (s still) Set(context.Context, []byte) error   { return errors.New("not to be set") }

// key is 32 bytes in the UAPI's digits.
func key(digit string) string { return strings.Repeat(digit, 64) }

// devices are replies of a get.
func devices(now time.Time) map[string]string {
	handshake := func(ago time.Duration) string {
		return fmt.Sprintf("last_handshake_time_sec=%d\nlast_handshake_time_nsec=5\n", now.Add(-ago).Unix())
	}
	const year = 365 * 24 * time.Hour
	return map[string]string{
		"nothing": "",
		"no peer": "private_key=" + key("4") + "\nlisten_port=51820\nfwmark=51820\n",
		"one peer": "private_key=" + key("1") + "\nlisten_port=1\n" +
			"public_key=" + key("2") + "\nendpoint=192.0.2.1:51820\n" + handshake(61*time.Second) + "tx_bytes=1023\nrx_bytes=1024\nallowed_ip=0.0.0.0/0\n",
		"many peers": "private_key=" + key("5") + "\n" +
			"public_key=" + key("2") + "\n" + // nothing is known of it
			"public_key=" + key("3") + "\npreshared_key=" + key("7") + "\nendpoint=[2001:db8::1]:65535\n" + handshake(3*time.Hour+time.Second) +
			"tx_bytes=1048575\nrx_bytes=1048576\npersistent_keepalive_interval=25\nallowed_ip=10.0.0.0/8\nallowed_ip=fd00::/7\nallowed_ip=::/0\n" +
			"public_key=" + key("a") + "\npreshared_key=" + key("0") + "\nendpoint=[fe80::1%lo]:9\n" + handshake(time.Minute) + "rx_bytes=1\npersistent_keepalive_interval=0\n" +
			"public_key=" + key("b") + "\n" + handshake(2*year+24*time.Hour) + "tx_bytes=1099511627775\nrx_bytes=18446744073709551615\npersistent_keepalive_interval=65535\n" +
			"allowed_ip=::192.0.2.0/120\nallowed_ip=::1/128\nallowed_ip=::2:0/112\nallowed_ip=::ffff:1.2.3.4/128\nallowed_ip=2001:0:0:1::/64\n" +
			"public_key=" + key("c") + "\n" + handshake(-time.Hour) +
			"public_key=" + key("d") + "\nlast_handshake_time_sec=0\nlast_handshake_time_nsec=0\ntx_bytes=3221225472\nallowed_ip=192.0.2.7/32\n" +
			"public_key=" + key("e") + "\npersistent_keepalive_interval=3600\n" + handshake(0),
	}
}

// What we print is what wg(8) prints of the same device.
func TestAsWG(t *testing.T) {
	t.Parallel()
	for title, body := range devices(time.Now()) {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			d, err := uapi.Parse(strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			wg := realWG(t, body)
			show := func(s Style) func(time.Time) string {
				return func(now time.Time) string { return Show("wg0", d, s, now) }
			}
			same(t, show(Style{}), wg, "show")
			same(t, show(Style{}), wg, "show", "wg0")
			same(t, show(Style{Keys: true}), wg, "WG_HIDE_KEYS=never", "show", "wg0")
			same(t, show(Style{Colour: true}), wg, "WG_COLOR_MODE=always", "show", "wg0")
			same(t, func(time.Time) string { return ShowConf(d) }, wg, "showconf", "wg0")
			for _, field := range Fields {
				for interfaces, name := range map[string]string{"wg0": "", "all": "wg0"} {
					if field+interfaces == "endpointsall" {
						continue // wg 1.0.20210914 has the name once, and not on each line as wg(8) says
					}
					same(t, func(time.Time) string { text, _ := Field(name, d, field); return text }, wg, "show", interfaces, field)
				}
			}
		})
	}
	if _, ok := Field("", uapi.Device{}, "colour"); ok {
		t.Error("a field that wg has not")
	}
}

// realWG returns a function that runs wg(8) with an engine that answers body.
// Words before its arguments that begin with WG_ are for its environment.
func realWG(t *testing.T, body string) func(args ...string) string {
	return wgOn(t, still(body))
}

func wgOn(t *testing.T, engine uapi.Engine) func(args ...string) string {
	path := filepath.Join(t.TempDir(), "wg0.sock")
	l, err := uapi.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- l.Serve(context.Background(), engine) }()
	t.Cleanup(func() {
		if err := errors.Join(l.Close(), <-served); err != nil {
			t.Error(err)
		}
	})
	return func(args ...string) string {
		t.Helper()
		n := 0
		for strings.HasPrefix(args[n], "WG_") {
			n++
		}
		cmd := exec.Command("unshare", append([]string{"--user", "--mount", "--map-root-user", "--", "sh", "-ec",
			`mount -t tmpfs run /run; mkdir /run/wireguard; ln -s "$0" /run/wireguard/wg0.sock; exec wg "$@"`, path}, args[n:]...)...)
		cmd.Env = append(os.Environ(), args[:n]...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("wg %v: %v\n%s", args, err, stderr.String())
		}
		return string(out)
	}
}

// same compares with what we print in one of the seconds in which wg(8) ran.
func same(t *testing.T, ours func(now time.Time) string, wg func(...string) string, args ...string) {
	t.Helper()
	before := time.Now()
	want := wg(args...)
	after := time.Now().Add(time.Second)
	for now := before; now.Before(after); now = now.Add(time.Second / 4) {
		if ours(now) == want {
			return
		}
	}
	t.Errorf("wg %s:\n%q\nand we:\n%q", strings.Join(args, " "), want, ours(before))
}

// Whatever an engine says, each line has its columns.
func FuzzField(f *testing.F) {
	for _, body := range devices(time.Unix(1<<30, 0)) {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		d, err := uapi.Parse(strings.NewReader(body))
		if err != nil {
			return
		}
		text, _ := Field("", d, "dump")
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		if len(lines) != 1+len(d.Peers) {
			t.Fatalf("%d lines of %d peers", len(lines), len(d.Peers))
		}
		for i, line := range lines {
			if want := []int{4, 8}[min(i, 1)]; len(strings.Split(line, "\t")) != want {
				t.Errorf("line %d: %q", i, line)
			}
		}
		if text := Show("wg0", d, Style{}, time.Now()); strings.Contains(text, "\x1b") {
			t.Error("colour")
		}
	})
}
