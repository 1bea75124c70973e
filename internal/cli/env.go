package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"wireguard4netns"
)

func newEnv(env *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "env NAME",
		Short: "Tell other programs where a tunnel is",
		Long: `Env prints, for a shell to eval, what nsenter and others need to join a tunnel by
themselves:
    W4N_NAME         the tunnel
    W4N_PID          a process that stands for its namespaces
    W4N_USERNS       /proc/PID/ns/user, which owns the others
    W4N_NETNS        /proc/PID/ns/net
    W4N_MNTNS        /proc/PID/ns/mnt: the tunnel's resolv.conf, and no way around
    W4N_INTERFACE    the link
    W4N_DIRECTORY    its directory
    W4N_UAPI_SOCKET  its UAPI socket
The process has no keys and no rights, and ends with the tunnel or its supervisor,
and when "up --replace" changes that; what has joined stays. Who joins with a plain uid has no rights over the link and the
mounts either.

A rootless podman is in a user namespace of its own and cannot join: attach to a
container made with --network none. A service of the system's systemd can, with
NetworkNamespacePath=, but sees the host's files: better is
ExecStart=wireguard4netns exec NAME -- CMD in a unit of the user.`,
		Example: `  eval "$(wireguard4netns env home)" && nsenter --user=$W4N_USERNS --net=$W4N_NETNS --mount=$W4N_MNTNS --preserve-credentials curl https://example.com
  wireguard4netns exec home -- bwrap --ro-bind / / curl https://example.com`,
		Args:              usage("NAME"),
		ValidArgsFunction: env.completeTunnels,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := wireguard4netns.Open(env.stateRoot(), args[0])
			if err != nil {
				return err
			}
			s, err := t.Status()
			if err != nil {
				return err
			}
			pid, err := t.Hold()
			if err != nil {
				return fmt.Errorf("env %s: %w", args[0], err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), `W4N_NAME=%s
W4N_PID=%d
W4N_USERNS=/proc/%[2]d/ns/user
W4N_NETNS=/proc/%[2]d/ns/net
W4N_MNTNS=/proc/%[2]d/ns/mnt
W4N_INTERFACE=%s
W4N_DIRECTORY=%s
W4N_UAPI_SOCKET=%s
`, s.Name, pid, quoted(s.Interface), quoted(s.Directory), quoted(s.UAPISocket))
			return err
		},
	}
}

// quoted writes text as one word of a shell.
func quoted(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
