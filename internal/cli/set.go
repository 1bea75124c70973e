package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"wireguard4netns/conf"
	"wireguard4netns/internal/host"
	"wireguard4netns/internal/plan"
	"wireguard4netns/internal/uapi"
	"wireguard4netns/internal/wg"
)

// leftAsIs ends the help of all that speaks wg(8)'s language.
const leftAsIs = `
Addresses, routes and DNS inside stay as they are. The tunnel's file changes when the
tunnel ends, if it has SaveConfig = true.`

func newSet(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set NAME [listen-port PORT] [private-key FILE] [peer KEY [remove] [preshared-key FILE] [endpoint HOST:PORT] [persistent-keepalive SECONDS|off] [allowed-ips IP/LEN,…]]…",
		Short: "Change a tunnel's port, keys and peers, as wg set does",
		Long: `Set changes a running tunnel as wg(8) set does. A peer that is not there is
added. FILE holds a key in base64; an empty one removes the key. The packets of
other peers are not disturbed.` + leftAsIs,
		Example: `  wireguard4netns set home listen-port 51820
  wireguard4netns set home peer xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg= allowed-ips 10.1.0.0/16 persistent-keepalive 25
  wireguard4netns set home peer xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg= remove`,
		DisableFlagsInUseLine: true,
		Args:                  usage("NAME", "WORD", "…"),
		ValidArgsFunction:     env.completeTunnels,
		RunE: func(cmd *cobra.Command, args []string) error {
			u, err := wg.ParseSet(args[1:], wg.Outside{
				ReadFile: readKeyFile,
				Resolve:  func(e conf.Endpoint) (netip.AddrPort, error) { return resolve(cmd.Context(), e) },
			})
			if err != nil {
				err = fmt.Errorf("set %s: %w", args[0], err)
				if hint(err) == "" {
					err = &usageError{err: err, hint: "see " + cmd.CommandPath() + " --help, and wg(8)"}
				}
				return err
			}
			return env.withEngine(args[0], func(c *uapi.Conn) error { return c.Set(cmd.Context(), u.Body()) })
		},
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

var errKeyNotFile = errors.New("that is a key, not a file with one: all users see arguments")

// readKeyFile reads no more than a key could be: FILE may be a device.
func readKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		if _, bad := conf.ParsePrivateKey(path); bad == nil {
			return nil, errKeyNotFile
		}
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 1<<10))
}

// resolve returns an address of an endpoint, one with a route if there is one.
func resolve(ctx context.Context, e conf.Endpoint) (netip.AddrPort, error) {
	found, err := host.Resolve(ctx, e)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if i := slices.IndexFunc(found, func(r plan.Route) bool { return r.MTU != 0 }); i > 0 {
		return found[i].Addr, nil
	}
	return found[0].Addr, nil
}

// newConfs are the commands that take a file for wg(8).
func newConfs(env *Env) []*cobra.Command {
	command := func(name, short, long string, change func(have uapi.Device, want uapi.Update) uapi.Update) *cobra.Command {
		return &cobra.Command{
			Use:   name + " NAME FILE",
			Short: short,
			Long: long + `
FILE is as wg(8) has it; "-" is standard input. What only wg-quick(8) knows is
left out and said. Without PrivateKey the tunnel's own stays.` + leftAsIs,
			Example: "  wireguard4netns showconf home | wireguard4netns " + name + " home -",
			Args:    usage("NAME", "FILE"),
			ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
				if len(args) > 0 {
					return nil, cobra.ShellCompDirectiveDefault
				}
				return env.completeTunnels(cmd, args, typed)
			},
			RunE: func(cmd *cobra.Command, args []string) error {
				return env.withEngine(args[0], func(c *uapi.Conn) error { return env.setFile(cmd.Context(), c, args[1], change) })
			},
		}
	}
	return []*cobra.Command{
		command("setconf", "Give a tunnel the keys and peers of a file, as wg setconf does", `Setconf replaces a tunnel's port and peers by those of FILE. Each peer's session
begins anew.`,
			func(_ uapi.Device, want uapi.Update) uapi.Update { return want }),
		command("addconf", "Add the peers of a file to a tunnel, as wg addconf does", `Addconf adds what is in FILE to what the tunnel has.`,
			func(have uapi.Device, want uapi.Update) uapi.Update {
				if want.ReplacePeers = false; *want.ListenPort == 0 {
					want.ListenPort = nil
				}
				return want
			}),
		command("syncconf", "Make a tunnel as a file says, without disturbing it", `Syncconf gives a tunnel the keys and peers of FILE and, as wg(8) syncconf does,
changes only what differs: sessions of peers that stay go on. Other than there,
the port stays if FILE names none.`,
			wg.Sync),
	}
}

// setFile changes an engine after a file.
func (env *Env) setFile(ctx context.Context, c *uapi.Conn, path string, change func(uapi.Device, uapi.Update) uapi.Update) error {
	have, err := deviceOf(ctx, c)
	if err != nil {
		return err
	}
	text, err := env.readFile(path)
	if err != nil {
		return err
	}
	config, warnings, err := wg.ParseFile(text, path, have.PrivateKey)
	if err != nil {
		return err
	}
	say := env.sayTo()
	for _, w := range warnings {
		say(w.String())
	}
	if i := config.Interface; len(i.Addresses)+len(i.DNS)+len(i.Search)+len(i.PreUp)+len(i.PostUp)+len(i.PreDown)+len(i.PostDown)+i.MTU != 0 {
		say(path + ": Address, DNS, MTU and hooks are left as they are")
	}
	if config.Interface.FwMark != 0 {
		say(path + ": FwMark is left out: " + wg.ErrFwMark.Error())
	}
	facts, err := host.Look(ctx, config)
	if err != nil {
		return err
	}
	p, err := plan.New(config, plan.Options{Attach: true}, facts)
	if err != nil {
		return err
	}
	keepEndpoints(p, have)
	return c.Set(ctx, change(have, p.Device).Body())
}

// keepEndpoints leaves a peer where it is if that is one of its addresses.
func keepEndpoints(p *plan.Plan, have uapi.Device) {
	for i, peer := range p.Peers {
		for _, h := range have.Peers {
			if h.PublicKey == uapi.PublicKey(peer.PublicKey) && slices.ContainsFunc(peer.Candidates, func(r plan.Route) bool { return r.Addr == h.Endpoint }) {
				p.Device.Peers[i].Endpoint = h.Endpoint
			}
		}
	}
}

// maxFile is what conf reads, and a byte more.
const maxFile = 1<<20 + 1

func (env *Env) readFile(path string) ([]byte, error) {
	f := env.Stdin
	if path != "-" {
		var err error
		if f, err = os.Open(path); err != nil {
			return nil, err
		}
		defer f.Close()
	}
	var b bytes.Buffer
	_, err := io.Copy(&b, io.LimitReader(f, maxFile))
	return b.Bytes(), err
}

// withEngine calls do with a connection to a tunnel's engine.
func (env *Env) withEngine(name string, do func(*uapi.Conn) error) error {
	c, err := env.engine(name)
	if err != nil {
		return err
	}
	return errors.Join(do(c), c.Close())
}
