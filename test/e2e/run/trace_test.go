package run_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/nstest"
)

// A traced run of the program in which one of its processes gets a signal at a
// certain system call. Processes are told apart by role: "run" is what was
// started, "supervisor", "engine", "inside", "wait" what it becomes or starts,
// "app" the app; a process that has been forked and not yet executed anything is
// its parent's role and "'s child".
//
// ptrace(2) stops each thread at each system call, so the signal comes at exactly
// that place, without any help from the program.
type shot struct {
	Command []string
	Env     []string
	Role    string // whom to hit; empty: only count
	At      int    // at its At-th system call, from 1 on
	Signal  syscall.Signal
}

// shotResult is how the run went.
type shotResult struct {
	Hit    bool
	Late   bool // the app had ended before
	Code   int  // of what was started
	Stderr string
	Calls  map[string]int // by role, until the hit
}

// shoot does it, in a process of its own: tracees are children of a thread.
var shoot = nstest.NewFunc("shoot", func(s shot) (shotResult, error) {
	// Nothing hangs for ever: what is traced dies with its tracer.
	time.AfterFunc(deadline, func() { panic("a traced run did not end") })
	runtime.LockOSThread()
	var stderr bytes.Buffer
	r, w, err := os.Pipe()
	if err != nil {
		return shotResult{}, err
	}
	cmd := exec.Command(s.Command[0], s.Command[1:]...)
	cmd.Env, cmd.Stderr = s.Env, w
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return shotResult{}, err
	}
	w.Close()
	read := make(chan error, 1)
	go func() {
		_, err := stderr.ReadFrom(r)
		read <- err
	}()
	t := tracer{shot: s, main: cmd.Process.Pid, role: map[int]string{}, process: map[int]int{}, inCall: map[int]bool{}}
	t.Calls = map[string]int{}
	if err := t.follow(); err != nil {
		return t.shotResult, err
	}
	err = <-read
	t.Stderr = stderr.String()
	return t.shotResult, err
})

type tracer struct {
	shot
	shotResult
	main    int
	role    map[int]string // by process
	process map[int]int    // by thread
	inCall  map[int]bool   // by thread: between entry and exit
}

const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_EXITKILL |
	unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEEXEC

// follow traces until no process is left.
func (t *tracer) follow() error {
	for first := true; ; first = false {
		var status unix.WaitStatus
		tid, err := unix.Wait4(-1, &status, unix.WALL, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ECHILD:
			return nil
		case err != nil:
			return os.NewSyscallError("wait4", err)
		}
		if first {
			if err := unix.PtraceSetOptions(tid, options); err != nil {
				return os.NewSyscallError("ptrace", err)
			}
		}
		t.stopped(tid, status)
	}
}

func (t *tracer) stopped(tid int, status unix.WaitStatus) {
	if status.Exited() || status.Signaled() {
		if tid == t.main {
			t.Code = status.ExitStatus()
			if status.Signaled() {
				t.Code = 128 + int(status.Signal())
			}
		}
		if t.role[tid] == "app" && !t.Hit {
			t.Late = true
		}
		return
	}
	deliver := 0
	pid, known := t.process[tid]
	if !known {
		pid = t.meet(tid)
	}
	switch signal := status.StopSignal(); {
	case signal == unix.SIGTRAP|0x80:
		if t.inCall[tid] = !t.inCall[tid]; t.inCall[tid] {
			t.called(pid)
		}
	case signal == unix.SIGTRAP && status.TrapCause() == unix.PTRACE_EVENT_EXEC:
		// The other threads are gone; a thread that was not the first has
		// become it.
		t.inCall[tid] = true
		t.role[pid] = t.roleOf(pid)
	case signal == unix.SIGTRAP && status.TrapCause() > 0:
		// A clone: the new one stops by itself.
	case signal == unix.SIGSTOP && !known:
		// That stop.
	case signal == unix.SIGTRAP:
	default:
		deliver = int(signal)
	}
	if t.Hit || t.Role == "" && t.At < 0 {
		unix.PtraceCont(tid, deliver)
		return
	}
	unix.PtraceSyscall(tid, deliver)
}

// meet notes a new thread.
func (t *tracer) meet(tid int) (pid int) {
	pid = tid
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if _, after, ok := strings.Cut(string(status), "\nTgid:"); ok {
		line, _, _ := strings.Cut(after, "\n")
		pid, _ = strconv.Atoi(strings.TrimSpace(line))
	}
	t.process[tid] = pid
	if _, ok := t.role[pid]; !ok {
		var parent int
		if _, after, ok := strings.Cut(string(status), "\nPPid:"); ok {
			line, _, _ := strings.Cut(after, "\n")
			parent, _ = strconv.Atoi(strings.TrimSpace(line))
		}
		t.role[pid] = t.role[parent] + "'s child"
	}
	return pid
}

// roleOf tells what a process has executed.
func (t *tracer) roleOf(pid int) string {
	cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	args := strings.Split(string(cmdline), "\x00")
	name := filepath.Base(args[0])
	if role, ok := strings.CutPrefix(name, "wireguard4netns-"); ok {
		return role
	}
	switch {
	case name == "wireguard4netns":
		return "run"
	case t.role[pid] == "wait's child":
		return "app"
	}
	return name
}

// called counts a system call that begins, and shoots if it is the one.
func (t *tracer) called(pid int) {
	if t.Hit {
		return
	}
	role := t.role[pid]
	t.Calls[role]++
	if role == t.Role && t.Calls[role] == t.At {
		t.Hit = true
		unix.Kill(pid, t.Signal)
	}
}
