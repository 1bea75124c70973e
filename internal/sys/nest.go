package sys

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Nest describes a program to start in the namespaces of a tunnel, nested in a
// user and a mount namespace of its own.
type Nest struct {
	UserNS, NetNS, MountNS int // borrowed descriptors of the namespaces to join

	UIDMap, GIDMap string // the one line each of uid_map and gid_map (user_namespaces(7))

	// Joined leaves the nesting out: the program is in the namespaces joined.
	Joined bool

	// Capabilities are given to the program (as ambient ones) over the namespaces
	// joined; Joined goes with them.
	Capabilities []uintptr

	Output int // borrowed descriptor for standard output and error; 0: the caller's

	Dir  string   // working directory inside
	Path []string // candidates for the executable, tried in order as execvp(3) does
	Args []string // argv, Args[0] included
	Env  []string // environment, complete

	FirstClosed int // descriptors from this one up are closed on exec
}

// Steps of Nest.Start, as they appear in a StepError.
const (
	StepJoinMountNS = "join mount namespace"
	StepNest        = "create nested user namespace"
	StepMapUser     = "map user"
	StepMapGroup    = "map group"
	StepChdir       = "change directory"
	StepPdeathsig   = "set parent-death signal"
	StepNoNewPrivs  = "set no_new_privs"
	StepCloseFDs    = "close descriptors"
	StepGiveCaps    = "give capabilities"
	StepOutput      = "redirect output"
	StepExec        = "exec"
)

var nestSteps = []string{StepFork, StepJoinUserNS, StepJoinMountNS, StepJoinNetNS, StepNest,
	StepMapUser, StepMapGroup, StepChdir, StepPdeathsig, StepNoNewPrivs, StepCloseFDs, StepGiveCaps, StepOutput, StepExec}

const (
	nestUser = 1 + iota
	nestMount
	nestNet
	nestUnshare
	nestMapUser
	nestMapGroup
	nestChdir
	nestPdeathsig
	nestNoNewPrivs
	nestCloseFDs
	nestGiveCaps
	nestOutput
	nestExec
)

// Start starts the program as a child of the calling process and returns its
// pid once it runs. The child has no capability outside its own nested
// namespaces, no_new_privs set, default signal dispositions but for the ignored
// ones, and dies by SIGKILL when its parent does. It keeps the process group, the
// terminal and the limits of the caller. An error is a *StepError; its Err at
// StepExec is the errno of execve(2).
func (n *Nest) Start() (pid int, err error) {
	job, err := n.job()
	if err != nil {
		return 0, &StepError{StepExec, err}
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return 0, &StepError{StepFork, err}
	}
	defer unix.Close(pipe[0])
	job.pipe = uintptr(pipe[1])
	job.parent = uintptr(os.Getpid())

	// The parent-death signal is of the thread that forked: keep to one that
	// lives as long as the process. The caller locks itself to the main thread.
	pid, errno := forkNest(job)
	unix.Close(pipe[1])
	if errno != 0 {
		return 0, &StepError{StepFork, errno}
	}
	o, ok := receive(pipe[0])
	runtime.KeepAlive(job)
	if ok {
		reap(pid)
		return 0, &StepError{nestSteps[o.step], syscall.Errno(o.errno)}
	}
	return pid, nil // the pipe closed in execve
}

type nestJob struct {
	userns, netns, mntns uintptr
	pipe, parent         uintptr
	setgroups            []byte
	uidMap, gidMap       []byte
	joined               bool
	caps                 []uintptr
	capHeader            unix.CapUserHeader
	capData              [2]unix.CapUserData
	output               uintptr
	dir                  *byte
	paths                []*byte
	argv, envv           []*byte
	shellArgv            []*byte // argv when the file is a script without #!
	firstClosed          uintptr
}

var (
	procSetgroups = []byte("/proc/self/setgroups\x00")
	procUIDMap    = []byte("/proc/self/uid_map\x00")
	procGIDMap    = []byte("/proc/self/gid_map\x00")
	binSh         = []byte("/bin/sh\x00")
)

// job lays out everything that the child needs, so that it need not allocate.
func (n *Nest) job() (*nestJob, error) {
	if len(n.Path) == 0 || len(n.Args) == 0 {
		return nil, fmt.Errorf("no program: %w", unix.ENOENT)
	}
	j := &nestJob{
		userns: uintptr(n.UserNS), netns: uintptr(n.NetNS), mntns: uintptr(n.MountNS),
		setgroups: []byte("deny"), uidMap: []byte(n.UIDMap), gidMap: []byte(n.GIDMap),
		firstClosed: uintptr(n.FirstClosed),
		joined:      n.Joined, caps: n.Capabilities, output: uintptr(n.Output),
		capHeader: unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3},
	}
	for _, c := range n.Capabilities {
		d := &j.capData[c/32]
		d.Effective |= 1 << (c % 32)
		d.Permitted, d.Inheritable = d.Effective, d.Effective
	}
	var err error
	if j.dir, err = syscall.BytePtrFromString(n.Dir); err != nil {
		return nil, err
	}
	if j.argv, err = syscall.SlicePtrFromStrings(n.Args); err != nil {
		return nil, err
	}
	if j.envv, err = syscall.SlicePtrFromStrings(n.Env); err != nil {
		return nil, err
	}
	for _, p := range n.Path {
		ptr, err := syscall.BytePtrFromString(p)
		if err != nil {
			return nil, err
		}
		j.paths = append(j.paths, ptr)
	}
	j.shellArgv = append([]*byte{&binSh[0], nil}, j.argv[1:]...)
	return j, nil
}

//go:norace
func forkNest(job *nestJob) (pid int, errno syscall.Errno) {
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	runtimeBeforeFork()
	child, errno := clone(0)
	if errno == 0 && child == 0 {
		nestChild(job)
	}
	runtimeAfterFork()
	return int(child), errno
}

// nestChild runs in the forked child; see fork.go for what it may not do.
//
//go:nosplit
//go:norace
//go:noinline
func nestChild(job *nestJob) {
	var o outcome
	var errno, denied syscall.Errno
	var ppid uintptr
	var i int

	runtimeAfterForkInChild()

	o.step = nestUser
	if _, _, errno = syscall.RawSyscall(unix.SYS_SETNS, job.userns, unix.CLONE_NEWUSER, 0); errno != 0 {
		goto fail
	}
	o.step = nestMount
	if _, _, errno = syscall.RawSyscall(unix.SYS_SETNS, job.mntns, unix.CLONE_NEWNS, 0); errno != 0 {
		goto fail
	}
	o.step = nestNet
	if _, _, errno = syscall.RawSyscall(unix.SYS_SETNS, job.netns, unix.CLONE_NEWNET, 0); errno != 0 {
		goto fail
	}
	if job.joined {
		goto mapped
	}
	o.step = nestUnshare
	if _, _, errno = syscall.RawSyscall(unix.SYS_UNSHARE, unix.CLONE_NEWUSER|unix.CLONE_NEWNS, 0, 0); errno != 0 {
		goto fail
	}
	o.step = nestMapUser
	if errno = writeFile(&procUIDMap[0], job.uidMap); errno != 0 {
		goto fail
	}
	o.step = nestMapGroup
	if errno = writeFile(&procSetgroups[0], job.setgroups); errno != 0 {
		goto fail
	}
	if errno = writeFile(&procGIDMap[0], job.gidMap); errno != 0 {
		goto fail
	}
mapped:
	o.step = nestChdir
	if _, _, errno = syscall.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(job.dir)), 0, 0); errno != 0 {
		goto fail
	}
	o.step = nestPdeathsig
	if _, _, errno = syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0); errno != 0 {
		goto fail
	}
	// A parent that died before the line above sends no signal any more.
	if ppid, _, _ = syscall.RawSyscall(unix.SYS_GETPPID, 0, 0, 0); ppid != job.parent {
		exit(1)
	}
	o.step = nestNoNewPrivs
	if _, _, errno = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		goto fail
	}
	o.step = nestCloseFDs
	if _, _, errno = syscall.RawSyscall(unix.SYS_CLOSE_RANGE, job.firstClosed, ^uintptr(0)>>32, unix.CLOSE_RANGE_CLOEXEC); errno != 0 {
		goto fail
	}
	o.step = nestGiveCaps
	if len(job.caps) > 0 {
		_, _, errno = syscall.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&job.capHeader)), uintptr(unsafe.Pointer(&job.capData[0])), 0)
		if errno != 0 {
			goto fail
		}
	}
	for i = 0; i < len(job.caps); i++ {
		if _, _, errno = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, job.caps[i], 0, 0, 0); errno != 0 {
			goto fail
		}
	}
	o.step = nestOutput
	if job.output != 0 {
		if _, _, errno = syscall.RawSyscall(unix.SYS_DUP3, job.output, 1, 0); errno != 0 {
			goto fail
		}
		if _, _, errno = syscall.RawSyscall(unix.SYS_DUP3, job.output, 2, 0); errno != 0 {
			goto fail
		}
	}
	o.step = nestExec
	for i = 0; i < len(job.paths); i++ {
		_, _, errno = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(job.paths[i])),
			uintptr(unsafe.Pointer(&job.argv[0])), uintptr(unsafe.Pointer(&job.envv[0])))
		if errno == unix.ENOEXEC {
			job.shellArgv[1] = job.paths[i]
			_, _, errno = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(&binSh[0])),
				uintptr(unsafe.Pointer(&job.shellArgv[0])), uintptr(unsafe.Pointer(&job.envv[0])))
			break
		}
		if errno == unix.EACCES {
			denied = errno
		} else if errno != unix.ENOENT && errno != unix.ENOTDIR {
			break
		}
	}
	if denied != 0 && (errno == unix.ENOENT || errno == unix.ENOTDIR) {
		errno = denied
	}
fail:
	o.errno = int32(errno)
	o.send(job.pipe)
	exit(1)
}

// writeFile writes data to an existing file in one write.
//
//go:nosplit
//go:norace
func writeFile(path *byte, data []byte) syscall.Errno {
	fd, _, errno := syscall.RawSyscall6(unix.SYS_OPENAT, atFDCWD, uintptr(unsafe.Pointer(path)), unix.O_WRONLY|unix.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	_, _, errno = syscall.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&data[0])), uintptr(len(data)))
	syscall.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	return errno
}
