package inside

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
)

// The role ends with its socket, at whatever moment, and so do its namespaces.
func TestRoleEndsWithItsSocket(t *testing.T) {
	asHost(t, 1001, func(t *testing.T) {
		moments := map[string]func(conn io.Writer){
			"before the config": func(io.Writer) {},
			"in the config":     func(conn io.Writer) { _, _ = io.WriteString(conn, `{"uid":`) },
			"while it prepares": func(conn io.Writer) { _, _ = io.WriteString(conn, `{"uid":1001,"run":["/run"]}`+"\n") },
		}
		for moment, say := range moments {
			conn, process := spawn(t)
			say(conn)
			_ = conn.Close()
			late := time.AfterFunc(20*time.Second, func() { _ = process.Kill() })
			if state, err := process.Wait(); err != nil || !state.Exited() {
				t.Errorf("socket closed %s: %v, %v", moment, state, err)
			}
			late.Stop()
		}
	})
}

func TestRoleReportsErrors(t *testing.T) {
	asHost(t, 1001, func(t *testing.T) {
		fakeDir(t, "/srv", false)
		host(t, "mkdir -p /srv/run/dir")
		_, err := tryInside(t, Config{Run: []string{"/srv/run"}, Keep: []string{"/srv/run/["}})
		if want := "prepare mounts: keep [: syntax error in pattern"; err == nil || err.Error() != want {
			t.Errorf("bad pattern: got %v, want %s", err, want)
		}
		conn, process := spawn(t)
		defer func() { _ = conn.Close(); _, _ = process.Wait() }()
		if _, err := io.WriteString(conn, "no config\n"); err != nil {
			t.Fatal(err)
		}
		reply, err := io.ReadAll(io.LimitReader(conn, int64(len(lineError))))
		if err != nil || string(reply) != lineError {
			t.Errorf("reply to no config: %q, %v", reply, err)
		}
	})
}

func TestAskRefusesWhatWouldBeCut(t *testing.T) {
	var sent bytes.Buffer
	if _, _, err := Ask(&sent, Config{Keep: []string{strings.Repeat("x", maxMessage)}}); err == nil || sent.Len() > 0 {
		t.Errorf("%d bytes sent, error %v", sent.Len(), err)
	}
}
