package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"wireguard4netns"
)

// tunnelFlags are those of every command that makes a tunnel.
type tunnelFlags struct {
	serviceFlags
	name    string
	wait    time.Duration
	engine  engineName
	sandbox wireguard4netns.SandboxLevel
	dryRun  bool
	verbose bool
}

func (f *tunnelFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.name, "name", "", "`NAME` of the tunnel (default: made of the link's name and a number)")
	flags.DurationVar(&f.wait, "wait", 0, "wait so long for the first handshake before going on")
	flags.Lookup("wait").NoOptDefVal = "30s"
	flags.Var(&f.engine, "engine", "what speaks WireGuard: "+strings.Join(wireguard4netns.Engines, " (the default) or "))
	flags.TextVar(&f.sandbox, "sandbox", f.sandbox, "of the process that holds the keys: auto (all that the machine allows), strict or none")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print what would be done and touch nothing")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "say what was decided and done")
	f.serviceFlags.add(flags)
}

// engineName is a flag's value.
type engineName string

func (e *engineName) String() string { return string(*e) }
func (e *engineName) Type() string   { return "NAME" }

func (e *engineName) Set(name string) error {
	if !slices.Contains(wireguard4netns.Engines, name) {
		return fmt.Errorf("there are %s", strings.Join(wireguard4netns.Engines, " and "))
	}
	*e = engineName(name)
	return nil
}

type runFlags struct {
	tunnelFlags
	ifname    string
	dns       []string
	hooks     bool
	killAfter bool
	mapRoot   bool
	expose    []string
	preserve  int
}

func newRun(env *Env) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [flags] CONF [--] [CMD [ARG…]]",
		Short: "Run a command with WireGuard as its only network",
		Long: `Run runs CMD (default: $SHELL) in a network namespace whose only link is a
WireGuard tunnel made as CONF says: a wg-quick(8) file, or a name that is looked
up as ~/.config/wireguard4netns/NAME.conf and /etc/wireguard/NAME.conf.

CMD keeps uid, environment, directory and terminal. Names are looked up at the
servers of the file and nowhere else. The exit code is that of CMD, 128+N if it
was ended by signal N, 127 if there is no such program, 126 if it cannot be
executed, 125 if the tunnel could not be made. What CMD leaves running in the
background keeps the tunnel until it ends.`,
		Example: `  wireguard4netns run provider.conf -- curl https://example.com
  wireguard4netns run --wait provider firefox --no-remote --profile ~/vpn-profile
  wireguard4netns run --dns 10.0.0.1 wg0.conf`,
		Args:              usage("CONF", "CMD…"),
		ValidArgsFunction: env.completeConf,
		RunE: func(cmd *cobra.Command, args []string) error {
			command := args[1:]
			if len(command) > 0 && command[0] == "--" {
				command = command[1:]
			}
			return run(cmd.Context(), env, f, args[0], command)
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false)
	f.add(flags)
	f.addInside(flags)
	f.addApp(flags)
	flags.BoolVar(&f.killAfter, "kill-on-exit", false, "when CMD ends, end what it left running")
	return cmd
}

// addInside adds the flags of what is inside new namespaces.
func (f *runFlags) addInside(flags *pflag.FlagSet) {
	flags.StringVar(&f.ifname, "ifname", "", "`NAME` of the link inside (default: the file's, as wg-quick)")
	flags.StringSliceVar(&f.dns, "dns", nil, "DNS `SERVER` or search domain in place of the file's; \"host\": the host's resolver")
	flags.BoolVar(&f.hooks, "hooks", false, "run the file's PreUp, PostUp, PreDown and PostDown, inside")
	flags.StringSliceVar(&f.expose, "expose", nil, "`PATH` below /run that is to be seen inside (a socket of the host may be a way around the tunnel)")
}

// addApp adds the flags of a program that is started inside.
func (f *runFlags) addApp(flags *pflag.FlagSet) {
	flags.BoolVar(&f.mapRoot, "map-root", false, "CMD sees itself as root, with no more rights")
	flags.IntVar(&f.preserve, "preserve-fds", 0, "pass on `N` descriptors after standard error")
}

func run(ctx context.Context, env *Env, f runFlags, name string, command []string) error {
	if err := f.checkFDs(); err != nil {
		return err
	}
	c, o, err := env.runOptions(f, name)
	if err != nil {
		return err
	}
	if f.dryRun {
		return wireguard4netns.DryRun(ctx, env.Stdout, c.config, nil, o)
	}
	app, err := env.app(f, command)
	if err != nil {
		return err
	}
	t, err := start(ctx, env, c, nil, o)
	if err != nil {
		return err
	}
	if err := t.Exec(app, f.killAfter); err != nil {
		return errors.Join(err, t.Close())
	}
	return nil
}

// runOptions reads the file that name means and says what of it and of the flags
// makes the tunnel.
func (env *Env) runOptions(f runFlags, name string) (c *file, o wireguard4netns.Options, err error) {
	if err := errors.Join(f.checkWait(), f.checkInside()); err != nil {
		return nil, o, err
	}
	say := env.sayTo()
	if c, err = env.load(name, say); err != nil {
		return nil, o, err
	}
	ifname, err := c.linkName(f.ifname)
	if err != nil {
		return nil, o, err
	}
	o = wireguard4netns.Options{
		IfName: ifname, Name: f.name, ConfName: c.name, ConfPath: c.path, Root: env.stateRoot(),
		Hooks: f.hooks, Expose: f.expose, Wait: f.wait, Engine: string(f.engine), Sandbox: f.sandbox, Verbose: f.verbose, Say: say,
		HideDirs: []string{env.stateRoot(), env.configDir()},
	}
	if c.path != "" {
		o.HideFiles = []string{c.path}
	}
	if err := env.setService(f.serviceFlags, &o); err != nil {
		return nil, o, err
	}
	if o.HostDNS = slices.Contains(f.dns, "host"); !o.HostDNS {
		o.DNS = f.dns
	} else if len(f.dns) > 1 {
		return nil, o, &usageError{err: errors.New("--dns host goes with no other --dns"), hint: "either the host's resolver or servers of your own"}
	}
	return c, o, nil
}

// start makes the tunnel; a signal that would end the program undoes it.
func start(ctx context.Context, env *Env, c *file, target *wireguard4netns.Target, o wireguard4netns.Options) (*wireguard4netns.Tunnel, error) {
	ctx, stop := interruptible(ctx)
	if o.Verbose {
		o.Stderr = env.Stderr
	}
	t, err := wireguard4netns.Start(ctx, c.config, target, o)
	stop()
	var code exitCode
	if !errors.As(context.Cause(ctx), &code) {
		return t, err
	}
	if err == nil {
		t.Close() // it came when all was done
	}
	return nil, code
}

// app says what is to be run.
func (env *Env) app(f runFlags, command []string) (wireguard4netns.App, error) {
	if len(command) == 0 {
		shell := env.get("SHELL")
		if shell == "" {
			shell = "/bin/sh"
		}
		command = []string{shell}
	}
	dir, err := os.Getwd()
	if err != nil {
		return wireguard4netns.App{}, &usageError{err: fmt.Errorf("find working directory: %w", err), hint: "it was removed: cd to another"}
	}
	if pwd := env.get("PWD"); pwd != dir && sameDir(pwd, dir) {
		dir = pwd
	}
	return wireguard4netns.App{
		Args: command, Env: env.Environ, Dir: dir, MapRoot: f.mapRoot, PreserveFDs: f.preserve,
	}, nil
}

func sameDir(a, b string) bool {
	ia, err1 := os.Stat(a)
	ib, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && filepath.IsAbs(a) && os.SameFile(ia, ib)
}

// checkFDs sees to it that what the caller passed on purpose, and nothing else,
// gets further than this process.
func (f *runFlags) checkFDs() error {
	if f.preserve < 0 {
		return errCount
	}
	for fd := 3; fd < 3+f.preserve; fd++ {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC != 0 {
			return &usageError{err: fmt.Errorf("--preserve-fds %d: descriptor %d is not open", f.preserve, fd), hint: "open it in the shell, as in: 3<file"}
		}
	}
	return closeOnExec()
}

// closeOnExec keeps what this process was started with from its children: a
// pipe of somebody's, held open by a supervisor, would never end.
func closeOnExec() error {
	if err := unix.CloseRange(3, ^uint(0)>>33, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return os.NewSyscallError("close_range", err)
	}
	return nil
}

// stateRoot is the directory of this user's tunnels.
func (env *Env) stateRoot() string {
	uid := os.Getuid()
	for _, dir := range []string{env.get("XDG_RUNTIME_DIR"), fmt.Sprintf("/run/user/%d", uid)} {
		if dir != "" && filepath.IsAbs(dir) && ownDir(dir, uid) {
			return filepath.Join(dir, "wireguard4netns")
		}
	}
	return fmt.Sprintf("/tmp/wireguard4netns-%d", uid)
}

func ownDir(path string, uid int) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && int(st.Uid) == uid && st.Mode&unix.S_IFMT == unix.S_IFDIR &&
		unix.Access(path, unix.W_OK) == nil
}
