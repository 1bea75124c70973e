package wireguard4netns

import (
	"wireguard4netns/conf"
	"wireguard4netns/internal/state"
	"wireguard4netns/internal/supervisor"
)

// Status is how a tunnel is.
type Status = supervisor.Status

// List returns the names of the tunnels that stand below root.
func List(root string) ([]string, error) { return state.List(root) }

// Open reaches a tunnel that stands, by its name. What it returns can Exec, tell
// its Status, and end it: Down.
func Open(root, name string) (*Tunnel, error) {
	s, err := supervisor.Dial(root, name)
	if err != nil {
		return nil, err
	}
	return &Tunnel{Name: name, s: s, root: root, say: func(string) {}}, nil
}

// Join gets what Exec and StartApp need of a tunnel that was reached by Open.
func (t *Tunnel) Join() error {
	if err := t.s.Join(); err != nil {
		return err
	}
	t.IfName, t.Dir, t.UAPIPath, t.Pid = t.s.IfName, t.s.Dir, t.s.UAPIPath, t.s.Pid
	return nil
}

// Hold returns the number of a process, without keys and capabilities, by whose
// entries in /proc/PID/ns other programs of the user can join a tunnel that was
// reached by Open. It lives as long as the supervisor.
func (t *Tunnel) Hold() (pid int, err error) { return t.s.Hold() }

// Status asks a tunnel that was reached by Open how it is.
func (t *Tunnel) Status() (*Status, error) { return t.s.Status() }

// Statuses asks the tunnels called names, all at the same time. What it returns of
// each is at its place in names: a Status or an error.
func Statuses(root string, names []string) ([]*Status, []error) {
	return supervisor.Statuses(root, names)
}

// Reload makes a tunnel that was reached by Open what c says, which messages call
// name. Only what differs is touched; what cannot change while the tunnel runs is
// told to say.
func (t *Tunnel) Reload(c *conf.Config, name string, say func(line string)) error {
	text, err := c.Marshal()
	if err != nil {
		return err
	}
	return t.s.Reload(supervisor.Reload{Conf: text, Name: name}, say)
}

// Replace makes this very program take over a tunnel that was reached by Open, in
// the same process. Programs in it and their connections live on, and it keeps the
// Options that it was started with: if one of the settings was not among theirs, there
// is an error and nothing changes.
func (t *Tunnel) Replace(settings map[string]string, say func(line string)) error {
	return t.s.Replace(settings, say)
}

// Down ends a tunnel that was reached by Open and returns when it is undone.
// Programs in it have no network from then on. say gets a line for each thing the
// user should know.
func (t *Tunnel) Down(say func(line string)) error { return t.s.Down(say) }
