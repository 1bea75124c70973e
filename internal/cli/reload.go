package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"wireguard4netns"
)

func newReload(env *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "reload NAME [CONF]",
		Short: "Read a tunnel's file again",
		Long: `Reload makes a running tunnel what its file, or CONF, says now, and touches only
what differs: keys, port, peers, addresses, routes, MTU and DNS. Sessions of other
peers go on, and so do connections of programs inside. A peer whose Endpoint the
file has as before stays where it was last seen.

What cannot change while the tunnel runs is named: hooks, and an MTU above that of
the start.`,
		Example: `  wireguard4netns reload home
  wireguard4netns reload home provider.conf`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return optional("NAME", "CONF")(cmd, args)
			}
			return usage("NAME")(cmd, args)
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return env.completeConf(cmd, args[1:], typed)
			}
			return env.completeTunnels(cmd, args, typed)
		},
		RunE: func(_ *cobra.Command, args []string) error { return reload(env, args[0], args[1:]) },
	}
}

func reload(env *Env, name string, conf []string) error {
	t, err := wireguard4netns.Open(env.stateRoot(), name)
	if err != nil {
		return err
	}
	if len(conf) == 0 {
		s, err := t.Status()
		if err != nil {
			return err
		}
		if s.File == "" {
			return &usageError{err: fmt.Errorf("reload %s: it was not made after a file that can be read again", name), hint: "name one: wireguard4netns reload " + name + " CONF"}
		}
		conf = []string{s.File}
	}
	say := env.sayTo()
	c, err := env.load(conf[0], say)
	if err != nil {
		return err
	}
	if err := t.Reload(c.config, c.name, say); err != nil {
		return fmt.Errorf("reload %s: %w", name, err)
	}
	return nil
}
