// Package cli is the command line: flags in, one call of package wireguard4netns
// out. All text for people is here, and so are all hints.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"wireguard4netns/internal/ns"
	"wireguard4netns/internal/sys"
)

// Env is what the process has from outside.
type Env struct {
	Args                  []string // argv, Args[0] included
	Environ               []string
	Stdin, Stdout, Stderr *os.File
}

// Exit codes of our own, as podman-run(1) and env(1) have them.
const (
	exitError         = 125
	exitNotExecutable = 126
	exitNotFound      = 127
)

// exitCode ends the program with a code of which nothing is to be said.
type exitCode int

func (c exitCode) Error() string { return "exit code " + strconv.Itoa(int(c)) }

// Main runs the command line and returns the exit code.
func Main(env Env) int {
	root := newRoot(&env)
	root.SetArgs(env.Args[1:])
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	err := root.ExecuteContext(context.Background())
	return report(env.Stderr, err)
}

// Report says on standard error what went wrong, and returns the exit code.
func Report(err error) int { return report(os.Stderr, err) }

// report says what went wrong, in one line, and what to do, in one more.
func report(w io.Writer, err error) int {
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintf(w, "wireguard4netns: %s\n", what(err))
	if h := hint(err); h != "" {
		fmt.Fprintf(w, "hint: %s\n", h)
	}
	switch {
	case errors.Is(err, ns.ErrNotFound):
		return exitNotFound
	case errors.Is(err, ns.ErrNotExecutable):
		return exitNotExecutable
	}
	return exitError
}

func newRoot(env *Env) *cobra.Command {
	legacy := new(attachFlags)
	root := &cobra.Command{
		Use:   "wireguard4netns",
		Short: "WireGuard as the only network of a program or a namespace, without root",
		Long: `wireguard4netns gives one program, one container or one job WireGuard as its
only network. It needs no root, no capability and no other program.

As the Python program of this name it also reads
    wireguard4netns [--tmpdir DIR] NS_PID INTERFACE CONF
which is short for "attach --detach" with the UAPI socket at DIR/INTERFACE.sock.`,
		Example: `  wireguard4netns run provider.conf -- curl https://example.com
  wireguard4netns attach --configure $(podman inspect -f '{{.State.Pid}}' web) wg0 provider.conf
  wireguard4netns demo
  wireguard4netns doctor provider.conf`,
		Args:          cobra.ArbitraryArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			if _, err := strconv.Atoi(args[0]); err == nil && len(args) == 3 {
				legacy.detach, legacy.legacy = true, true
				return attach(cmd.Context(), env, *legacy, args[0], args[1], args[2])
			}
			return unknownCommand(cmd, args[0])
		},
	}
	root.Flags().StringVar(&legacy.tmpdir, "tmpdir", ".", "with NS_PID INTERFACE CONF: `DIR` of the UAPI socket")
	root.SuggestionsMinimumDistance = 1
	root.CompletionOptions.HiddenDefaultCmd = false
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newRun(env), newUp(env), newExec(env), newEnv(env), newReload(env), newDown(env), newList(env), newStatus(env), newMonitor(env), newShow(env), newShowConf(env), newLogs(env), newAttach(env), newDemo(env), newDoctor(env), newVersion())
	root.AddCommand(append(newConfs(env), newSet(env))...)
	root.AddCommand(append(newDemoRoles(env), newDoctorRole(env))...)
	return root
}

// usageError is a mistake in the arguments.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func unknownCommand(cmd *cobra.Command, name string) error {
	err := &usageError{err: fmt.Errorf("unknown command %q", name), hint: "see " + cmd.CommandPath() + " --help"}
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		err.hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return err
}

// usage checks the number of arguments and says what is missing by its name.
func usage(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		rest := strings.HasSuffix(names[len(names)-1], "…")
		least := len(names)
		if rest {
			least--
		}
		see := "usage: " + cmd.UseLine()
		if len(args) < least {
			return &usageError{err: fmt.Errorf("%s: %s is missing", cmd.Name(), names[len(args)]), hint: see}
		}
		if !rest && len(args) > len(names) {
			return &usageError{err: fmt.Errorf("%s: unexpected argument %q", cmd.Name(), args[len(names)]), hint: see}
		}
		return nil
	}
}

// interruptible returns a context that ends with the signals which end a program,
// unless they are ignored as by nohup(1). Its cause is the exit code then. After
// stop the signals have their usual effect, and the cause tells of all before.
func interruptible(ctx context.Context) (_ context.Context, stop func()) {
	ctx, end := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	ending := []unix.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP}
	for _, s := range ending {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if s, ok := <-signals; ok {
			end(exitCode(128 + int(s.(unix.Signal))))
		}
	}()
	return ctx, func() {
		// First the kernel: of what the runtime has caught, Stop passes on all.
		sys.ResetSignals(ending)
		signal.Stop(signals)
		close(signals)
		<-done
		end(nil)
	}
}

// sayTo returns a function that prints warnings and progress.
func (env *Env) sayTo() func(string) {
	return func(line string) { fmt.Fprintf(env.Stderr, "wireguard4netns: %s\n", oneLine(line)) }
}

// get returns a variable of the environment.
func (env *Env) get(name string) string {
	for _, kv := range env.Environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}
