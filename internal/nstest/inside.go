package nstest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// Func is Go code that a test runs in a process of its own.
type Func[In, Out any] struct {
	role string
}

// NewFunc registers fn under a name that is unique in the test binary. Call
// it for a package variable only. In and Out travel as JSON.
func NewFunc[In, Out any](name string, fn func(In) (Out, error)) Func[In, Out] {
	role := "func " + name
	if _, taken := roles[role]; taken {
		panic("nstest: two functions named " + name)
	}
	roles[role] = func() error {
		var in In
		if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
			return fmt.Errorf("read input: %w", err)
		}
		out, err := fn(in)
		reply := funcReply[Out]{Out: out}
		if err != nil {
			reply.Err = &FuncError{Text: err.Error()}
			errors.As(err, &reply.Err.Errno)
		}
		return json.NewEncoder(os.Stdout).Encode(reply)
	}
	return Func[In, Out]{role}
}

// Call runs the function in a re-executed test binary that command starts:
// Host.Command, Host.UserCommand, or exec.Command for the real machine. An
// error of the function itself is a *FuncError.
func (f Func[In, Out]) Call(command func(name string, args ...string) *exec.Cmd, in In) (Out, error) {
	mustBeTest()
	var reply funcReply[Out]
	input, err := json.Marshal(in)
	if err != nil {
		return reply.Out, err
	}
	cmd := selfCommand(command, f.role)
	cmd.Stdin = bytes.NewReader(input)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		return reply.Out, fmt.Errorf("%s: %w\n%s", f.role, err, stderr.String())
	}
	if err := json.Unmarshal(output, &reply); err != nil {
		return reply.Out, fmt.Errorf("%s: read reply: %w", f.role, err)
	}
	if reply.Err != nil {
		return reply.Out, reply.Err
	}
	return reply.Out, nil
}

// FuncError is an error that a Func returned. It unwraps to the errno that
// was its cause, if one was.
type FuncError struct {
	Text  string
	Errno syscall.Errno
}

func (e *FuncError) Error() string { return e.Text }

func (e *FuncError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

type funcReply[Out any] struct {
	Out Out
	Err *FuncError
}

// selfCommand is the test binary in one of its roles.
func selfCommand(command func(name string, args ...string) *exec.Cmd, role string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	cmd := command(self)
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, roleEnv+"="+role)
	return cmd
}
