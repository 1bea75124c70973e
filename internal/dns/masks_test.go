package dns

import (
	"path"
	"path/filepath"
	"testing"
)

// Nothing that is kept may be, or hold, a socket on which names are resolved.
func TestKeepHoldsNoResolver(t *testing.T) {
	for _, exception := range Keep(1001) {
		for _, socket := range []string{
			"/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve", "/run/avahi-daemon/socket", "/run/dbus/system_bus_socket",
			"/run/user/1001/bus", "/run/user/1001/systemd/private", "/run/user/1001/gnupg/S.dirmngr", "/run/user/1001/podman/podman.sock",
			"/run/docker.sock", "/run/systemd/private",
		} {
			for parent := socket; parent != "/"; parent = filepath.Dir(parent) {
				matched, err := path.Match(exception.Pattern, parent)
				if err != nil {
					t.Fatal(err)
				}
				if matched {
					t.Errorf("%s keeps %s", exception.Pattern, socket)
				}
			}
		}
	}
}

func TestMasksAreWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, mask := range Masks() {
		if !path.IsAbs(mask.Path) || path.Clean(mask.Path) != mask.Path || mask.Kind == "" || mask.Why == "" || seen[mask.Path] {
			t.Errorf("mask %+v", mask)
		}
		seen[mask.Path] = true
	}
}
