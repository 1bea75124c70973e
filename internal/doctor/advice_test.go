package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"wireguard4netns/internal/ns"
)

// fake is a machine that nothing is wrong with but what settings say; its kernel
// need not have them.
func fake(settings map[string]string) *Machine {
	return &Machine{
		Program: "/home/u/bin/wireguard4netns", StateRoot: "/run/user/1000/wireguard4netns",
		Setting: func(name string) string { return settings[name] },
		Status:  func(string) string { return "0" },
		Release: func() string { return "6.1.0-40-amd64" },
		Now:     func() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) },
	}
}

var (
	errDenied = fmt.Errorf("create namespaces: %w: %w", ns.ErrUserNSDenied, syscall.EPERM)
	errLimit  = fmt.Errorf("create namespaces: %w: %w", ns.ErrUserNSLimit, syscall.ENOSPC)
	errInside = errors.New("prepare mounts: make mounts slaves of the host's: permission denied") // as it comes from the process inside
)

func TestAdviseNamespaces(t *testing.T) {
	t.Parallel()
	debian := map[string]string{"kernel/unprivileged_userns_clone": "0"}
	ubuntu := map[string]string{"kernel/apparmor_restrict_unprivileged_userns": "1"}
	for _, test := range []struct {
		name     string
		settings map[string]string
		root     bool
		seccomp  string
		err      error
		want     string // in the advice; empty: there is none
	}{
		{"Debian", debian, false, "0", errDenied, "kernel.unprivileged_userns_clone=1"},
		{"Debian, root", debian, true, "0", errDenied, "unshare --user"},
		{"Ubuntu, at clone", ubuntu, false, "0", errDenied, "apparmor_parser -r"},
		{"Ubuntu, inside", ubuntu, false, "0", errInside, "apparmor_parser -r"},
		{"Ubuntu, root", ubuntu, true, "0", errDenied, "unshare --user"},
		{"Ubuntu, something else", ubuntu, false, "0", errors.New("endpoint does not resolve"), ""},
		{"container", nil, false, "2", errDenied, "--security-opt seccomp=FILE"},
		{"unknown", nil, false, "0", errDenied, "unshare --user --net"},
		{"limit", nil, false, "0", errLimit, "lsns"},
		{"limit of mounts", map[string]string{"user/max_mnt_namespaces": "0"}, false, "0", errLimit, "user.max_mnt_namespaces=15000"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := fake(test.settings)
			m.Root = test.root
			m.Status = func(field string) string { return map[string]string{"Seccomp": test.seccomp}[field] }
			m.Create = func(context.Context) (*ns.Set, error) { return nil, test.err }
			f := m.namespaces(t.Context())
			if f.State != Fail || !strings.Contains(f.Do, test.want) || test.want == "" && f.Do != "" {
				t.Errorf("%+v", f)
			}
			if strings.Contains(f.Line(), "restrict_unprivileged_userns=0") || strings.Contains(f.Line(), "\n") {
				t.Errorf("advice %q", f.Advice)
			}
		})
	}
}

func TestProfile(t *testing.T) {
	t.Parallel()
	m := fake(map[string]string{"kernel/apparmor_restrict_unprivileged_userns": "1"})
	a, _ := m.Advise(errDenied)
	const want = `# /etc/apparmor.d/wireguard4netns
# wireguard4netns makes a user namespace for each tunnel.
abi <abi/4.0>,
include <tunables/global>

profile wireguard4netns "/home/u/bin/wireguard4netns" flags=(unconfined) {
  userns,

  include if exists <local/wireguard4netns>
}
`
	if a.Text != want {
		t.Errorf("profile:\n%s", a.Text)
	}
	if got := Profile(`/home/u/a b*{"`); !strings.Contains(got, `"/home/u/a b\*\{\""`) {
		t.Errorf("quoted:\n%s", got)
	}
	m.Program = "/opt/a b/w"
	if a, _ := m.Advise(errDenied); !strings.Contains(a.Do, "'/opt/a b/w' doctor --apparmor-profile | sudo tee") {
		t.Errorf("advice %q", a.Do)
	}
	m.Program = os.TempDir() + "/go-build1/b001/exe/wireguard4netns"
	if a, _ := m.Advise(errDenied); a.Text != "" || !strings.Contains(a.Do, "install the program first") {
		t.Errorf("advice for go run: %+v", a)
	}
}

func TestKernelAndClock(t *testing.T) {
	t.Parallel()
	for release, state := range map[string]State{
		"6.18.44": OK, "5.11.0-rc1": OK, "5.14.0-570.el9.x86_64": OK, "5.10.0-30-amd64": Fail, "4.18.0-553.el8": Fail, "microsoft": Note,
	} {
		m := fake(nil)
		m.Release = func() string { return release }
		if f := m.kernel(t.Context()); f.State != state {
			t.Errorf("%s: %+v", release, f)
		}
	}
	m := fake(nil)
	if f := m.clock(t.Context()); f.State != OK {
		t.Errorf("%+v", f)
	}
	m.Now = func() time.Time { return time.Unix(0, 0) }
	if f := m.clock(t.Context()); f.State != Note || f.Do == "" {
		t.Errorf("%+v", f)
	}
}

// What a tunnel that is tried can show.
func TestTried(t *testing.T) {
	t.Parallel()
	var all []netip.Addr
	for _, p := range tryAddrs() {
		all = append(all, p.Addr())
	}
	said := said("wireguard4netns: a warning\nwireguard4netns: start engine: no\nhint: do this\n", errors.New("exit status 125"))
	for _, test := range []struct {
		name  string
		in    Inside
		err   error
		probe func(*Machine, context.Context) Finding
		state State
		want  string
	}{
		{"as it should", Inside{Sources: all, Overlay: true}, nil, (*Machine).tunnel, OK, ""},
		{"no route", Inside{}, nil, (*Machine).tunnel, Fail, "192.0.2.2"},
		{"other source", Inside{Sources: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}, nil, (*Machine).tunnel, Fail, "10.0.0.1"},
		{"run failed", Inside{}, said, (*Machine).tunnel, Fail, "start engine: no do this"},
		{"run could not start", Inside{}, errors.New("no"), (*Machine).tunnel, Fail, "try a tunnel: no"},
		{"overlay", Inside{Overlay: true}, nil, (*Machine).overlay, OK, ""},
		{"links", Inside{}, nil, (*Machine).overlay, Note, "links"},
		{"sandbox", Inside{}, nil, (*Machine).sandbox, OK, ""},
		{"a layer is missing", Inside{}, said, (*Machine).sandbox, Note, "start engine: no"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := fake(nil)
			m.Try = func(context.Context, ...string) (Inside, error) { return test.in, test.err }
			f := test.probe(m, t.Context())
			if f.State != test.state || !strings.Contains(f.Seen+" "+f.Do, test.want) {
				t.Errorf("%+v", f)
			}
		})
	}
}
