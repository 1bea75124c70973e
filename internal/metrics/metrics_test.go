package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"wireguard4netns/internal/metrics"
)

var full = metrics.Tunnel{
	Name: "home", Interface: "wg0", Began: time.Unix(1700000000, 5e8), MTU: 1420, EngineRestarts: 2, Up: true,
	Resolved: 3, Unresolved: 4,
	Peers: []metrics.Peer{
		{Name: "a \"quoted\\ name\n\xff", PublicKey: "AAAA=", LastHandshake: time.Unix(1700000060, 0), RxBytes: 1 << 63, TxBytes: 9007199254740993},
		{Name: "twice", PublicKey: "BBBB="},
		{Name: "twice", PublicKey: "CCCC="},
		{PublicKey: "DDDD="},
	},
}

// Prometheus' own parser reads back what was told, and its linter has nothing to
// say of names, units and help.
func TestText(t *testing.T) {
	for name, tunnel := range map[string]metrics.Tunnel{"full": full, "engine down": {Name: "home"}} {
		var b strings.Builder
		if _, err := tunnel.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		problems, err := promlint.New(strings.NewReader(b.String())).Lint()
		if err != nil || len(problems) > 0 {
			t.Errorf("%s: lint: %v %v", name, problems, err)
		}
		if strings.Count(b.String(), "# HELP") == 0 || strings.Contains(b.String(), "peer_") != tunnel.Up {
			t.Errorf("%s:\n%s", name, b.String())
		}
	}
	got := values(t, textOf(t, full))
	for metric, want := range map[string]float64{
		"wireguard4netns_info tunnel=home interface=wg0":                                       1,
		"wireguard4netns_up":                                                                   1,
		"wireguard4netns_start_time_seconds":                                                   1700000000.5,
		"wireguard4netns_link_mtu_bytes":                                                       1420,
		"wireguard4netns_engine_restarts_total":                                                2,
		"wireguard4netns_endpoint_resolutions_total result=answered":                           3,
		"wireguard4netns_endpoint_resolutions_total result=failed":                             4,
		"wireguard4netns_peer_last_handshake_timestamp_seconds peer=a \"quoted\\ name\n\uFFFD": 1700000060,
		"wireguard4netns_peer_receive_bytes_total peer=a \"quoted\\ name\n\uFFFD":              1 << 63,
		"wireguard4netns_peer_transmit_bytes_total peer=BBBB=":                                 0,
		"wireguard4netns_peer_transmit_bytes_total peer=CCCC=":                                 0,
		"wireguard4netns_peer_last_handshake_timestamp_seconds peer=DDDD=":                     0,
	} {
		if v, ok := got[metric]; !ok || v != want {
			t.Errorf("%s: %v (%t), not %v", metric, v, ok, want)
		}
	}
	if len(got) != 7+3*len(full.Peers) {
		t.Errorf("%d samples: %v", len(got), got)
	}
}

func textOf(t *testing.T, tunnel metrics.Tunnel) string {
	t.Helper()
	var b strings.Builder
	if _, err := tunnel.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// values reads the text: the name and the labels of each sample, and its value.
func values(t *testing.T, text string) map[string]float64 {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	all := map[string]float64{}
	for name, f := range families {
		for _, m := range f.Metric {
			key := name
			for _, l := range m.Label {
				key += " " + l.GetName() + "=" + l.GetValue()
			}
			if _, again := all[key]; again {
				t.Errorf("%s is there twice", key)
			}
			all[key] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return all
}

func TestParseAddress(t *testing.T) {
	for _, good := range []string{"unix:/run/m.sock", "unix:m.sock", "127.0.0.1:9586", "127.0.0.2:9586", "[::1]:9586"} {
		if a, err := metrics.ParseAddress(good); err != nil || a.IsZero() || a.Path != "" && !filepath.IsAbs(a.Path) {
			t.Errorf("%s: %+v, %v", good, a, err)
		}
	}
	for _, bad := range []string{"", "unix:", "unix:/run/", "9586", ":9586", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999",
		"localhost:9586", "0.0.0.0:9586", "[::]:9586", "192.0.2.1:9586", "::1:9586", "[fe80::1%lo]:9586", "http://127.0.0.1:1"} {
		if a, err := metrics.ParseAddress(bad); !errors.Is(err, metrics.ErrAddress) {
			t.Errorf("%q: %+v, %v", bad, a, err)
		}
	}
}

func TestServe(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("long", 40), "metrics.sock")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	at := metrics.Address{Path: path}
	s, err := metrics.Serve(at, func(context.Context) metrics.Tunnel { return full })
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := metrics.Serve(at, nil); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("where somebody listens: %v", err)
	}
	for _, c := range []struct {
		method, path string
		code         int
	}{
		{"GET", "/metrics", 200}, {"HEAD", "/metrics", 200}, {"POST", "/metrics", 405}, {"GET", "/", 404}, {"GET", "/metrics/x", 404},
	} {
		body, response := ask(t, path, c.method, c.path)
		if response.StatusCode != c.code {
			t.Errorf("%s %s: %s", c.method, c.path, response.Status)
		}
		if c.code == 200 && response.Header.Get("Content-Type") != metrics.ContentType {
			t.Errorf("content type %s", response.Header.Get("Content-Type"))
		}
		if c.method == "GET" && (c.code == 200) != (body == textOf(t, full)) {
			t.Errorf("%s %s: %s", c.method, c.path, body)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}

	// What a killed process left is replaced; what is no socket is not.
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "left"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	if s, err = metrics.Serve(metrics.Address{Path: left.Addr().String()}, nil); err != nil {
		t.Errorf("a stale socket: %v", err)
	} else {
		s.Close()
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := metrics.Serve(metrics.Address{Path: file}, nil); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("a file: %v", err)
	}
}

// Callers that say nothing, more than are let in, do not hold up a Close.
func TestSilentCallers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m")
	s, err := metrics.Serve(metrics.Address{Path: path}, func(context.Context) metrics.Tunnel { return full })
	if err != nil {
		t.Fatal(err)
	}
	for range 40 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func ask(t *testing.T, socket, method, path string) (body string, _ *http.Response) {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		dir, err := os.Open(filepath.Dir(socket))
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		return new(net.Dialer).DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(socket)))
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequest(method, "http://tunnel"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Transport: transport, Timeout: 15 * time.Second}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), response
}
