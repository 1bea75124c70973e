package doctor

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"wireguard4netns/internal/ns"
)

// adviseNamespaces explains why namespaces cannot be made here, by what is known
// to forbid them, most specific first.
func (m *Machine) adviseNamespaces(err error) (a Advice, ok bool) {
	limit, denied := errors.Is(err, ns.ErrUserNSLimit), errors.Is(err, ns.ErrUserNSDenied)
	switch {
	case limit:
		return m.limits(), true
	case m.Setting("kernel/unprivileged_userns_clone") == "0" && denied && !m.Root:
		return allow("kernel.unprivileged_userns_clone", "0", "1"), true
	case m.confined() && (denied || refusal(err)):
		return m.profile(), true
	case denied && m.Status("Seccomp") == "2":
		return Advice{
			Why: "a seccomp filter, as container runtimes set one, forbids them",
			Do:  "start the container with --device /dev/net/tun and --security-opt seccomp=FILE, where FILE is the runtime's own profile that also allows clone, unshare, setns, mount, umount2, move_mount, open_tree and pivot_root",
		}, true
	case denied:
		return Advice{Do: "ask who runs this machine: unshare --user --net --map-root-user true has to work (a chroot, SELinux or another security module may forbid it)"}, true
	}
	return Advice{}, false
}

// limits explains that no more namespaces may be made.
func (m *Machine) limits() Advice {
	for _, kind := range []string{"user", "net", "mnt"} {
		if value := m.Setting("user/max_" + kind + "_namespaces"); value == "0" {
			return allow("user.max_"+kind+"_namespaces", value, "15000")
		}
	}
	return Advice{
		Why: "user.max_user_namespaces, max_net_namespaces or max_mnt_namespaces, here or in the container around this one, is reached",
		Do:  "end what uses them (lsns tells), or as root: sysctl -w user.max_user_namespaces=15000",
	}
}

// allow advises a setting of the kernel, now and after the next start.
func allow(name, is, want string) Advice {
	return Advice{
		Why: name + " is " + is,
		Do:  "as root: echo " + name + "=" + want + " >> /etc/sysctl.d/90-wireguard4netns.conf && sysctl --system",
	}
}

// confined tells that AppArmor takes the rights from user namespaces of programs
// without a profile, as Ubuntu's does. It lets them be made, and refuses what is
// done in them.
func (m *Machine) confined() bool {
	return !m.Root && m.Setting("kernel/apparmor_restrict_unprivileged_userns") == "1"
}

// refusal also knows what comes as text, from the process inside.
func refusal(err error) bool {
	return errors.Is(err, fs.ErrPermission) ||
		strings.Contains(err.Error(), syscall.EACCES.Error()) || strings.Contains(err.Error(), syscall.EPERM.Error())
}

const profilePath = "/etc/apparmor.d/wireguard4netns"

// profile advises an AppArmor profile for this very file, and never to turn the
// restriction off for all.
func (m *Machine) profile() Advice {
	a := Advice{Why: "AppArmor allows user namespaces only to programs that have a profile (kernel.apparmor_restrict_unprivileged_userns is 1)"}
	if strings.Contains(m.Program, "/go-build") && strings.HasPrefix(m.Program, os.TempDir()) {
		a.Do = "install the program first, as in: go build -o ~/bin/ ./cmd/wireguard4netns; a profile goes by its path, and go run has none that lasts"
		return a
	}
	a.Do = "give it one: " + quoteShell(m.Program) + " doctor --apparmor-profile | sudo tee " + profilePath + " && sudo apparmor_parser -r " + profilePath
	a.Text = Profile(m.Program)
	return a
}

// Profile returns the AppArmor profile that lets the program at path make user
// namespaces, and does not confine it otherwise.
func Profile(path string) string {
	return `# ` + profilePath + `
# wireguard4netns makes a user namespace for each tunnel.
abi <abi/4.0>,
include <tunables/global>

profile wireguard4netns ` + quoteAppArmor(path) + ` flags=(unconfined) {
  userns,

  include if exists <local/wireguard4netns>
}
`
}

// quoteAppArmor writes a path such that none of it is a pattern, apparmor.d(5).
func quoteAppArmor(path string) string {
	var b strings.Builder
	for _, r := range path {
		if strings.ContainsRune(`\"*?[]{}^`, r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return `"` + b.String() + `"`
}

func quoteShell(path string) string {
	if strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+") == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
