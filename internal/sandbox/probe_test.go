//go:build !cgo

package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Sandboxes are for good, so each probe runs in a process of its own: this
// binary under another name, made as an engine is.
//
//	probe LAYERS PROBE
const probeArgv0 = "sandbox-probe"

func TestMain(m *testing.M) {
	if os.Args[0] == probeArgv0 {
		os.Exit(probeMain(os.Args[1], os.Args[2]))
	}
	if os.Args[0] == lookArgv0 {
		os.Exit(lookMain(os.Args[1]))
	}
	os.Exit(m.Run())
}

// layerings are the sets of layers under which a probe is tried: all, and all
// but the last, which would hide whether the others work.
var layerings = map[string]func() error{
	"all": func() error {
		notes, err := Engine(Strict, nil)
		if len(notes) > 0 {
			return fmt.Errorf("notes: %q", notes)
		}
		return err
	},
	"unfiltered": func() error { return errors.Join(emptyRoot(), dropCapabilities(), restrictLandlock()) },
	"rooted":     func() error { return errors.Join(dropCapabilities(), restrictLandlock()) },
}

// probes are what a broken engine might try. The error tells that it was
// refused; in the processes with all layers only those that are allowed return.
var probes = map[string]func() error{
	"open file": func() error {
		_, err := os.Open("/etc/passwd")
		return err
	},
	"make file": func() error { return unix.Mknod("/x", unix.S_IFREG|0o600, 0) },
	"list root": func() error {
		_, err := os.ReadDir("/")
		return err
	},
	"connect to a unix socket": func() error {
		// The socket of the test, in the abstract and in the file name space.
		_, err := net.Dial("unix", "@"+abstractName(os.Getppid()))
		return err
	},
	"connect by TCP": func() error {
		_, err := net.Dial("tcp4", "127.0.0.1:1")
		return err
	},
	"listen for TCP": func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 1})
		}
		return err
	},
	"packet socket": func() error {
		_, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		return err
	},
	"raw socket": func() error {
		_, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
		return err
	},
	"run a program": func() error { return exec.Command("/proc/self/exe").Run() },
	"execve":        func() error { return unix.Exec("/bin/true", []string{"true"}, nil) },
	"user namespace": func() error {
		runtime.LockOSThread()
		return unix.Unshare(unix.CLONE_NEWUSER)
	},
	"mount":       func() error { return unix.Mount("none", "/", "tmpfs", 0, "") },
	"kill others": func() error { return unix.Kill(-1, unix.SIGKILL) },
	"trace":       func() error { return unix.PtraceSeize(2) },
	"executable page": func() error {
		_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
		return err
	},
	"capability back": func() error {
		return unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_SYS_ADMIN, 0, 0)
	},
	"dumpable": func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) },
	"keyring": func() error {
		_, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, true)
		return err
	},
	"what an engine does": work,
	"report":              report,
}

func abstractName(pid int) string { return fmt.Sprintf("sandbox-test-%d", pid) }

func probeMain(layers, probe string) int {
	err := HideMemory()
	// The runtime's netpoll and the net package are in use before an engine
	// closes itself in, too.
	if c, listenErr := net.ListenPacket("udp4", "127.0.0.1:0"); listenErr == nil {
		_ = c.Close()
	}
	if err == nil {
		err = layerings[layers]()
	}
	if err != nil {
		fmt.Println("not sealed:", err)
		return 3
	}
	fmt.Println("sealed")
	if err := probes[probe](); err != nil {
		fmt.Println("refused:", err)
		return 1
	}
	fmt.Println("done")
	return 0
}

// work is what the packets of an engine need from the runtime and the kernel.
func work() error {
	for range 3 {
		a, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		b, err := net.ListenPacket("udp6", "[::1]:0")
		if err != nil {
			return err
		}
		var all sync.WaitGroup
		for range 30 {
			all.Go(func() { // more threads, and a heap to collect
				runtime.LockOSThread()
				for range 20 {
					_ = make([]byte, 1<<20)
					time.Sleep(time.Millisecond)
				}
			})
		}
		all.Go(func() { _, _ = a.WriteTo([]byte("packet"), a.LocalAddr()) })
		if _, _, err := a.ReadFrom(make([]byte, 10)); err != nil {
			return err
		}
		all.Wait()
		runtime.GC()
		if err := errors.Join(a.Close(), b.Close()); err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		_ = unix.Close(fd)
	}
	var name unix.Utsname
	return unix.Uname(&name)
}

// report waits while the test looks at the process from outside.
func report() error {
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func probeCommand(t *testing.T, layers, probe string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", layers, probe)
	cmd.Args[0] = probeArgv0
	cmd.Env = []string{"GOTRACEBACK=none", "GOMAXPROCS=2"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	Namespace(cmd.SysProcAttr)
	return cmd
}

func runProbe(t *testing.T, layers, probe string) (string, *os.ProcessState) {
	t.Helper()
	runtime.LockOSThread() // for the parent-death signal
	defer runtime.UnlockOSThread()
	cmd := probeCommand(t, layers, probe)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	_ = cmd.Run()
	if cmd.ProcessState == nil || !strings.HasPrefix(out.String(), "sealed\n") {
		t.Fatalf("%s, %s: %v\n%s", layers, probe, cmd.ProcessState, out.String())
	}
	return out.String(), cmd.ProcessState
}

func TestASealedProcess(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("unix", "@"+abstractName(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	// What each layer but the last leaves open, on purpose.
	open := map[string]bool{
		"what an engine does": true,
		"executable page":     true,
		"dumpable":            true,
		"keyring":             true,
	}
	for probe := range probes {
		if probe == "report" {
			continue
		}
		t.Run(probe, func(t *testing.T) {
			t.Parallel()
			out, state := runProbe(t, "unfiltered", probe)
			if got := state.Success(); got != open[probe] {
				t.Errorf("without the filter: %v, want success %v\n%s", state, open[probe], out)
			}
			out, state = runProbe(t, "all", probe)
			if probe == "what an engine does" {
				if !state.Success() {
					t.Errorf("%v\n%s", state, out)
				}
				return
			}
			status := state.Sys().(syscall.WaitStatus)
			if !status.Signaled() || status.Signal() != syscall.SIGSYS {
				t.Errorf("with the filter: %v, want killed by SIGSYS\n%s", state, out)
			}
		})
	}
}

// Landlock, with the whole file system in view.
func TestLandlockAlone(t *testing.T) {
	t.Parallel()
	for _, probe := range []string{"open file", "list root", "connect by TCP", "execve"} {
		if out, state := runProbe(t, "rooted", probe); state.ExitCode() != 1 || !strings.Contains(out, "permission denied") {
			t.Errorf("%s: %v\n%s", probe, state, out)
		}
	}
}

func TestASealedProcessFromOutside(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := probeCommand(t, "all", "report")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	line := make([]byte, len("sealed\n"))
	if _, err := io.ReadFull(out, line); err != nil || string(line) != "sealed\n" {
		t.Fatalf("%q, %v", line, err)
	}
	dir := fmt.Sprintf("/proc/%d/", cmd.Process.Pid)
	tasks, err := os.ReadDir(dir + "task")
	if err != nil || len(tasks) < 2 {
		t.Fatalf("threads: %v, %v", tasks, err)
	}
	for _, task := range tasks {
		status, err := os.ReadFile(dir + "task/" + task.Name() + "/status")
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"CapInh:\t0000000000000000\n", "CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n",
			"CapBnd:\t0000000000000000\n", "CapAmb:\t0000000000000000\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n",
		} {
			if !strings.Contains(string(status), want) {
				t.Errorf("thread %s has no %q in\n%s", task.Name(), want, status)
			}
		}
	}
	limits, err := os.ReadFile(dir + "limits")
	if err != nil || !strings.Contains(string(limits), "Max core file size        0                    0") {
		t.Errorf("limits: %v\n%s", err, limits)
	}
	if refused, err := lookFromElsewhere(t, cmd.Process.Pid); err != nil {
		t.Errorf("%v\n%s", err, refused)
	}
}

const lookArgv0 = "sandbox-look"

// lookFromElsewhere has a process of the same user, in a user namespace beside
// that of pid, as the app of a tunnel is, try to see into pid. It is an error
// if it does.
//
// A process outside of both owns the user namespace that pid is in, and so has
// rights over it that nothing here can take: the user's own processes are not
// whom the sandbox guards against.
func lookFromElsewhere(t *testing.T, pid int) (string, error) {
	look := exec.Command("/proc/self/exe", fmt.Sprint(pid))
	look.Args[0] = lookArgv0
	look.SysProcAttr = &syscall.SysProcAttr{}
	Namespace(look.SysProcAttr)
	look.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER
	look.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_SYS_PTRACE}
	out, err := look.CombinedOutput()
	return string(out), err
}

func lookMain(pid string) int {
	seen := 0
	dir := "/proc/" + pid + "/"
	look := func(what string, err error) {
		fmt.Println(what, err)
		if !errors.Is(err, os.ErrPermission) {
			seen++
		}
	}
	for _, name := range []string{"environ", "maps", "mem", "auxv", "syscall"} {
		_, err := os.ReadFile(dir + name)
		look(name, err)
	}
	for _, name := range []string{"root/", "cwd/", "map_files"} {
		_, err := os.ReadDir(dir + name)
		look(name, err)
	}
	for _, name := range []string{"fd/0", "ns/net", "exe"} {
		_, err := os.Readlink(dir + name)
		look(name, err)
	}
	number, err := strconv.Atoi(pid)
	if err == nil {
		err = unix.PtraceSeize(number)
	}
	look("trace", err)
	return seen
}
