package cli

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"wireguard4netns"
	"wireguard4netns/internal/uapi"
	"wireguard4netns/internal/wg"
)

func newShow(env *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "show [NAME|all|interfaces] [FIELD]",
		Short: "Show WireGuard's view of tunnels, as wg show does",
		Long: `Show prints what wg(8) show prints, to the byte, with the tunnel's name in place
of the interface's. FIELD, for scripts, is one of
    ` + strings.Join(wg.Fields[:6], " ") + `
    ` + strings.Join(wg.Fields[6:], " ") + `
As there, keys are hidden where people look, unless WG_HIDE_KEYS=never, and
written out in the fields private-key, preshared-keys and dump. Colours are for
terminals; WG_COLOR_MODE=always|never and NO_COLOR change that.`,
		Example: `  wireguard4netns show home
  wireguard4netns show home latest-handshakes
  wireguard4netns show all dump`,
		Args: optional("NAME", "FIELD"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return wg.Fields, cobra.ShellCompDirectiveNoFileComp
			}
			return env.completeTunnels(cmd, args, typed)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			args = append(args, []string{"all", ""}[min(len(args), 2):]...)
			return show(cmd.Context(), env, args[0], args[1])
		},
	}
}

func show(ctx context.Context, env *Env, which, field string) error {
	if field != "" && !slices.Contains(wg.Fields, field) {
		return &usageError{err: fmt.Errorf("show: unknown field %q", field), hint: "one of " + strings.Join(wg.Fields, ", ")}
	}
	names, lead := []string{which}, ""
	if which == "all" || which == "interfaces" {
		var err error
		if names, err = wireguard4netns.List(env.stateRoot()); err != nil {
			return err
		}
	}
	if which == "interfaces" {
		if len(names) > 0 {
			fmt.Fprintln(env.Stdout, strings.Join(names, " "))
		}
		return nil
	}
	for i, name := range names {
		d, err := env.device(ctx, name)
		if err != nil {
			return err
		}
		if field == "" {
			if i > 0 {
				fmt.Fprintln(env.Stdout)
			}
			fmt.Fprint(env.Stdout, wg.Show(name, d, env.showStyle(), time.Now()))
			continue
		}
		if which == "all" {
			lead = name
		}
		text, _ := wg.Field(lead, d, field)
		fmt.Fprint(env.Stdout, text)
	}
	return nil
}

func newShowConf(env *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "showconf NAME",
		Short: "Print a tunnel's configuration, as wg showconf does",
		Long: `Showconf prints the keys, the port and the peers that a tunnel has now, as a file
for wg(8) and for setconf. It holds keys.`,
		Example:           `  wireguard4netns showconf home`,
		Args:              usage("NAME"),
		ValidArgsFunction: env.completeTunnels,
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := env.device(cmd.Context(), args[0])
			if err == nil {
				fmt.Fprint(env.Stdout, wg.ShowConf(d))
			}
			return err
		},
	}
}

// showStyle is how the environment wants show to print.
func (env *Env) showStyle() wg.Style {
	s := wg.Style{Keys: env.get("WG_HIDE_KEYS") == "never"}
	switch env.get("WG_COLOR_MODE") {
	case "always":
		s.Colour = true
	case "never":
	default:
		s.Colour = env.get("NO_COLOR") == "" && term.IsTerminal(int(env.Stdout.Fd()))
	}
	return s
}

// engine reaches the engine of a tunnel that stands.
func (env *Env) engine(name string) (*uapi.Conn, error) {
	t, err := wireguard4netns.Open(env.stateRoot(), name)
	if err != nil {
		return nil, err
	}
	s, err := t.Status()
	if err != nil {
		return nil, err
	}
	return uapi.Dial(s.UAPISocket)
}

// device asks a tunnel's engine what it has.
func (env *Env) device(ctx context.Context, name string) (d uapi.Device, err error) {
	c, err := env.engine(name)
	if err != nil {
		return d, err
	}
	defer c.Close()
	return deviceOf(ctx, c)
}

func deviceOf(ctx context.Context, c *uapi.Conn) (d uapi.Device, err error) {
	body, err := c.Get(ctx)
	if err != nil {
		return d, err
	}
	return uapi.Parse(bytes.NewReader(body))
}
