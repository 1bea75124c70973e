package run_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/nstest"
)

func TestExitCode(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	script := filepath.Join(t.TempDir(), "not-executable")
	writeFile(t, script, "#!/bin/sh\n")
	type ending struct {
		command []string
		code    int
	}
	endings := []ending{
		{[]string{"sh", "-c", "kill -TERM $$"}, 143},
		{[]string{"sh", "-c", "kill -KILL $$"}, 137},
		{[]string{"sh", "-c", "kill -INT $$"}, 130},
		{[]string{"sh", "-c", "kill -SEGV $$"}, 139},
		{[]string{"sh", "-c", "kill -40 $$"}, 168},
		{[]string{"no-such-program"}, 127},
		{[]string{"/no/such/program"}, 127},
		{[]string{"./no-such-program"}, 127},
		{[]string{script}, 126},
		{[]string{"/tmp"}, 126},
		{[]string{""}, 127},
	}
	for _, code := range []int{0, 1, 2, 3, 42, 77, 124, 125, 126, 127, 128, 129, 130, 137, 143, 200, 254, 255} {
		endings = append(endings, ending{[]string{"sh", "-c", fmt.Sprint("exit ", code)}, code})
	}
	for _, e := range endings {
		t.Run(strings.Join(e.command, " "), func(t *testing.T) {
			t.Parallel()
			got := finish(t, m.run(e.command...))
			if got.code != e.code {
				t.Errorf("exit code %d, want %d\n%s", got.code, e.code, got.stderr)
			}
		})
	}
}

// What the app inherits is what it would have without us.
func TestAppInherits(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	dir := t.TempDir()
	for name, probe := range map[string]string{
		"limits":      "cat /proc/self/limits",
		"umask":       "umask",
		"nice":        "nice",
		"environment": "env | grep -v ^_= | sort",
		"directory":   "pwd; /bin/pwd; echo $PWD $OLDPWD",
		"signals":     "grep ^Sig[BI] /proc/self/status",
		"user":        "id",
		"oom":         "cat /proc/self/oom_score_adj",
		"affinity":    "grep allowed_list /proc/self/status",
		"arguments":   `printf '<%s>\n' "$@"`,
		"personality": "cat /proc/self/personality",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			outer := fmt.Sprintf(`ulimit -Sn 777; ulimit -c 0; umask 027; cd %s; cd ..; cd -  >/dev/null
export W4N_WORDS='two words' EMPTY= 'GOTRACEBACK=crash' GODEBUG=gctrace=0 LINES2='a
b'; exec nice -n 5 "$@"`, dir)
			command := []string{"sh", "-c", probe, "sh", "a b", "", "--", "-x", "*", "ü"}
			outside := finish(t, m.UserCommand("sh", append([]string{"-c", outer, "sh"}, command...)...))
			inside := finish(t, m.UserCommand("sh", append([]string{"-c", outer, "sh", m.program, "run", m.conf, "--"}, command...)...))
			if inside.stdout != outside.stdout || inside.stderr != outside.stderr || inside.code != 0 {
				t.Errorf("inside:\n%s%soutside:\n%s%s", inside.stdout, inside.stderr, outside.stdout, outside.stderr)
			}
		})
	}
}

func TestDescriptorsAreKept(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for name, test := range map[string]struct {
		flags []string
		want  string
	}{
		"none":  {nil, "0 1 2"},
		"one":   {[]string{"--preserve-fds=1", "--"}, "0 1 2 3"},
		"three": {[]string{"--preserve-fds=3", "--"}, "0 1 2 3 4 5"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := m.run(append(test.flags, "env", appEnv+"=descriptors", testBinary())...)
			for range 3 {
				_, w := pipe(t)
				cmd.ExtraFiles = append(cmd.ExtraFiles, w)
			}
			if got := finish(t, cmd); got.stdout != test.want || got.code != 0 {
				t.Errorf("the app has %s, want %s (exit code %d)\n%s", got.stdout, test.want, got.code, got.stderr)
			}
		})
	}
}

// sayDescriptors prints what is open that the Go runtime has not opened itself.
func sayDescriptors() {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	var open []int
	for _, e := range entries {
		fd, _ := strconv.Atoi(e.Name())
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			open = append(open, fd)
		}
	}
	sort.Ints(open)
	fmt.Print(strings.Trim(fmt.Sprint(open), "[]"))
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// awaitEOF waits until nobody has the other end open, and returns what was read.
func awaitEOF(t *testing.T, r *os.File) string {
	t.Helper()
	r.SetReadDeadline(time.Now().Add(deadline))
	text, err := io.ReadAll(r)
	if err != nil {
		t.Errorf("a pipe of the caller is still held: %v", err)
	}
	return string(text)
}

// A shell's $(…) ends when nobody holds the pipe any more, not when the program
// that it started ends.
func TestCommandSubstitutionReturnsAtOnce(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	r, w := pipe(t)
	cmd := m.run("sh", "-c", "sleep 300 >/dev/null 2>&1 3>&- & echo $!")
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = w, w, []*os.File{w}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	said := awaitEOF(t, r)
	if code := await(t, cmd); code != 0 {
		t.Errorf("exit code %d", code)
	}
	left, err := strconv.Atoi(strings.TrimSpace(said))
	if err != nil {
		t.Fatal(err)
	}
	awaitState(t, "S", left)
	unix.Kill(left, unix.SIGKILL)
}

// What the app closes early is closed for the reader.
func TestAppMayCloseItsDescriptors(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	out, outW := pipe(t)
	extra, extraW := pipe(t)
	inR, in := pipe(t)
	cmd := m.run("--preserve-fds=1", "--", "sh", "-c", "exec <&- >&- 3>&-; exec sleep 300")
	cmd.Stdin, cmd.Stdout, cmd.ExtraFiles = inR, outW, []*os.File{extraW}
	nstest.Start(t, cmd)
	outW.Close()
	extraW.Close()
	inR.Close()
	awaitEOF(t, out)
	awaitEOF(t, extra)
	nstest.Eventually(t, deadline, func() error {
		if _, err := in.WriteString("x"); err == nil {
			return fmt.Errorf("standard input is still held")
		}
		return nil
	})
	cmd.Process.Signal(unix.SIGTERM)
	await(t, cmd)
}

func TestPipeline(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for script, want := range map[string]string{
		`seq 100000 | $RUN sort -rn | head -1`:                         "100000\n",
		`$RUN seq 100000 | tail -1`:                                    "100000\n",
		`$RUN yes | head -2; echo ${PIPESTATUS[0]}`:                    "y\ny\n141\n",
		`echo text | $RUN cat | $RUN tr a-z A-Z`:                       "TEXT\n",
		`$RUN sh -c 'echo out; echo err >&2' 2>&1 >/dev/null | cat`:    "err\n",
		`x=$($RUN echo text) && echo "<$x>"`:                           "<text>\n",
		`$RUN false || echo failed`:                                    "failed\n",
		`while read -r line; do $RUN echo $line </dev/null; done <<<x`: "x\n",
	} {
		line := m.UserCommand("bash", "-c", script)
		cmd := exec.CommandContext(ctx, line.Path, line.Args[1:]...)
		cmd.Env = append(line.Env, "RUN="+m.program+" run "+m.conf+" --")
		got, err := cmd.Output()
		if string(got) != want || err != nil {
			t.Errorf("%s\nprinted %q, want %q (%v)", script, got, want, err)
		}
	}
}

func TestPagerReadsTheTerminal(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	cmd := m.UserCommand("bash", "-c", `$RUN seq 1000 | busybox less`)
	cmd.Env = append(cmd.Env, "RUN="+m.program+" run "+m.conf+" --", "TERM=xterm")
	term := startTerminal(t, cmd)
	term.expect("20\r?\n")
	term.typed("G")
	term.expect("1000")
	term.typed("q")
	if code := await(t, cmd); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestStandardInputIsTheApps(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	cmd := m.run("sh", "-c", "read -r a; echo $a; exec cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	nstest.Start(t, cmd)
	lines := bufio.NewScanner(out)
	for _, word := range []string{"one", "two", "three"} {
		io.WriteString(in, word+"\n")
		if lines.Scan(); lines.Text() != word {
			t.Errorf("the app said %q, want %s", lines.Text(), word)
		}
	}
	in.Close()
	if code := await(t, cmd); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
