package tunnel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/uapi"
)

const (
	// outsideTime bounds a command outside.
	outsideTime = 30 * time.Second

	// heardFor is how long after its end the output is read that others hold.
	heardFor = time.Second

	// outsideLine is where a line of its output is cut, in bytes.
	outsideLine = 4 << 10
)

// Outside are commands that the user has run on the host when something happens to
// the tunnel. An empty one is none.
type Outside struct {
	Up, Down, Handshake string

	Env []string // to which the tunnel's facts are added
	Dir string
}

// IsZero tells that there are none.
func (o *Outside) IsZero() bool { return o.Up == "" && o.Down == "" && o.Handshake == "" }

// Event is what happened: "up", "down" or "handshake", that with a peer.
type Event struct {
	Name string
	Peer uapi.Peer
}

func (o *Outside) command(event string) string {
	return map[string]string{"up": o.Up, "down": o.Down, "handshake": o.Handshake}[event]
}

// RunOutside runs the command for an event by /bin/sh and returns when it has
// ended, or was ended for taking too long. The log has its output and how it
// failed; to the tunnel that is the same.
//
// It is a process of the host with the rights of the user, and has neither a
// descriptor of this process nor a key.
func (t *Tunnel) RunOutside(o Outside, e Event) {
	command := o.command(e.Name)
	if command == "" {
		return
	}
	defer t.HoldOutside()()
	t.Log(fmt.Sprintf("running --on-%s: %s", e.Name, command))
	env := append(slices.Clip(o.Env), t.facts(e)...)
	if err := shell(command, env, o.Dir, outsideTime, &logWriter{line: t.Log}); err != nil {
		t.Log(fmt.Sprintf("run --on-%s %q: %v", e.Name, command, err))
	}
}

// HoldOutside returns when none of these commands runs; none does until its result is
// called.
func (t *Tunnel) HoldOutside() (release func()) {
	t.outside.Lock()
	return t.outside.Unlock
}

// shell runs a command for limit at most: then it is killed, and all that is in its
// process group. What it leaves in the background stays, but is heard no more.
func shell(command string, env []string, dir string, limit time.Duration, output *logWriter) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Env, cmd.Dir = env, dir
	if _, err := os.Stat(dir); err != nil {
		cmd.Dir = "/" // removed since
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = heardFor
	cmd.Stdout, cmd.Stderr = output, output
	err := cmd.Run()
	output.end()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("ended after %v", limit)
	case errors.Is(err, exec.ErrWaitDelay):
		return nil
	}
	return err
}

// logWriter cuts what is written into lines.
type logWriter struct {
	line  func(string)
	begun []byte
}

func (w *logWriter) Write(b []byte) (int, error) {
	for _, c := range b {
		if c == '\n' || len(w.begun) == outsideLine {
			w.end()
		}
		if c != '\n' {
			w.begun = append(w.begun, c)
		}
	}
	return len(b), nil
}

// end ends a line that is begun.
func (w *logWriter) end() {
	if len(w.begun) > 0 {
		w.line(strings.ToValidUTF8(string(w.begun), "?"))
	}
	w.begun = w.begun[:0]
}

// facts is what a command is told of the tunnel.
func (t *Tunnel) facts(e Event) []string {
	p := t.Plan()
	facts := map[string]string{
		"EVENT": e.Name, "NAME": t.Dir.Name(), "INTERFACE": p.Link.Name,
		"ADDRESSES": words(p.Link.Addresses), "DNS": words(p.DNS),
		"DIRECTORY": t.Dir.Path(), "UAPI_SOCKET": t.UAPIPath(),
		"SUPERVISOR_PID": strconv.Itoa(os.Getpid()),
	}
	if e.Name == "handshake" {
		facts["PEER"], facts["PEER_NAME"] = e.Peer.PublicKey.String(), t.PeerName(e.Peer.PublicKey)
		facts["ENDPOINT"] = ""
		if e.Peer.Endpoint.IsValid() {
			facts["ENDPOINT"] = e.Peer.Endpoint.String()
		}
	}
	var env []string
	for _, name := range slices.Sorted(maps.Keys(facts)) {
		// A file's comment may have any bytes, the environment no zero.
		env = append(env, "W4N_"+name+"="+strings.ReplaceAll(facts[name], "\x00", ""))
	}
	return env
}

func words[T fmt.Stringer](values []T) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = v.String()
	}
	return strings.Join(texts, " ")
}

// PeerName returns what the file calls a peer; it may be empty.
func (t *Tunnel) PeerName(key uapi.PublicKey) string {
	for _, p := range t.Plan().Peers {
		if uapi.PublicKey(p.PublicKey) == key {
			return p.Name
		}
	}
	return ""
}

// Log writes a line to the tunnel's log.
func (t *Tunnel) Log(line string) { t.log.Line(line) }

// Resolutions returns how lookups of endpoints' names have ended since the start.
func (t *Tunnel) Resolutions() (answered, failed uint64) {
	return t.resolutions.Answered.Load(), t.resolutions.Failed.Load()
}
