package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"wireguard4netns"
	"wireguard4netns/internal/demo"
)

// Roles of the demo's other processes, as arguments of this program.
var demoRoles = demo.Roles{Peer: "demo-peer", Page: "demo-page", Look: "demo-look"}

// exitNotTrue: a step of the demo, or a check of doctor, failed.
const exitNotTrue = exitCode(1)

func newDemo(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo [-- CMD [ARG…]]",
		Short: "Show a tunnel that needs no account, server or network",
		Long: `Demo makes a WireGuard peer of its own, with a small web page in it, and a
tunnel to it as run makes one, both on this machine and over its loopback. It
prints a line for each thing that a program in the tunnel sees: its link and
addresses, the page, that the host cannot be reached, and that it can change
nothing about that. All of it is gone afterwards.

With CMD it runs that in the tunnel instead; the peer lives until CMD ends.

The exit code is 0 only if each line was seen to be true, and that of CMD if
there is one.`,
		Example: `  wireguard4netns demo
  wireguard4netns demo -- bash`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runDemo(cmd.Context(), env, args)
		},
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func runDemo(ctx context.Context, env *Env, command []string) error {
	if err := closeOnExec(); err != nil {
		return err
	}
	d := env.demo()
	ctx, stop := interruptible(ctx)
	defer stop()
	if len(command) > 0 {
		app, err := env.app(runFlags{}, command)
		if err != nil {
			return err
		}
		return env.demoError(ctx, d.Exec(ctx, app))
	}
	ok, err := d.Run(ctx)
	if err != nil {
		return env.demoError(ctx, err)
	}
	if !ok {
		fmt.Fprintln(env.Stdout, "Not every line was seen to be true.")
		return exitNotTrue
	}
	fmt.Fprintln(env.Stdout, "Every line was seen to be true.")
	return nil
}

// demoError leaves out what has been said, or was asked for by a signal.
func (env *Env) demoError(ctx context.Context, err error) error {
	var code exitCode
	switch {
	case errors.As(context.Cause(ctx), &code):
		return code
	case errors.Is(err, demo.ErrPeer):
		return exitCode(exitError)
	}
	return err
}

func (env *Env) demo() *demo.Demo {
	return &demo.Demo{
		Roles: demoRoles,
		Options: wireguard4netns.Options{
			Root: env.stateRoot(), Say: env.sayTo(), HideDirs: []string{env.stateRoot(), env.configDir()},
		},
		Environ: env.Environ, Stdout: env.Stdout, Stderr: env.Stderr,
	}
}

// newDemoRoles are the demo's other processes; see package demo.
func newDemoRoles(env *Env) []*cobra.Command {
	role := func(name string, run func(ctx context.Context, arg string) error) *cobra.Command {
		return &cobra.Command{
			Use: name, Hidden: true, Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error { return run(cmd.Context(), args[0]) },
		}
	}
	return []*cobra.Command{
		role(demoRoles.Peer, func(ctx context.Context, key string) error { return demo.Peer(ctx, env.demo(), key) }),
		role(demoRoles.Page, func(_ context.Context, hello string) error { return demo.Page(hello, env.Stdin, env.Stdout) }),
		role(demoRoles.Look, func(_ context.Context, view string) error {
			ok, err := demo.Look(env.Stdout, view)
			if err == nil && !ok {
				return exitNotTrue
			}
			return err
		}),
	}
}
