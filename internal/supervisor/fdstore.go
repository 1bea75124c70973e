package supervisor

import (
	"errors"
	"maps"
	"os"
	"slices"

	"wireguard4netns/internal/service"
	"wireguard4netns/internal/tunnel"
)

// A service manager keeps descriptors for a service and gives them to its next
// process (sd_pid_notify_with_fds(3), "FDSTORE=1"): so the link and the namespaces
// live on while a supervisor that was killed is started anew. What is kept holds no
// keys: they are read from the file again.

// store gives the manager what the next supervisor can go on from. Of what it kept
// of another tunnel it lets go: it would keep both, by the same names.
func store(start Start, t *tunnel.Tunnel) error {
	m := start.Service
	if m.Socket == "" {
		return nil
	}
	if taken := start.Kept != nil && start.Kept.TUN == t.TUN; !taken && len(start.Stored) > 0 {
		if err := unstore(m); err != nil {
			return err
		}
	}
	files, err := t.Keep()
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		// Not to be polled: a TUN device would wake the manager for each packet.
		if err := m.Send([]*os.File{files[name]}, "FDSTORE=1", "FDNAME="+name, "FDPOLL=0"); err != nil {
			return err
		}
	}
	return nil
}

// unstore has the manager let go of it: the tunnel is over.
func unstore(m service.Manager) error {
	var errs []error
	for _, name := range tunnel.KeptNames {
		errs = append(errs, m.Tell("FDSTOREREMOVE=1", "FDNAME="+name))
	}
	return errors.Join(errs...)
}

// kept makes of the descriptors that came with a Start what a tunnel can be made of.
func kept(start Start, files []*os.File) (*tunnel.Kept, error) {
	if len(start.Stored) == 0 {
		return nil, nil
	}
	byName := map[string]*os.File{}
	for i, f := range files {
		if i < len(start.Stored) {
			byName[start.Stored[i]] = f
		}
	}
	return tunnel.NewKept(byName)
}
