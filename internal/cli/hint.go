package cli

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"

	"wireguard4netns/conf"
	"wireguard4netns/internal/doctor"
	"wireguard4netns/internal/ns"
	"wireguard4netns/internal/plan"
	"wireguard4netns/internal/state"
	"wireguard4netns/internal/supervisor"
	"wireguard4netns/internal/tunnel"
)

// hints is what to do about an error that is not one of the machine, of which
// doctor knows. The first that fits is given.
var hints = []struct {
	is   error
	hint string
}{
	{ns.ErrLinkExists, "choose another name for the link"},
	{ns.ErrTargetGone, "is the program still running? ps tells"},
	{ns.ErrTargetDenied, "run this as the user who started it"},
	{ns.ErrNotUserNS, "give the /proc/PID/ns/user of a process in it, or leave the flag out"},
	{ns.ErrNotNetNS, "give a PID, /proc/PID/ns/net, or a path that ip netns or podman made"},
	{ns.ErrNotFound, "is it in PATH, and not below a directory that is hidden inside (/run)?"},
	{ns.ErrNotExecutable, "is it a program, and does its mode allow to execute it?"},
	{ns.ErrNoDirectory, "cd to a directory that is not below /run, or --expose it"},
	{state.ErrInUse, "choose another --name, or end that tunnel"},
	{state.ErrBadName, "give --name a shorter or plainer one"},
	{tunnel.ErrNoHandshake, "no reply means: a wrong key on either side, a wrong endpoint, or a firewall that drops UDP"},
	{tunnel.ErrPortInUse, doctor.PortInUse.Do},
	{plan.ErrNotServer, "such as --dns 10.0.0.1,example.com: a server, and what is added to short names"},
	{errNoConf, "give a path, or put the file at ~/.config/wireguard4netns/NAME.conf"},
	{supervisor.ErrNoTunnel, "wireguard4netns list names those that stand; up makes one"},
	{supervisor.ErrNotOurs, "nsenter(1), or the program that made them, gets you in"},
	{supervisor.ErrNotHeld, "end the program, and start it again with this version"},
	{supervisor.ErrFormat, "down and up again; what is inside loses its connections"},
	{supervisor.ErrSettings, "leave them out; or down and up again with them: what is inside loses its connections"},
	{supervisor.ErrDied, "was it killed? dmesg tells of a lack of memory; ulimit -u bounds it too"},
	{supervisor.ErrNoControl, "kill ends that process, and with it the tunnel"},
	{supervisor.ErrEnding, "wait for that"},
	{syscall.EADDRINUSE, "another program listens at that path or port"},
	{syscall.EEXIST, "a file is at that path: choose another, or remove it"},
	{syscall.EMFILE, "raise the limit of open files: ulimit -n 64"},
	{syscall.EAGAIN, "the limit of processes is reached: ulimit -u"},
	{syscall.EISDIR, "give the file, not its directory"},
	{fs.ErrNotExist, "is the path right? ls tells"},
	{errKeyNotFile, "write it to a file that only you may read, and name that"},
	{fs.ErrPermission, "ls -l tells whose it is (a port below 1024 is root's); wireguard4netns doctor says what this machine forbids"},
}

// hint returns what to do about err, or nothing.
func hint(err error) string {
	var use *usageError
	if errors.As(err, &use) {
		return use.hint
	}
	var c *conf.Error
	if errors.As(err, &c) {
		return c.Hint
	}
	machine := new(Env).machine()
	if a, ok := machine.Advise(err); ok {
		return a.Line()
	}
	for _, h := range hints {
		if errors.Is(err, h.is) {
			return h.hint
		}
	}
	return ""
}

// what returns err as one line, without the hint it may carry.
func what(err error) string {
	var c *conf.Error
	if errors.As(err, &c) {
		return oneLine(c.What())
	}
	return oneLine(err.Error())
}

// oneLine writes several errors, or the name of a file with a line end, in one line.
func oneLine(text string) string { return strings.ReplaceAll(text, "\n", "; ") }
