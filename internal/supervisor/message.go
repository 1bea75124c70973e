package supervisor

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/metrics"
	"wireguard4netns/internal/ns"
	"wireguard4netns/internal/service"
	"wireguard4netns/internal/tunnel"
)

// What the two ends of the socket say to each other, one JSON object a line:
//
//	front                                  supervisor
//	Start: the request            ──▶
//	                              ◀──      Say: a line for the user (any number)
//	                              ◀──      Ready, with the namespaces' descriptors,
//	                                       or Failed, and it ends
//	App: the app runs as this pid ──▶      (run)
//	Detach: go on without me      ──▶      (up, attach --detach)
//	end of stream                 ──▶      before App or Detach: undo everything
//	                              ◀──      Over: undone, or going on alone
//
// A supervisor that ends without Over was killed. What is said on the control
// socket is written down in control.go.
type message struct {
	Start  *Start       `json:",omitempty"`
	Say    string       `json:",omitempty"`
	Ready  *Ready       `json:",omitempty"`
	Failed *remoteError `json:",omitempty"`
	App    *App         `json:",omitempty"`
	Detach bool         `json:",omitempty"`
	Over   string       `json:",omitempty"`

	Join      bool     `json:",omitempty"`
	AskStatus bool     `json:",omitempty"`
	Look      bool     `json:",omitempty"`
	Status    *Status  `json:",omitempty"`
	Place     ns.Place `json:",omitzero"`
	Down      bool     `json:",omitempty"`
	Reload    *Reload  `json:",omitempty"`
	Replace   *Replace `json:",omitempty"`
	Hold      bool     `json:",omitempty"`
	Held      int      `json:",omitempty"`
	Done      bool     `json:",omitempty"`
	Again     bool     `json:",omitempty"`
}

// answers tells whether m is all that a request is answered by.
func (m message) answers() bool {
	return m.Ready != nil || m.Failed != nil || m.Status != nil || m.Held != 0 || m.Done
}

// Start is what a supervisor is started for.
type Start struct {
	tunnel.Request
	// ExitFD tells that descriptor exitFD is there: its end of file, or a byte
	// on it, ends the tunnel.
	ExitFD bool
	// Stored are the names of the descriptors that come with it: what a service
	// manager kept of the supervisor before.
	Stored []string `json:",omitempty"`
	// Service is who started the front, if that was a service manager.
	Service service.Manager
	Metrics metrics.Address `json:",omitzero"` // zero: none are served
	Outside tunnel.Outside  `json:",omitzero"`
	// Settings are what a Replace must not ask for otherwise.
	Settings map[string]string `json:",omitempty"`
}

// Ready says what was made.
type Ready struct {
	Name     string // of the tunnel
	Dir      string // its directory
	UAPIPath string
	IfName   string
	Pid      int // of the supervisor
}

// App tells that the app was started.
type App struct {
	Pid       int
	KillAfter bool // end what it leaves behind
}

// Reload is what a tunnel is to be from now on.
type Reload struct {
	Conf []byte // the text of a wg-quick(8) file
	Name string // what messages call it
}

// conn is one end of the socket.
type conn struct {
	stream *net.UnixConn
	lines  *bufio.Reader
	files  []*os.File // received and not yet taken
	begun  []byte     // what has come of a line
	app    int        // the process whose end it is told; 0: none
	down   bool       // it asked for the end

	sending sync.Mutex
	busy    bool // under sending: a request of it is not yet answered
}

// maxFiles bounds the descriptors that come with one message: what a service manager
// keeps are the most.
const maxFiles = 16

// newConn takes ownership of f.
func newConn(f *os.File) (*conn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	stream, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("supervisor socket: %w", unix.ENOTSOCK)
	}
	return connOf(stream), nil
}

func connOf(stream *net.UnixConn) *conn {
	c := &conn{stream: stream}
	c.lines = bufio.NewReader(c)
	return c
}

func (c *conn) send(m message, files ...*os.File) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	c.sending.Lock()
	defer c.sending.Unlock()
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		// The descriptors travel with the first byte.
		if _, _, err := c.stream.WriteMsgUnix(line[:1], unix.UnixRights(fds...), nil); err != nil {
			return err
		}
		line = line[1:]
	}
	if _, err = c.stream.Write(line); err == nil && m.answers() {
		c.busy = false
	}
	return err
}

func (c *conn) setBusy(busy bool) {
	c.sending.Lock()
	defer c.sending.Unlock()
	c.busy = busy
}

// receive returns the next message. After an error it can be called again if that was
// a deadline.
func (c *conn) receive() (m message, err error) {
	line, err := c.lines.ReadBytes('\n')
	c.begun = append(c.begun, line...)
	if err != nil {
		return m, err
	}
	line, c.begun = c.begun, nil
	return m, json.Unmarshal(line, &m)
}

// unread returns what has been read and not been received.
func (c *conn) unread() []byte {
	rest, _ := c.lines.Peek(c.lines.Buffered())
	return slices.Concat(c.begun, rest)
}

// goOn has what another process had read received first.
func (c *conn) goOn(unread []byte) {
	c.lines = bufio.NewReader(io.MultiReader(bytes.NewReader(unread), c))
}

// takeFiles returns the descriptors received so far; they are the caller's.
func (c *conn) takeFiles() []*os.File {
	files := c.files
	c.files = nil
	return files
}

// Read implements io.Reader and keeps the descriptors that come along.
func (c *conn) Read(b []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(maxFiles*4))
	n, oobn, flags, _, err := c.stream.ReadMsgUnix(b, oob)
	if err != nil {
		return 0, err // n is -1 then
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return n, errors.New("supervisor socket: descriptors were cut off")
	}
	if oobn > 0 {
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return n, err
		}
		for i := range messages {
			fds, err := unix.ParseUnixRights(&messages[i])
			if err != nil {
				return n, err
			}
			for _, fd := range fds {
				unix.CloseOnExec(fd)
				c.files = append(c.files, os.NewFile(uintptr(fd), "received"))
			}
		}
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (c *conn) Close() error {
	for _, f := range c.takeFiles() {
		f.Close()
	}
	return c.stream.Close()
}
