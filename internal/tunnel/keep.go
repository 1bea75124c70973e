package tunnel

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/link"
	"wireguard4netns/internal/ns"
	"wireguard4netns/internal/ns/inside"
	"wireguard4netns/internal/plan"
	"wireguard4netns/internal/sys"
)

// ErrNotKept: what was kept of a tunnel is not that of the one to be made.
var ErrNotKept = errors.New("it was kept of another tunnel")

// Kept is what of a tunnel lives on without its supervisor, as long as somebody
// holds the descriptors: the namespaces and the link, and with them the programs
// inside and their connections. It holds no keys.
type Kept struct {
	NS      *ns.Set
	TUN     *os.File
	Netlink *os.File // of the namespace inside

	// Lock is that of the tunnel's directory, if that is taken over as well.
	Lock *os.File

	state *os.File
	link  link.Config // as it is, but for the MTU
	began time.Time
}

// The names under which a service manager keeps the descriptors.
const (
	keptTUN     = "tun"
	keptNetlink = "netlink"
	keptUser    = "userns"
	keptNet     = "netns"
	keptMount   = "mntns"
	keptEtc     = "etc" // not there with the host's DNS
	keptState   = "state"
)

// KeptNames are all of them.
var KeptNames = []string{keptTUN, keptNetlink, keptUser, keptNet, keptMount, keptEtc, keptState}

// keptFacts is what is in the file called state.
type keptFacts struct {
	Link  link.Config
	Began time.Time
}

// Keep returns the descriptors to be kept by name; those of the tunnel stay the
// tunnel's. It is for a tunnel with namespaces of its own. The file with its state
// is brought up to date by each later Reload.
func (t *Tunnel) Keep() (map[string]*os.File, error) {
	t.changing.Lock()
	defer t.changing.Unlock()
	if t.state == nil {
		fd, err := unix.MemfdCreate(keptState, unix.MFD_CLOEXEC)
		if err != nil {
			return nil, os.NewSyscallError("memfd_create", err)
		}
		t.state = os.NewFile(uintptr(fd), keptState)
	}
	if err := t.writeState(); err != nil {
		return nil, err
	}
	files := map[string]*os.File{
		keptTUN: t.TUN, keptNetlink: t.netlink, keptState: t.state,
		keptUser: t.NS.User, keptNet: t.NS.Net, keptMount: t.NS.Mount,
	}
	if t.NS.Etc != nil {
		files[keptEtc] = t.NS.Etc
	}
	return files, nil
}

// closeState lets go of the file with the state.
func (t *Tunnel) closeState() error {
	t.changing.Lock()
	defer t.changing.Unlock()
	if t.state == nil {
		return nil
	}
	return t.state.Close()
}

func (t *Tunnel) rewriteState() error {
	t.changing.Lock()
	defer t.changing.Unlock()
	return t.writeState()
}

// writeState writes what the next supervisor has to know, if there may be one.
func (t *Tunnel) writeState() error {
	if t.state == nil {
		return nil
	}
	facts := keptFacts{Link: t.Plan().Link, Began: t.Began}
	facts.Link.MTU = 0 // it follows the host's routes
	text, err := json.Marshal(facts)
	if err != nil {
		return err
	}
	// One write: it is read only when this process is gone.
	if err := t.state.Truncate(0); err != nil {
		return err
	}
	_, err = t.state.WriteAt(text, 0)
	return err
}

// NewKept makes a Kept of what Keep returned to another process. It owns the files,
// also when it fails.
func NewKept(files map[string]*os.File) (_ *Kept, err error) {
	defer func() {
		if err != nil {
			for _, f := range files {
				f.Close()
			}
		}
	}()
	for _, name := range KeptNames {
		if files[name] == nil && name != keptEtc {
			return nil, fmt.Errorf("take over a tunnel: descriptor %s is missing of %q", name, slices.Sorted(maps.Keys(files)))
		}
	}
	if err := checkKinds(files); err != nil {
		return nil, fmt.Errorf("take over a tunnel: %w", err)
	}
	state := files[keptState]
	text, err := io.ReadAll(io.NewSectionReader(state, 0, maxState))
	if err != nil {
		return nil, fmt.Errorf("take over a tunnel: %w", err)
	}
	var facts keptFacts
	if err := json.Unmarshal(text, &facts); err != nil {
		return nil, fmt.Errorf("take over a tunnel: read its state: %w", err)
	}
	if name, err := sys.TUNName(int(files[keptTUN].Fd())); err != nil || name != facts.Link.Name {
		return nil, fmt.Errorf("take over a tunnel: link %s is gone", facts.Link.Name) // somebody deleted it
	}
	return &Kept{
		NS:  &ns.Set{User: files[keptUser], Net: files[keptNet], Mount: files[keptMount], Etc: files[keptEtc]},
		TUN: files[keptTUN], Netlink: files[keptNetlink],
		state: state, link: facts.Link, began: facts.Began,
	}, nil
}

// checkKinds tells whether descriptors are what their names say: they may be from
// anybody.
func checkKinds(files map[string]*os.File) error {
	for name, want := range map[string]int{keptUser: unix.CLONE_NEWUSER, keptNet: unix.CLONE_NEWNET, keptMount: unix.CLONE_NEWNS} {
		if kind, err := sys.NSType(int(files[name].Fd())); err != nil || kind != want {
			return fmt.Errorf("descriptor %s: not one of such a namespace", name)
		}
	}
	if family, err := unix.GetsockoptInt(int(files[keptNetlink].Fd()), unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || family != unix.AF_NETLINK {
		return fmt.Errorf("descriptor %s: not a netlink socket", keptNetlink)
	}
	if etc := files[keptEtc]; etc != nil {
		if info, err := etc.Stat(); err != nil || !info.IsDir() {
			return fmt.Errorf("descriptor %s: not a directory", keptEtc)
		}
	}
	return nil
}

// maxState bounds a file that some other process could have made, in bytes.
const maxState = 1 << 20

// fits tells why k cannot become the tunnel of p.
func (k *Kept) fits(p *plan.Plan) error {
	switch {
	case k.link.Name != p.Link.Name:
		return fmt.Errorf("link %s: %w", k.link.Name, ErrNotKept)
	case (k.NS.Etc != nil) != (p.Inside != nil && p.Inside.Etc != nil):
		return fmt.Errorf("--dns=host: %w", ErrNotKept)
	}
	return nil
}

// fitting returns what of kept can become the tunnel of p. A directory that is
// taken over is of that very tunnel; what a service manager kept may be older than
// its unit's file, and is let go then.
func fitting(kept *Kept, p *plan.Plan, say func(string)) (*Kept, error) {
	if kept == nil {
		return nil, nil
	}
	err := kept.fits(p)
	if err == nil || kept.Lock != nil {
		return kept, err
	}
	say("not taken over: " + err.Error())
	return nil, kept.Close()
}

// take makes the link and the files inside what p says.
func (t *Tunnel) take(k *Kept, p *plan.Plan) error {
	if err := t.links.Change(k.link, p.Link); err != nil {
		return err
	}
	if k.NS.Etc == nil {
		return nil
	}
	return inside.Rewrite(k.NS.Etc, p.Inside.Etc)
}

// Close lets go of what was kept.
func (k *Kept) Close() error {
	return errors.Join(k.NS.Close(), k.TUN.Close(), k.Netlink.Close(), k.state.Close())
}
