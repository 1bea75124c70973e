package uapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// An Engine is what requests are put to. Bodies that reach Set have passed
// CheckSet. An error that holds a syscall.Errno is passed on as that number,
// any other as EIO.
type Engine interface {
	Get(ctx context.Context) (body []byte, err error)
	Set(ctx context.Context, body []byte) error
}

// Limits bounds in time what the other end of a stream may take; zero is
// without bound.
type Limits struct {
	Idle    time.Duration // between two requests
	Request time.Duration // from the first line of a request to the last byte of its reply
}

// Serve answers the requests that come on stream, one after the other, until
// the other end closes it (nil), breaks the protocol, or ctx ends. It closes
// stream.
func Serve(ctx context.Context, stream net.Conn, engine Engine, limits Limits) error {
	defer stream.Close()
	defer context.AfterFunc(ctx, func() { _ = stream.Close() })()
	r := bufio.NewReader(stream)
	for {
		if err := answer(ctx, stream, r, engine, limits); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("serve uapi: %w", err)
		}
	}
}

func answer(ctx context.Context, stream net.Conn, r *bufio.Reader, engine Engine, limits Limits) error {
	if err := stream.SetDeadline(deadline(limits.Idle)); err != nil {
		return err
	}
	if _, err := r.Peek(1); err != nil {
		return err
	}
	if err := stream.SetDeadline(deadline(limits.Request)); err != nil {
		return err
	}
	if limits.Request > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limits.Request)
		defer cancel()
	}
	operation, body, err := readRequest(r)
	defer clear(body)
	if err != nil {
		// Where the next request begins is unknown: say why, and close.
		_, _ = stream.Write(appendStatus(nil, syscall.EPROTO))
		return err
	}
	_, err = stream.Write(perform(ctx, engine, operation, body))
	return err
}

func deadline(d time.Duration) time.Time {
	if d == 0 {
		return time.Time{}
	}
	return time.Now().Add(d)
}

// perform returns the whole reply.
func perform(ctx context.Context, engine Engine, operation string, body []byte) []byte {
	var reply []byte
	var err error
	if operation == "get" {
		reply, err = engine.Get(ctx)
	} else if err = checkBody(body); err == nil {
		err = engine.Set(ctx, body)
	}
	if err != nil {
		reply = nil
	}
	return appendStatus(reply, errnoOf(err))
}

func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &errno):
		return errno
	case errors.Is(err, context.DeadlineExceeded):
		return syscall.ETIMEDOUT
	}
	return syscall.EIO
}

// appendStatus writes the number as engines do and wg(8) expects it: negative.
func appendStatus(reply []byte, errno syscall.Errno) []byte {
	return fmt.Appendf(reply, "errno=%d\n\n", -int(errno))
}

func checkBody(body []byte) error {
	if err := CheckSet(bytes.NewReader(body)); err != nil {
		return fmt.Errorf("%w: %w", syscall.EINVAL, err)
	}
	return nil
}

// readRequest reads up to the empty line that ends a request.
func readRequest(r *bufio.Reader) (operation string, body []byte, err error) {
	line, err := readLine(r)
	if err != nil {
		return "", nil, err
	}
	switch string(line) {
	case "get=1\n":
		operation = "get"
	case "set=1\n":
		operation = "set"
	default:
		return "", nil, errors.New("unknown operation")
	}
	for {
		line, err := readLine(r)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return "", body, err
		}
		if len(line) == 1 {
			break
		}
		if body = append(body, line...); len(body) > maxRequest {
			return "", body, errTooLong
		}
	}
	if operation == "get" && len(body) > 0 {
		return "", body, errors.New("get request with a body")
	}
	return operation, body, nil
}
