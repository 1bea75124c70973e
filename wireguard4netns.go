// Package wireguard4netns gives a network namespace WireGuard as its network,
// without root.
//
// Start makes a tunnel: in new namespaces, into which Tunnel.Exec and
// Tunnel.StartApp put programs, or in the network namespace of something that
// runs already. The tunnel is served by processes of its own, which are this very
// program in other roles; so a program that uses the package calls Role first
// thing in its main.
package wireguard4netns

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"wireguard4netns/conf"
	"wireguard4netns/internal/engine"
	"wireguard4netns/internal/host"
	"wireguard4netns/internal/ns"
	"wireguard4netns/internal/ns/inside"
	"wireguard4netns/internal/plan"
	"wireguard4netns/internal/sandbox"
	"wireguard4netns/internal/service"
	"wireguard4netns/internal/supervisor"
	"wireguard4netns/internal/sys"
	"wireguard4netns/internal/tunnel"
	"wireguard4netns/internal/waiter"
)

// Role runs the role that this process was started in, if it is not a program of
// its own: ok says that it was one, and the process is to exit with code. report
// tells the user of an app that cannot be started, and returns the exit code.
// The calling goroutine must be locked to the main thread.
func Role(args []string, stderr io.Writer, report func(error) int) (code int, ok bool) {
	if len(args) == 0 {
		return 0, false
	}
	switch args[0] {
	case supervisor.Argv0, engine.Argv0, inside.Argv0, waiter.Argv0, ns.HoldArgv0:
		sys.SetName("wireguard4netns")
	}
	switch args[0] {
	case supervisor.Argv0:
		return supervisor.Main(args[1:], stderr), true
	case engine.Argv0:
		return engine.Main(args[1:], stderr), true
	case inside.Argv0:
		return inside.Main(os.NewFile(inside.ConnFD, "supervisor")), true
	case ns.HoldArgv0:
		return ns.HoldMain(), true
	case waiter.Argv0:
		return waiter.Main(args, stderr, report), true
	}
	return 0, false
}

// Target is a network namespace that something else made; see ParseTarget.
type Target = ns.Target

// ParseTarget reads a PID, the path of a network namespace, or "fd:N".
func ParseTarget(s string) (Target, error) { return ns.ParseTarget(s) }

// App is a program to run in a tunnel.
type App = ns.App

// Engines are the names of what can speak WireGuard, the default first.
var Engines = engine.Names

// SandboxLevel says how much of the engine's sandbox must be there: SandboxAuto
// (what the machine allows), SandboxStrict (all of it) or SandboxNone.
type SandboxLevel = sandbox.Level

// Service is a service manager, as sd_notify(3) speaks to it.
type Service = service.Manager

// Options say what is wanted beyond the file. The zero value with an interface
// name and a root is complete.
type Options struct {
	IfName   string // of the link inside
	Name     string // of the tunnel; empty: made of IfName and a number
	Root     string // state directory, private to the user
	ConfName string // what messages call the file
	ConfPath string // where it can be read again, absolute; may be empty

	Configure bool // Target only: set addresses, routes, and the link up
	UAPIPath  string

	DNS       []string // servers and search domains in place of the file's
	HostDNS   bool     // lookups go by the host
	Hooks     bool     // run PreUp, PostUp, PreDown, PostDown inside
	Expose    []string // paths of /run that stay visible to apps
	HideDirs  []string // what apps must not see
	HideFiles []string

	Wait    time.Duration // for the first handshake; 0: do not
	Patient bool          // without Wait: start also while endpoints' names do not resolve
	Engine  string        // one of Engines; empty: the default
	Sandbox SandboxLevel

	Metrics MetricsAddress // zero: none are served
	Outside Outside

	// Settings are what Replace compares: names that a user knows, and values.
	Settings map[string]string

	Verbose  bool
	Service  service.Manager     // who started this process as a service
	Stored   map[string]*os.File // what it kept of the tunnel before; Start owns it
	ExitFile *os.File            // its end of file, or a byte on it, ends the tunnel
	Say      func(line string)   // gets warnings and progress; nil: nobody
	Stderr   *os.File            // for the last words of a crash; nil: nobody
}

// Tunnel is one that stands.
type Tunnel struct {
	Name     string // of the tunnel
	IfName   string
	Dir      string // its directory
	UAPIPath string // its UAPI socket, as wg(8) speaks it
	Pid      int    // of its supervisor

	s    *supervisor.Supervisor
	root string
	say  func(string)
}

// Start makes a tunnel after c, for target or, if that is nil, in new namespaces.
// It returns when the tunnel is ready; with Options.Wait, when a peer has
// answered. The tunnel ends with ctx until something is in it that it serves.
func Start(ctx context.Context, c *conf.Config, target *Target, o Options) (*Tunnel, error) {
	text, err := c.Marshal()
	if err != nil {
		return nil, err
	}
	say := o.Say
	if say == nil {
		say = func(string) {}
	}
	s, err := supervisor.Launch(ctx, supervisor.Start{Request: tunnel.Request{
		Conf: text, ConfName: o.ConfName, ConfPath: o.ConfPath, Options: o.plan(target), Root: o.Root, Name: o.Name,
		Target: target, UAPIPath: o.UAPIPath, Wait: o.Wait, Patient: o.Patient, Engine: o.Engine, Sandbox: o.Sandbox, Verbose: o.Verbose,
	}, Service: o.Service, Metrics: o.Metrics, Outside: o.Outside, Settings: o.Settings}, o.Stored, o.ExitFile, o.Stderr, say)
	if err != nil {
		return nil, err
	}
	return &Tunnel{Name: s.Name, IfName: s.IfName, Dir: s.Dir, UAPIPath: s.UAPIPath, Pid: s.Pid, s: s, root: o.Root, say: say}, nil
}

func (o Options) plan(target *Target) plan.Options {
	return plan.Options{
		IfName: o.IfName, Attach: target != nil, Configure: o.Configure || target == nil,
		DNS: o.DNS, HostDNS: o.HostDNS, Hooks: o.Hooks,
		Expose: o.Expose, HideDirs: o.HideDirs, HideFiles: o.HideFiles,
	}
}

// StartApp starts a program in a tunnel with namespaces of its own, as a child of
// this process. From here on the tunnel lives until the last process in it ends;
// with killAfter, until the app ends, and what it left is killed.
func (t *Tunnel) StartApp(app App, killAfter bool) (*os.Process, error) {
	if t.s.NS == nil {
		return nil, fmt.Errorf("start %s: the namespaces of the tunnel are not ours", app.Args[0])
	}
	pid, err := t.s.NS.Start(app)
	if err != nil {
		return nil, err
	}
	if err := t.s.AppStarted(supervisor.App{Pid: pid, KillAfter: killAfter}); err != nil {
		return nil, err
	}
	return os.FindProcess(pid)
}

// Exec turns this process into the stand-in of a program that it starts as
// StartApp does: it passes signals on and ends with the program's exit code. Exec
// returns only with an error. The calling goroutine must be locked to the main
// thread.
func (t *Tunnel) Exec(app App, killAfter bool) error {
	if t.s.NS == nil {
		return fmt.Errorf("start %s: the namespaces of the tunnel are not ours", app.Args[0])
	}
	socket, err := t.s.Socket()
	if err != nil {
		return err
	}
	return waiter.Become(waiter.Config{App: app, KillAfter: killAfter, NS: t.s.NS, Supervisor: t.s.Process(), Socket: socket, Root: t.root})
}

// Attend turns this process into one that holds no key, waits for the tunnel's end
// and ends it by SIGINT, SIGTERM or SIGHUP. It is for a Target, and returns only
// with an error.
func (t *Tunnel) Attend() error {
	socket, err := t.s.Socket()
	if err != nil {
		return err
	}
	return waiter.Become(waiter.Config{Supervisor: t.s.Process(), Socket: socket, Root: t.root})
}

// Detach leaves the tunnel to itself: it lives as long as what it serves.
func (t *Tunnel) Detach() error { return t.s.Detach(t.say) }

// Wait blocks until the tunnel is over, and ends it when ctx ends.
func (t *Tunnel) Wait(ctx context.Context) error { return t.s.Wait(ctx, t.say) }

// Close ends the tunnel and waits for its undoing.
func (t *Tunnel) Close() error { return t.s.Close() }

// DryRun prints what Start would do. It looks up the endpoints and touches
// nothing.
func DryRun(ctx context.Context, w io.Writer, c *conf.Config, target *Target, o Options) error {
	facts, err := host.Look(ctx, c)
	if err != nil {
		return err
	}
	p, err := plan.New(c, o.plan(target), facts)
	if err != nil {
		return err
	}
	_, err = p.WriteTo(w)
	return err
}
