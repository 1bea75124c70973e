package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"wireguard4netns/internal/nstest"
)

// scrape gets the metrics at an address as --metrics has it.
var scrape = nstest.NewFunc("scrape", func(address string) (string, error) {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, host string) (net.Conn, error) {
		if path, ok := strings.CutPrefix(address, "unix:"); ok {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
		return new(net.Dialer).DialContext(ctx, "tcp", host)
	}}
	host := address
	if strings.HasPrefix(address, "unix:") {
		host = "tunnel"
	}
	answer, err := (&http.Client{Transport: transport, Timeout: 15 * time.Second}).Get("http://" + host + "/metrics")
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, text)
	}
	return string(text), err
})

// metrics returns the values at an address, by name and label.
func (w *world) metrics(t *testing.T, address string) (values map[string]float64, text string) {
	t.Helper()
	text, err := scrape.Call(w.user.command, address)
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := promlint.New(strings.NewReader(text)).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	values = map[string]float64{}
	for name, f := range families {
		name = strings.TrimPrefix(name, "wireguard4netns_")
		for _, m := range f.Metric {
			key := name
			for _, l := range m.Label {
				key += " " + l.GetValue()
			}
			values[key] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return values, text
}

// Prometheus is told what is so, over a unix socket and over the loopback of either
// family, and only there.
func TestMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conf := w.account(t, "DNS = 10.77.0.1")
	socket := filepath.Join(t.TempDir(), "metrics")
	before := w.snapshot(t)
	w.mustRun(t, "up", "--name", "home", "--metrics", "unix:"+socket, conf)
	s := w.status(t, "home")
	peer := s.Peers[0].Name
	if peer == "" {
		peer = s.Peers[0].PublicKey
	}
	values, _ := w.metrics(t, "unix:"+socket)
	want := map[string]float64{
		"info home wg0": 1, "up": 1, "link_mtu_bytes": 1440, "engine_restarts_total": 0, "start_time_seconds": values["start_time_seconds"],
		"endpoint_resolutions_total answered": 0, "endpoint_resolutions_total failed": 0,
		"peer_last_handshake_timestamp_seconds " + peer: 0, "peer_receive_bytes_total " + peer: 0, "peer_transmit_bytes_total " + peer: 0,
	}
	for name, value := range want {
		if got, ok := values[name]; !ok || got != value {
			t.Errorf("%s is %v (%t), not %v", name, got, ok, value)
		}
	}
	if len(values) != len(want) || time.Since(time.UnixMilli(int64(1000*values["start_time_seconds"]))) > time.Minute {
		t.Errorf("%v", values)
	}

	w.mustRun(t, "exec", "home", "--", "ping", "-c", "1", "-w", "15", w.peer.Addr4.String())
	values, text := w.metrics(t, "unix:"+socket)
	p := w.status(t, "home").Peers[0]
	if values["peer_receive_bytes_total "+peer] != float64(p.RxBytes) || values["peer_transmit_bytes_total "+peer] != float64(p.TxBytes) ||
		int64(values["peer_last_handshake_timestamp_seconds "+peer]) != p.LastHandshake.Unix() || p.RxBytes == 0 {
		t.Errorf("%v\nstatus: %+v", values, p)
	}
	lacks(t, text, w.secrets(t, conf)...)
	if err := syscall.Kill(s.EnginePID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	nstest.Eventually(t, waiting, func() error {
		if values, _ := w.metrics(t, "unix:"+socket); values["engine_restarts_total"] != 1 || values["up"] != 1 {
			return fmt.Errorf("%v", values)
		}
		return nil
	})

	for i, address := range []string{"127.0.0.1:9586", "[::1]:9586"} {
		name := "tcp" + strconv.Itoa(i)
		w.mustRun(t, "up", "--name", name, "--metrics", address, conf)
		if values, _ := w.metrics(t, address); values["info "+name+" wg0"] != 1 {
			t.Errorf("%s: %v", address, values)
		}
	}
	// Taken, by a tunnel and by a file: an error, a hint, and nothing is left.
	for _, taken := range []string{"127.0.0.1:9586", "unix:" + socket, "unix:" + conf} {
		_, errs, code := w.run(t, "up", "--name", "other", "--metrics", taken, conf)
		if code != 125 || strings.Count(errs, "\n") != 2 || !strings.Contains(errs, "serve metrics: ") || !strings.Contains(errs, "\nhint: ") {
			t.Errorf("at %s: exit code %d: %s", taken, code, errs)
		}
	}
	// Not for others: nor is a mistake passed over.
	for _, bad := range []string{"0.0.0.0:9586", "192.0.2.2:9586", "localhost:9586", "9586", "unix:"} {
		_, errs, code := w.run(t, "run", "--metrics", bad, conf, "true")
		if code != 125 || strings.Count(errs, "\n") != 2 || !strings.Contains(errs, "loopback") || !strings.Contains(errs, "127.0.0.1:9586") {
			t.Errorf("--metrics %s: exit code %d: %s", bad, code, errs)
		}
	}

	// What a killed supervisor leaves is no hindrance to the next.
	if err := syscall.Kill(s.SupervisorPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	nstest.Eventually(t, waiting, func() error {
		if out := w.mustRun(t, "list"); strings.Contains(out, "home") {
			return fmt.Errorf("list: %s", out)
		}
		return nil
	})
	w.mustRun(t, "up", "--name", "home", "--metrics", "unix:"+socket, conf)
	// A handover keeps it, too.
	w.mustRun(t, "up", "--replace", "--name", "home", conf)
	if values, _ := w.metrics(t, "unix:"+socket); values["up"] != 1 {
		t.Errorf("after a handover: %v", values)
	}
	w.mustRun(t, "down", "--all")
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
	before.Check(t)
}

// Lookups of a name are counted by how they end.
func TestMetricsOfResolutions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address := "unix:" + filepath.Join(t.TempDir(), "metrics")
	conf := w.named(t) // a name that nobody knows
	w.machine.WriteFile(t, "/etc/nsswitch.conf", "hosts: files\n")
	w.mustRun(t, "up", "--name", "home", "--metrics", address, conf)
	counted := func(ended string) {
		t.Helper()
		nstest.Eventually(t, 30*time.Second, func() error {
			if values, _ := w.metrics(t, address); values["endpoint_resolutions_total "+ended] == 0 {
				return fmt.Errorf("%v", values)
			}
			return nil
		})
	}
	ping := w.tool("exec", "home", "--", "ping", "-c", "1", "-W", "60", w.peer.Addr4.String())
	nstest.Start(t, ping)
	counted("failed")
	w.rename(t, "192.0.2.1")
	counted("answered")
	w.mustRun(t, "down", "home")
	syscall.Kill(ping.Process.Pid, syscall.SIGTERM)
	exitCode(t, ping, waiting)
}
