package uapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrBroken is the cause when an earlier request on a Conn was given up in the
// middle: what comes next on the stream belongs to nobody.
var ErrBroken = errors.New("connection broken by an earlier request")

// A Conn asks an engine over a stream, one request at a time. Methods may be
// called from several goroutines; each waits for its turn or its context.
type Conn struct {
	stream net.Conn
	reader *bufio.Reader
	turn   chan struct{} // holds one token while nobody asks
	broken bool          // guarded by the token
}

// NewConn takes ownership of stream.
func NewConn(stream net.Conn) *Conn {
	c := &Conn{stream: stream, reader: bufio.NewReader(stream), turn: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	return c
}

// Close ends the stream, and with it a request that waits.
func (c *Conn) Close() error { return c.stream.Close() }

// Get returns the body of the engine's configuration and state.
func (c *Conn) Get(ctx context.Context) ([]byte, error) {
	body, err := c.ask(ctx, "get=1\n", nil)
	if err != nil {
		return nil, fmt.Errorf("get from engine: %w", err)
	}
	return body, nil
}

// Set applies a body, which is checked first. When the engine refuses it the
// error is a syscall.Errno, and a part of the body may have been applied.
func (c *Conn) Set(ctx context.Context, body []byte) error {
	if err := checkBody(body); err != nil {
		return err
	}
	if _, err := c.ask(ctx, "set=1\n", body); err != nil {
		return fmt.Errorf("set on engine: %w", err)
	}
	return nil
}

func (c *Conn) ask(ctx context.Context, operation string, body []byte) ([]byte, error) {
	select {
	case <-c.turn:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { c.turn <- struct{}{} }()
	if c.broken {
		return nil, ErrBroken
	}
	stop := context.AfterFunc(ctx, func() { _ = c.stream.SetDeadline(time.Unix(1, 0)) })
	reply, errno, err := c.exchange(operation, body)
	if !stop() && err == nil {
		// The deadline may be set at any moment from here on.
		c.broken = true
	}
	if err != nil {
		c.broken = true
		return nil, errors.Join(ctx.Err(), err)
	}
	if errno != 0 {
		return nil, errno
	}
	return reply, nil
}

func (c *Conn) exchange(operation string, body []byte) ([]byte, syscall.Errno, error) {
	request := make([]byte, 0, len(operation)+len(body)+1)
	request = append(append(append(request, operation...), body...), '\n')
	defer clear(request)
	if _, err := c.stream.Write(request); err != nil {
		return nil, 0, err
	}
	return readReply(c.reader)
}

// readReply reads up to the empty line that ends a reply, and takes "errno" as
// its last line.
func readReply(r *bufio.Reader) ([]byte, syscall.Errno, error) {
	var body []byte
	for {
		line, err := readLine(r)
		if err != nil {
			return nil, 0, err
		}
		if value, ok := strings.CutPrefix(string(line), "errno="); ok {
			errno, err := parseErrno(strings.TrimSuffix(value, "\n"))
			if err != nil {
				return nil, 0, err
			}
			if line, err = readLine(r); err == nil && len(line) != 1 {
				err = syscall.EPROTO
			}
			return body, errno, err
		}
		if len(line) == 1 {
			return nil, 0, syscall.EPROTO
		}
		if body = append(body, line...); len(body) > maxReply {
			return nil, 0, errTooLong
		}
	}
}

// parseErrno takes both signs: engines send -EINVAL, the protocol's text shows
// positive numbers.
func parseErrno(value string) (syscall.Errno, error) {
	n, err := strconv.ParseInt(value, 10, 16)
	if err != nil {
		return 0, syscall.EPROTO
	}
	return syscall.Errno(max(n, -n)), nil
}

// readLine returns a line with its newline; it is valid until the next read.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull) || len(line) > maxLine:
		return nil, errTooLong
	case errors.Is(err, io.EOF) && len(line) > 0:
		return nil, io.ErrUnexpectedEOF
	}
	return line, err
}
