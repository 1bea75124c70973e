package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"wireguard4netns"
)

func newList(env *Env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list [--json]",
		Aliases: []string{"ls"},
		Short:   "List tunnels",
		Example: `  wireguard4netns list`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := env.statuses(nil)
			if err == nil && asJSON {
				return printJSON(cmd.OutOrStdout(), all)
			}
			return errors.Join(err, printList(cmd.OutOrStdout(), all))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, as status does")
	return cmd
}

func newStatus(env *Env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [--json] [NAME…]",
		Short: "Tell how tunnels are",
		Long: `Status tells of each tunnel, or of those named, how it is:
    up                   a peer has answered
    idle                 no handshake yet, and nothing was to be sent
    no-handshake         packets go out and nobody has answered
    endpoint-unresolved  the name of an endpoint has no address yet
    engine-restarting    the engine died and another takes over
with the cause, and what the tunnel is made of.

--json prints an array of objects with these members; there may be more of them,
and their meanings stay:
    name interface state cause since supervisorPid enginePid engineRestarts mtu
    mtuSource addresses dns search processes file directory uapiSocket
    peers: [{name publicKey endpoint configured lastHandshake rxBytes txBytes
             rxRate txRate allowedIPs}]
Rates are bytes a second of the last seconds, null if not known.`,
		Example: `  wireguard4netns status home
  wireguard4netns status --json`,
		ValidArgsFunction: env.completeTunnels,
		RunE: func(cmd *cobra.Command, names []string) error {
			all, err := env.statuses(names)
			if asJSON {
				return errors.Join(printJSON(cmd.OutOrStdout(), all), err)
			}
			for i, s := range all {
				if i > 0 {
					fmt.Fprintln(cmd.OutOrStdout())
				}
				printStatus(cmd.OutOrStdout(), s, time.Now())
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// statuses asks the named tunnels, or all. One that ended meanwhile is left out
// unless it was named.
func (env *Env) statuses(names []string) (all []*wireguard4netns.Status, err error) {
	named := len(names) > 0
	if !named {
		if names, err = wireguard4netns.List(env.stateRoot()); err != nil {
			return nil, err
		}
	}
	all, errs := wireguard4netns.Statuses(env.stateRoot(), names)
	all = slices.DeleteFunc(all, func(s *wireguard4netns.Status) bool { return s == nil })
	if !named {
		return all, nil
	}
	return all, errors.Join(errs...)
}

func printJSON(w io.Writer, all []*wireguard4netns.Status) error {
	if all == nil {
		all = []*wireguard4netns.Status{}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(all)
}

func printList(w io.Writer, all []*wireguard4netns.Status) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tLINK\tSTATE\tADDRESS\tPROCESSES\tSINCE")
	for _, s := range all {
		address := "-"
		if len(s.Addresses) > 0 {
			address = s.Addresses[0].String()
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\n", s.Name, s.Interface, s.State, address, len(s.Processes), s.Since.Format(time.DateTime))
	}
	return t.Flush()
}

func printStatus(w io.Writer, s *wireguard4netns.Status, now time.Time) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	defer t.Flush()
	row := func(name, format string, args ...any) {
		if value := fmt.Sprintf(format, args...); value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, value)
		}
	}
	row("tunnel", "%s", s.Name)
	state := s.State
	if s.Cause != "" {
		state += ": " + s.Cause
	}
	row("state", "%s", state)
	row("since", "%s (%s)", s.Since.Format(time.DateTime), now.Sub(s.Since).Round(time.Second))
	row("link", "%s, MTU %d from %s", s.Interface, s.MTU, s.MTUSource)
	row("addresses", "%s", joined(s.Addresses))
	row("DNS", "%s", strings.TrimSpace(joined(s.DNS)+" "+strings.Join(s.Search, ", ")))
	for _, p := range s.Peers {
		row("peer", "%s", strings.TrimSpace(p.Name+" "+p.PublicKey))
		endpoint := p.Endpoint
		if p.Configured != "" && p.Configured != p.Endpoint {
			endpoint += " (" + p.Configured + ")"
		}
		row("", "endpoint %s", endpoint)
		row("", "allowed IPs %s", joined(p.AllowedIPs))
		handshake := "never"
		if !p.LastHandshake.IsZero() {
			handshake = now.Sub(p.LastHandshake).Round(time.Second).String() + " ago"
		}
		row("", "last handshake %s; %s received%s, %s sent%s", handshake, bytesText(p.RxBytes), rateText(p.RxRate), bytesText(p.TxBytes), rateText(p.TxRate))
	}
	row("processes", "%s", strings.Trim(fmt.Sprint(s.Processes), "[]"))
	row("supervisor", "process %d; engine: process %d, restarted %d times", s.SupervisorPID, s.EnginePID, s.EngineRestarts)
	row("UAPI socket", "%s", s.UAPISocket)
}

func joined[T fmt.Stringer](values []T) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = v.String()
	}
	return strings.Join(texts, ", ")
}

// rateText writes a rate that is known and not zero.
func rateText(rate *float64) string {
	if rate == nil || *rate < 1 {
		return ""
	}
	return " (" + bytesText(uint64(*rate)) + "/s)"
}

// bytesText writes a number of bytes as wg(8) does.
func bytesText(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	value, unit := float64(n), 0
	for value >= 1024 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.2f %s", value, units[unit])
}
