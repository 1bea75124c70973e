package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"wireguard4netns"
)

type attachFlags struct {
	tunnelFlags
	configure bool
	userns    string
	readyFD   int
	exitFD    int
	detach    bool
	tmpdir    string
	legacy    bool // the command line of the Python program
}

func newAttach(env *Env) *cobra.Command {
	f := attachFlags{readyFD: -1, exitFD: -1}
	cmd := &cobra.Command{
		Use:   "attach [flags] TARGET IFNAME CONF",
		Short: "Give an existing network namespace a WireGuard link",
		Long: `Attach makes the link IFNAME in a network namespace that something else made.
TARGET is a PID, the path of a network namespace (/proc/PID/ns/net, or what
ip netns, podman and RootlessKit make) or fd:N, an open descriptor of one.

Without --configure the link has its MTU and a running tunnel; addresses,
routes, and setting it up are left to the caller, as slirp4netns does. Nothing
of ours stays inside.

Attach runs in the foreground: for a PID until no process is left in the
namespace, for a path until that is unmounted or removed, always until --exit-fd
is closed, or SIGTERM.`,
		Example: `  wireguard4netns attach --configure 4711 wg0 provider.conf
  wireguard4netns attach -c --detach $(podman inspect -f '{{.State.Pid}}' web) wg0 provider
  wireguard4netns attach --ready-fd 3 --exit-fd 4 /run/user/1000/netns/lab wg0 wg0.conf`,
		Args: usage("TARGET", "IFNAME", "CONF"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return attach(cmd.Context(), env, f, args[0], args[1], args[2])
		},
	}
	flags := cmd.Flags()
	f.add(flags)
	flags.BoolVarP(&f.configure, "configure", "c", false, "set addresses and routes too, and the link and lo up")
	flags.StringVar(&f.userns, "userns-path", "", "`PATH` of the user namespace to join (default: the one that owns the network namespace)")
	flags.IntVar(&f.readyFD, "ready-fd", -1, "write \"1\" to descriptor `N` when ready")
	flags.IntVar(&f.exitFD, "exit-fd", -1, "end when descriptor `N` is closed at its other end")
	flags.BoolVar(&f.detach, "detach", false, "return when ready and leave the tunnel running")
	flags.StringVar(&f.tmpdir, "tmpdir", "", "`DIR` of the UAPI socket IFNAME.sock (default: the tunnel's own directory)")
	return cmd
}

func attach(ctx context.Context, env *Env, f attachFlags, target, ifname, name string) error {
	t, err := wireguard4netns.ParseTarget(target)
	if err != nil {
		return &usageError{err: err, hint: "a PID, a path such as /proc/PID/ns/net, or fd:N"}
	}
	if err := errors.Join(checkTarget(t), f.checkWait()); err != nil {
		return err
	}
	if err := absolute(&t.Path, &f.userns, &f.tmpdir); err != nil {
		return err
	}
	t.UserNSPath = f.userns
	say := env.sayTo()
	c, err := env.load(name, say)
	if err != nil {
		return err
	}
	o := wireguard4netns.Options{
		Name: f.name, ConfName: c.name, ConfPath: c.path, Root: env.stateRoot(), Configure: f.configure,
		Wait: f.wait, Engine: string(f.engine), Sandbox: f.sandbox, Verbose: f.verbose, Say: say,
	}
	if o.IfName, err = c.linkName(ifname); err != nil {
		return err
	}
	if err := env.setService(f.serviceFlags, &o); err != nil {
		return err
	}
	if f.tmpdir != "" {
		o.UAPIPath = filepath.Join(f.tmpdir, o.IfName+".sock")
	}
	if f.dryRun {
		return wireguard4netns.DryRun(ctx, env.Stdout, c.config, &t, o)
	}
	ready, err := f.descriptors(&o)
	if err != nil {
		return err
	}
	tunnel, err := start(ctx, env, c, &t, o)
	if err != nil {
		return err
	}
	if f.verbose {
		say(fmt.Sprintf("tunnel %s is ready, its UAPI socket is %s", tunnel.Name, tunnel.UAPIPath))
	}
	if ready != nil {
		_, err := ready.WriteString("1")
		if err = errors.Join(err, ready.Close()); err != nil {
			return errors.Join(fmt.Errorf("tell --ready-fd: %w", err), tunnel.Close())
		}
	}
	if f.detach {
		return tunnel.Detach()
	}
	return errors.Join(tunnel.Attend(), tunnel.Close())
}

// descriptors takes --ready-fd and --exit-fd, and keeps from the supervisor
// everything else that this process was started with.
func (f *attachFlags) descriptors(o *wireguard4netns.Options) (ready *os.File, err error) {
	if f.legacy {
		return nil, closeOnExec()
	}
	open := func(flag string, fd int) (*os.File, error) {
		if fd < 0 {
			return nil, nil
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return nil, &usageError{err: fmt.Errorf("%s %d: the descriptor is not open", flag, fd), hint: "open it in the shell, as in: 3>ready"}
		}
		return os.NewFile(uintptr(fd), flag), nil
	}
	if ready, err = open("--ready-fd", f.readyFD); err != nil {
		return nil, err
	}
	if o.ExitFile, err = open("--exit-fd", f.exitFD); err != nil {
		return nil, err
	}
	return ready, closeOnExec()
}

// absolute makes paths independent of the directory; the supervisor has its own.
func absolute(paths ...*string) (err error) {
	for _, p := range paths {
		if *p == "" {
			continue
		}
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	return nil
}
