package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"wireguard4netns"
	"wireguard4netns/internal/monitor"
)

type monitorFlags struct {
	once     bool
	interval time.Duration
}

// leastInterval bounds how often tunnels are asked: each looks through /proc then.
const leastInterval = 100 * time.Millisecond

// maxAsked is how many tunnels are asked at each sample; if more stand, only the
// one that is shown.
const maxAsked = 16

func newMonitor(env *Env) *cobra.Command {
	f := monitorFlags{interval: time.Second}
	cmd := &cobra.Command{
		Use:     "monitor [--once] [--interval DURATION] [NAME]",
		Aliases: []string{"top"},
		Short:   "Watch tunnels",
		Long: `Monitor shows a tunnel on the whole terminal, and again each second: its state,
the traffic of the last 60 seconds each way, peers, and the processes inside. The
lowest step of a graph is no traffic at all, the highest the peak that is told.

    tab, arrows, 1–9   another tunnel
    ?                  the keys
    Ctrl-L             draw anew
    Ctrl-Z             suspend
    q, Esc, Ctrl-C     quit

With --once, or if the output is not a terminal that can be drawn on, it prints a
table of all tunnels, or of NAME, with rates over one interval; without rates if
the interval is 0. No column but the last has spaces. For programs there is
"status --json".

NO_COLOR turns colours off; a locale without UTF-8 gets nothing but ASCII.`,
		Example: `  wireguard4netns monitor --once
  wireguard4netns top --once --interval 0 home`,
		Args: optional("NAME"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return env.completeTunnels(cmd, args, typed)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return env.monitor(cmd.Context(), f, args)
		},
	}
	cmd.Flags().BoolVar(&f.once, "once", false, "print a table and end")
	cmd.Flags().DurationVar(&f.interval, "interval", f.interval, "time between two samples")
	return cmd
}

func (env *Env) monitor(ctx context.Context, f monitorFlags, args []string) error {
	name := strings.Join(args, "")
	if len(args) > 0 {
		t, err := wireguard4netns.Open(env.stateRoot(), name)
		if err != nil {
			return err
		}
		t.Detach()
	}
	once := f.once || !env.drawable()
	if f.interval < leastInterval && (f.interval != 0 || !once) {
		return &usageError{err: fmt.Errorf("--interval %v is too short", f.interval), hint: fmt.Sprintf("the least is %v, or 0 with --once: no rates", leastInterval)}
	}
	if once && !f.once {
		env.sayTo()("the output is not a terminal that can be drawn on: one table, as with --once")
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	s := newSampler(env.stateRoot())
	defer s.close()
	if once {
		return env.monitorOnce(ctx, s, f.interval, name)
	}
	return env.monitorLive(ctx, s, f.interval, name)
}

// drawable tells whether standard output is a terminal that knows escape
// sequences.
func (env *Env) drawable() bool {
	kind := env.get("TERM")
	return kind != "" && kind != "dumb" && term.IsTerminal(int(env.Stdout.Fd()))
}

// style follows NO_COLOR (no-color.org) and the locale (locale(7)).
func (env *Env) style() monitor.Style {
	locale := strings.ToLower(cmp.Or(env.get("LC_ALL"), env.get("LC_CTYPE"), env.get("LANG")))
	utf8 := strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8")
	return monitor.Style{ASCII: !utf8, Color: env.get("NO_COLOR") == ""}
}

func (env *Env) monitorOnce(ctx context.Context, s *sampler, interval time.Duration, name string) error {
	var m monitor.Model
	for first := true; ; first = false {
		names, err := wireguard4netns.List(env.stateRoot())
		if err != nil {
			return err
		}
		if name != "" {
			names = slices.DeleteFunc(names, func(n string) bool { return n != name })
		}
		m.Add(s.sample(ctx, names, names))
		if !first || interval == 0 {
			return m.Table(env.Stdout, env.style())
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(interval):
		}
	}
}

// monitorLive draws until a key or a signal ends it.
func (env *Env) monitorLive(ctx context.Context, s *sampler, interval time.Duration, name string) (err error) {
	var m monitor.Model
	m.Choose(name)
	w := newWatcher(ctx, s, interval)
	defer w.close()
	screen, err := openScreen()
	if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, screen.close()) }()
	for {
		w.show(m.Chosen())
		if err := screen.draw(m.View(screen.size(), env.style())); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case next := <-w.samples:
			if next.err != nil {
				return next.err
			}
			m.Add(next.Sample)
		case <-screen.signals:
			if err := screen.renew(); err != nil {
				return err
			}
		case key, ok := <-screen.keys:
			switch {
			case !ok || key == monitor.Quit: // !ok: the terminal is gone
				return nil
			case key == monitor.Suspend:
				err = screen.suspend()
			case key == monitor.Redraw:
				err = screen.renew()
			}
			if err != nil {
				return err
			}
			m.Press(key)
		}
	}
}
