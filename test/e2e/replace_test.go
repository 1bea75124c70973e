package e2e_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/nstest"
)

// A tunnel changes the program that serves it: the process, the link, programs
// inside and their connections stay, and so does what set has changed.
func TestReplace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conf := w.account(t, "DNS = 10.77.0.1")
	before := w.snapshot(t)
	w.mustRun(t, "up", "--name", "home", conf)
	app := w.tool("exec", "home", "--", "sh", "-c", `while read -r line; do eval "$line" 2>&1; echo; echo END; done; exit 7`)
	input, see := ask(t, app)
	contains(t, see("ping -c 1 -w 15 "+w.peer.Addr4.String()), " bytes from ")
	stream := startStream(t, w, "home", 9000)
	peer := w.status(t, "home").Peers[0]
	w.mustRun(t, "set", "home", "peer", peer.PublicKey, "persistent-keepalive", "17")
	old := w.status(t, "home")

	other := w.program + "-other"
	text, err := os.ReadFile(w.program)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other, text, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(other) })
	link := see("cat /sys/class/net/wg0/ifindex; readlink /proc/self/ns/net")
	if out := succeed(t, w.user.command(other, "up", "--replace", "--name", "home", conf)); out != "" {
		t.Errorf("up --replace said %q", out)
	}

	s := w.status(t, "home")
	if s.SupervisorPID != old.SupervisorPID || s.EnginePID == old.EnginePID || !s.Since.Equal(old.Since) || len(s.Processes) != 2 {
		t.Errorf("before %+v\nafter %+v", old, s)
	}
	if exe := w.machine.Run(t, "readlink", fmt.Sprintf("/proc/%d/exe", s.SupervisorPID)); !strings.Contains(exe, "-other") {
		t.Errorf("the supervisor runs %s", exe)
	}
	if got := see("cat /sys/class/net/wg0/ifindex; readlink /proc/self/ns/net"); got != link {
		t.Errorf("another link or namespace: %s, before %s", got, link)
	}
	stream.check(t, waiting)
	contains(t, see("ping -c 1 -w 15 "+w.peer.Addr4.String()), " bytes from ")
	for _, p := range w.machine.Processes() {
		if strings.Contains(p.Command, "defunct") || p.PID == old.EnginePID {
			t.Errorf("left: %+v", p)
		}
	}
	input.Close()
	if code := exitCode(t, app, waiting); code != 7 {
		t.Errorf("the program's exit code is %d", code)
	}
	stream.stop(t)
	w.mustRun(t, "down", "home")
	before.Check(t)
}

// What cannot be replaced says so, and goes on.
func TestReplaceRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conf := w.account(t)
	// A tunnel of run ends with its program, whose parent is of the old version.
	run := w.tool("run", "--name", "home", conf, "--", "sh", "-c", "echo $$; read -r _")
	hold(t, run)
	_, errs, code := w.run(t, "up", "--replace", "--name", "home", conf)
	if code != 125 || strings.Count(errs, "\n") != 2 || !strings.Contains(errs, "not made by up") {
		t.Errorf("%d, %s", code, errs)
	}
	if got := len(w.status(t, "home").Processes); got != 1 {
		t.Errorf("%d processes inside", got)
	}
	// Where there is none, --replace is up.
	w.mustRun(t, "up", "--replace", "--name", "new", conf)
	w.mustRun(t, "down", "new")
}

// A tunnel that waited for its first handshake does not wait for another one, and says
// when the last was.
func TestReplaceWhenNobodyAnswers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conf := w.account(t)
	w.mustRun(t, "up", "--name", "home", "--wait=15s", conf)
	old := w.status(t, "home")
	w.peer.Stop()
	for range 2 {
		w.mustRun(t, "up", "--replace", "--name", "home", "--wait=15s", conf)
		s := w.status(t, "home")
		if s.SupervisorPID != old.SupervisorPID || s.EnginePID == old.EnginePID || s.State != "up" || !s.Peers[0].LastHandshake.Equal(old.Peers[0].LastHandshake) {
			t.Errorf("before %+v\nafter %+v", old, s)
		}
	}
	w.mustRun(t, "down", "home")
}

// A tunnel keeps the flags that it was made with: others are refused, in a line that
// names them and one that says what to do, and nothing changes. The same ones, though
// said in another way, are not.
func TestReplaceWithOtherFlags(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conf := w.account(t)
	w.mustRun(t, "up", "--name", "home", "--dns", "10.0.0.9,example.com", "--on-down", "true", "--hooks", conf)
	old := w.status(t, "home")
	for _, test := range []struct {
		flags string
		names string // that are refused
	}{
		{"--dns=10.0.0.8", "--dns"},
		{"--dns=host", "--dns"},
		{"--hooks=false --engine=wireguard-go --dns=10.0.0.9 --dns=example.com", "--engine, --hooks"},
		{"--metrics=127.0.0.1:9586 --sandbox=none -v", "--metrics, --sandbox, --verbose"},
		{"--on-up=true --on-down=false --on-handshake=true", "--on-down, --on-handshake, --on-up"},
		{"--expose=/run/user --ifname=wg9", "--expose, --ifname"},
	} {
		_, errs, code := w.run(t, append(append([]string{"up", "--replace", "--name", "home"}, strings.Fields(test.flags)...), conf)...)
		line, hint, _ := strings.Cut(errs, "\n")
		if code != 125 || !strings.HasSuffix(line, ": it was made with other flags: "+test.names) || !strings.Contains(hint, "leave them out") || strings.Count(errs, "\n") != 2 {
			t.Errorf("%s: %d, %s", test.flags, code, errs)
		}
	}
	if s := w.status(t, "home"); s.SupervisorPID != old.SupervisorPID || s.EnginePID != old.EnginePID {
		t.Errorf("before %+v\nafter %+v", old, s)
	}
	// The second time it is known to who took over.
	for range 2 {
		w.mustRun(t, "up", "--replace", "--name", "home", "--wait", "--hooks=true", "--dns=10.0.0.9", "--dns=example.com", "--engine=native", "--sandbox=auto", "--ifname=wg0", conf)
		w.mustRun(t, "up", "--replace", "--name", "home", conf)
	}
	if s := w.status(t, "home"); s.SupervisorPID != old.SupervisorPID || s.EnginePID == old.EnginePID || fmt.Sprint(s.DNS) != "[10.0.0.9]" {
		t.Errorf("before %+v\nafter %+v", old, s)
	}
	w.mustRun(t, "down", "home")
}

// replacement asks a supervisor to become any file.
type replacement struct{ Socket, Line, File string }

var replaceBy = nstest.NewFunc("replaceBy", func(r replacement) (answer string, err error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: r.Socket})
	if err != nil {
		return "", err
	}
	defer c.Close()
	var rights []byte
	if r.File != "" {
		f, err := os.Open(r.File)
		if err != nil {
			return "", err
		}
		defer f.Close()
		rights = unix.UnixRights(int(f.Fd()))
	}
	if _, _, err := c.WriteMsgUnix([]byte(r.Line+"\n"), rights, nil); err != nil {
		return "", err
	}
	return bufio.NewReader(c).ReadString('\n')
})

// What is no program, or one of a version that hands over otherwise, is refused, and
// the tunnel goes on as it was.
func TestReplaceByNonsense(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conf := w.account(t)
	before := w.snapshot(t)
	w.mustRun(t, "up", "--name", "home", conf)
	old := w.status(t, "home")
	files := openFiles(t, old.SupervisorPID)
	for _, r := range []struct{ line, file, said string }{
		{`{"Replace":{"Format":1}}`, conf, "execute the new program: permission denied"},
		{`{"Replace":{"Format":1}}`, "/dev/null", "execute the new program: permission denied"},
		{`{"Replace":{"Format":1}}`, textProgram(t), "execute the new program: exec format error"},
		{`{"Replace":{"Format":1}}`, "", "no program came with the request"},
		{`{"Replace":{"Format":99}}`, w.program, "its version and this one cannot hand over to each other"},
	} {
		got, err := replaceBy.Call(w.user.command, replacement{old.Directory + "/control", r.line, r.file})
		if err != nil || !strings.Contains(got, r.said) {
			t.Errorf("%s with %q: %s, %v", r.line, r.file, got, err)
		}
	}
	if s := w.status(t, "home"); s.SupervisorPID != old.SupervisorPID || s.EnginePID != old.EnginePID {
		t.Errorf("before %+v\nafter %+v", old, s)
	}
	contains(t, w.mustRun(t, "exec", "home", "--", "ping", "-c", "1", "-w", "15", w.peer.Addr4.String()), " bytes from ")
	nstest.Eventually(t, waiting, func() error {
		// One is the connection of who asks no more, another the state that is kept.
		if now := openFiles(t, old.SupervisorPID); now > files+1 {
			return fmt.Errorf("%d open files, before %d", now, files)
		}
		return nil
	})
	w.mustRun(t, "down", "home")
	before.Check(t)
}

// textProgram is a file that may be executed and is none.
func textProgram(t *testing.T) string {
	t.Helper()
	path := t.TempDir() + "/text"
	if err := os.WriteFile(path, []byte("just text\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
