package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"wireguard4netns"
	"wireguard4netns/internal/service"
	"wireguard4netns/internal/supervisor"
)

func newUp(env *Env) *cobra.Command {
	var f runFlags
	var replace bool
	cmd := &cobra.Command{
		Use:   "up [flags] CONF",
		Short: "Make a tunnel that lives without a program",
		Long: `Up makes a tunnel as run does and leaves it standing until "down". Exec puts
programs into it. Its name is that of its file, or --name.

With --replace a tunnel of that name that stands is taken over by this version of
the program, and made what CONF says, as reload does: the link, programs inside and
their connections live on. It keeps the flags that it was made with; with others up says
so and changes nothing. --wait is for a new tunnel.

Commands of --on-up, --on-down and --on-handshake run by /bin/sh on the host, not in
the tunnel, one at a time and for 30 seconds at most; what they print is in the
tunnel's log. They find the tunnel's facts in W4N_EVENT, W4N_NAME, W4N_INTERFACE,
W4N_ADDRESSES, W4N_DNS, W4N_DIRECTORY, W4N_UAPI_SOCKET and W4N_SUPERVISOR_PID, and
--on-handshake the peer's in W4N_PEER, W4N_PEER_NAME and W4N_ENDPOINT.

Started by systemd with Type=notify and NotifyAccess=all, up tells it that the tunnel
is ready, and the tunnel tells it how it is.`,
		Example: `  wireguard4netns up home
  wireguard4netns up --replace home
  wireguard4netns up --name work --wait provider.conf`,
		Args:              usage("CONF"),
		ValidArgsFunction: env.completeConf,
		RunE: func(cmd *cobra.Command, args []string) error {
			return up(cmd.Context(), env, f, args[0], replace, cmd.Flags().Changed)
		},
	}
	f.tunnelFlags.add(cmd.Flags())
	f.addInside(cmd.Flags())
	cmd.Flags().BoolVar(&replace, "replace", false, "take over the tunnel of that name, if it stands")
	return cmd
}

// up is told which flags are on the command line.
func up(ctx context.Context, env *Env, f runFlags, name string, replace bool, isGiven func(flag string) bool) error {
	c, o, err := env.runOptions(f, name)
	if err != nil {
		return err
	}
	if o.Name == "" {
		o.Name = o.IfName
	}
	o.Patient = true
	if f.dryRun {
		return wireguard4netns.DryRun(ctx, env.Stdout, c.config, nil, o)
	}
	stored, err := service.Stored(env.get, os.Getpid())
	if err != nil {
		o.Say(err.Error() + "; the tunnel is made anew")
	}
	if err := closeOnExec(); err != nil {
		return err
	}
	o.Settings = f.settings(o)
	if replace {
		t, err := wireguard4netns.Open(o.Root, o.Name)
		if err == nil {
			maps.DeleteFunc(o.Settings, func(flag, _ string) bool { return !isGiven(strings.TrimPrefix(flag, "--")) })
			return takeOver(t, c, o)
		}
		if !errors.Is(err, supervisor.ErrNoTunnel) {
			return err
		}
	}
	o.Service = service.FromEnvironment(env.get, os.Getpid())
	o.Stored = stored
	t, err := start(ctx, env, c, nil, o)
	if err != nil {
		return err
	}
	if err := t.Detach(); err != nil {
		return err
	}
	if err := o.Service.Tell(service.MainPID(t.Pid), service.Ready); err != nil {
		o.Say(err.Error()) // NOTIFY_SOCKET may be left over from somebody else's start
	}
	return nil
}

// settings are the flags that a tunnel keeps for its life, and what they mean in o.
func (f *runFlags) settings(o wireguard4netns.Options) map[string]string {
	dns := strings.Join(o.DNS, ",")
	if o.HostDNS {
		dns = "host"
	}
	return map[string]string{
		"--ifname":       o.IfName,
		"--dns":          dns,
		"--hooks":        fmt.Sprint(o.Hooks),
		"--expose":       strings.Join(o.Expose, ","),
		"--engine":       cmp.Or(o.Engine, wireguard4netns.Engines[0]),
		"--sandbox":      fmt.Sprint(o.Sandbox),
		"--verbose":      fmt.Sprint(o.Verbose),
		"--metrics":      f.metrics,
		"--on-up":        o.Outside.Up,
		"--on-down":      o.Outside.Down,
		"--on-handshake": o.Outside.Handshake,
	}
}

// takeOver makes this program that of a tunnel that stands, and the file its file.
func takeOver(t *wireguard4netns.Tunnel, c *file, o wireguard4netns.Options) error {
	if err := t.Replace(o.Settings, o.Say); err != nil {
		return fmt.Errorf("replace %s: %w", t.Name, err)
	}
	if err := t.Reload(c.config, c.name, o.Say); err != nil {
		return fmt.Errorf("reload %s: %w", t.Name, err)
	}
	return nil
}

func newDown(env *Env) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "down [--all] [NAME…]",
		Short: "End tunnels",
		Long: `Down ends tunnels, whatever made them. Programs that are still inside have no
network from then on.`,
		Example: `  wireguard4netns down home
  wireguard4netns down --all`,
		ValidArgsFunction: env.completeTunnels,
		RunE: func(_ *cobra.Command, names []string) error {
			if all == (len(names) > 0) {
				return &usageError{err: errors.New("down: name tunnels, or --all"), hint: "wireguard4netns list names them"}
			}
			if all {
				var err error
				if names, err = wireguard4netns.List(env.stateRoot()); err != nil {
					return err
				}
			}
			return down(env, names)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all of them")
	return cmd
}

// down ends tunnels, all at the same time, and says of each what went wrong.
func down(env *Env, names []string) error {
	errs := make([]error, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() {
			t, err := wireguard4netns.Open(env.stateRoot(), name)
			if err == nil {
				err = t.Down(env.sayTo())
			}
			errs[i] = err
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func newExec(env *Env) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "exec [flags] NAME [--] [CMD [ARG…]]",
		Short: "Run a command in a tunnel that stands",
		Long: `Exec runs CMD (default: $SHELL) in a tunnel that up, or run, has made. It keeps
uid, environment, directory and terminal, and sees what a command of run sees. The
exit codes are those of run.`,
		Example: `  wireguard4netns exec home -- curl https://example.com
  wireguard4netns exec home`,
		Args:              usage("NAME", "CMD…"),
		ValidArgsFunction: env.completeTunnels,
		RunE: func(_ *cobra.Command, args []string) error {
			command := args[1:]
			if len(command) > 0 && command[0] == "--" {
				command = command[1:]
			}
			return execIn(env, f, args[0], command)
		},
	}
	cmd.Flags().SetInterspersed(false)
	f.addApp(cmd.Flags())
	return cmd
}

func execIn(env *Env, f runFlags, name string, command []string) error {
	if err := f.checkFDs(); err != nil {
		return err
	}
	app, err := env.app(f, command)
	if err != nil {
		return err
	}
	t, err := wireguard4netns.Open(env.stateRoot(), name)
	if err != nil {
		return err
	}
	if err := t.Join(); err != nil {
		return fmt.Errorf("exec in %s: %w", name, err)
	}
	return t.Exec(app, false)
}

// completeTunnels offers the names of tunnels that stand.
func (env *Env) completeTunnels(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	names, err := wireguard4netns.List(env.stateRoot())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return slices.DeleteFunc(names, func(n string) bool { return slices.Contains(args, n) }), cobra.ShellCompDirectiveNoFileComp
}

// completeConf offers the names of files, and files.
func (env *Env) completeConf(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return env.confNames(), cobra.ShellCompDirectiveDefault
}
