package run_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"wireguard4netns/internal/nstest"
)

// exitCode is what a shell says of an ended process.
func exitCode(s *os.ProcessState) int {
	status := s.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// processNamed waits for the one process of the machine whose command line
// starts with prefix.
func (m *machine) processNamed(t *testing.T, prefix string) (pid int) {
	t.Helper()
	nstest.Eventually(t, deadline, func() error {
		list := m.Processes()
		pid = 0
		for _, p := range list {
			if strings.HasPrefix(p.Command, prefix) {
				if pid != 0 {
					return fmt.Errorf("more than one process is %q: %v", prefix, list)
				}
				pid = p.PID
			}
		}
		if pid == 0 {
			return fmt.Errorf("no process is %q: %v", prefix, list)
		}
		return nil
	})
	return pid
}

// stat is a line of proc_pid_stat(5), as far as it is used here.
type stat struct {
	state                           string
	ppid, pgrp, session, tty, tpgid int
}

func statOf(pid int) (s stat, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return s, err
	}
	_, err = fmt.Sscan(string(text[bytes.LastIndexByte(text, ')')+1:]), &s.state, &s.ppid, &s.pgrp, &s.session, &s.tty, &s.tpgid)
	return s, err
}

// awaitState waits until each process is in one of the states, as "T" or "SR".
func awaitState(t *testing.T, states string, pids ...int) {
	t.Helper()
	nstest.Eventually(t, deadline, func() error {
		for _, pid := range pids {
			s, err := statOf(pid)
			if err != nil {
				return err
			}
			if !strings.Contains(states, s.state) {
				return fmt.Errorf("process %d is in state %s, want %s", pid, s.state, states)
			}
		}
		return nil
	})
}

// awaitGone waits until none of the processes is left.
func awaitGone(t *testing.T, pids ...int) {
	t.Helper()
	nstest.Eventually(t, deadline, func() error {
		for _, pid := range pids {
			if s, err := statOf(pid); err == nil && s.state != "Z" {
				return fmt.Errorf("process %d is left (%s)", pid, s.state)
			} else if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
		return nil
	})
}
