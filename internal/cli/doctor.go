package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"wireguard4netns/internal/doctor"
)

// doctorLook is the role of the program in the tunnel that doctor tries.
const doctorLook = "doctor-look"

func newDoctor(env *Env) *cobra.Command {
	var asJSON, profile bool
	cmd := &cobra.Command{
		Use:   "doctor [flags] [CONF]",
		Short: "Check what this machine, and a file, need for a tunnel",
		Long: `Doctor tries what a tunnel needs of this machine and says of each thing
    ok      it is as it should be
    note    a tunnel works, but not as well as it could
    FAIL    a tunnel does not work
with the cause and the remedy as far as they are known. It changes nothing, sends
nothing but what looking up the names in CONF takes, and needs no subuids.
The exit code is 0 if nothing failed, else 1.

With CONF, a path or a name as of run, it also looks at that file: what is
written in it, who may read it, whether endpoints have an address and a route,
the port, the MTU, and whether DNS can be reached.

--json prints one object instead:
    {"version": 1, "ok": BOOL, "checks": [{"check": NAME, "state": STATE,
     "seen": TEXT, "why": TEXT, "do": TEXT, "text": TEXT}]}
STATE is ok, note or fail; seen is what was found; why, do (what to do, in a line)
and text (a file or so, of which that line speaks) may be missing. NAME is one of
    kernel clock namespaces tun state-directory tun-offload udp-offload
    receive-buffer tunnel overlay sandbox
and, with CONF, file file-rights endpoint listen-port plan mtu, of which some may
come several times or not at all. Names and meanings do not change within a
version; there may be more of both.`,
		Example: `  wireguard4netns doctor
  wireguard4netns doctor --json provider.conf`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) > 1:
				return &usageError{err: fmt.Errorf("doctor: unexpected argument %q", args[1]), hint: "usage: " + cmd.UseLine()}
			case profile:
				_, err := io.WriteString(env.Stdout, doctor.Profile(env.machine().Program))
				return err
			}
			list, err := env.examine(cmd.Context(), args)
			if err != nil {
				return err
			}
			return env.printFindings(list, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&profile, "apparmor-profile", false, "print an AppArmor profile for this program where it is now, and do nothing else")
	return cmd
}

// examine looks at the machine and at the file, if one is named.
func (env *Env) examine(ctx context.Context, files []string) ([]doctor.Finding, error) {
	if err := closeOnExec(); err != nil {
		return nil, err
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	m := env.machine()
	list := m.Check(ctx)
	for _, name := range files {
		path, err := env.find(name)
		if err != nil {
			list = append(list, doctor.Finding{Check: "file", State: doctor.Fail, Seen: err.Error(), Advice: doctor.Advice{Do: hint(err)}})
			continue
		}
		list = append(list, m.CheckFile(ctx, path)...)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return list, nil
}

func (env *Env) printFindings(list []doctor.Finding, asJSON bool) error {
	well := doctor.Well(list)
	if asJSON {
		out := json.NewEncoder(env.Stdout)
		out.SetEscapeHTML(false)
		out.SetIndent("", "  ")
		err := out.Encode(struct {
			Version int              `json:"version"`
			OK      bool             `json:"ok"`
			Checks  []doctor.Finding `json:"checks"`
		}{1, well, list})
		if err != nil {
			return err
		}
	} else if err := writeFindings(env.Stdout, list); err != nil {
		return err
	}
	if !well {
		return exitNotTrue
	}
	return nil
}

// writeFindings prints findings for people.
func writeFindings(w io.Writer, list []doctor.Finding) error {
	words := map[doctor.State]string{doctor.OK: "ok", doctor.Note: "note", doctor.Fail: "FAIL"}
	var b strings.Builder
	for _, f := range list {
		fmt.Fprintf(&b, "%-5s %-16s %s\n", words[f.State], f.Check, f.Seen)
		for _, line := range []string{f.Why, f.Do} {
			if line != "" {
				fmt.Fprintf(&b, "%22s %s\n", "", line)
			}
		}
		for line := range strings.Lines(f.Text) {
			fmt.Fprintf(&b, "%26s %s", "", line)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// machine is the one we are on.
func (env *Env) machine() *doctor.Machine {
	program, err := os.Executable()
	if err != nil {
		program = env.Args[0]
	}
	return doctor.This(program, env.stateRoot(), env.Environ, []string{doctorLook})
}

func newDoctorRole(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: doctorLook, Hidden: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			seen, err := doctor.Look()
			return errors.Join(err, json.NewEncoder(env.Stdout).Encode(seen))
		},
	}
}
