package dns

import "fmt"

// Kind says what is put in the place of a masked path.
type Kind string

const (
	// OwnFiles: the host's directory, read-only, with files of ours over its own.
	OwnFiles Kind = "own files"
	// AllowList: a new directory that has only what Keep names. What appears in
	// the host's directory later does not appear in it.
	AllowList Kind = "allow list"
	// EmptyDir: an empty read-only directory.
	EmptyDir Kind = "empty directory"
	// EmptyFile: an empty read-only file.
	EmptyFile Kind = "empty file"
)

// A Mask is a path of the host that the app sees otherwise, or not at all.
// A path that the host does not have is not masked.
type Mask struct {
	Path string `json:"path"`
	Kind Kind   `json:"kind"`
	Why  string `json:"why"`
}

// An Exception is a path below an AllowList that stays what it is on the host.
type Exception struct {
	// Pattern is absolute, in the syntax of path.Match.
	Pattern string `json:"pattern"`
	Why     string `json:"why"`
}

// Masks returns what must be masked so that no lookup can go by the host.
func Masks() []Mask {
	const nscd = "glibc asks nscd's socket before nsswitch.conf"
	return []Mask{
		{"/etc", OwnFiles, "own resolv.conf and nsswitch.conf, which no rename on the host replaces"},
		{"/run", AllowList, "sockets of nscd, systemd-resolved, avahi, D-Bus; also those that appear later"},
		{"/var/run", AllowList, "the same, where it is not a link to /run"},
		{"/var/run/nscd", EmptyDir, nscd},
		{"/var/db/nscd", EmptyDir, "nscd's cache, which clients map without asking"},
		{"/var/cache/nscd", EmptyDir, "nscd's cache, which clients map without asking"},
		{"/var/lib/sss/pipes", EmptyDir, "sssd resolves names for its clients"},
	}
}

// Keep returns the exceptions from the allow lists of Masks for the user uid:
// screen, sound, devices and file systems, of which none resolves names.
func Keep(uid int) []Exception {
	user := fmt.Sprintf("/run/user/%d/", uid)
	return []Exception{
		{user + "wayland-*", "screen"},
		{user + ".mutter-Xwaylandauth.*", "X11 cookie"},
		{user + "gdm/Xauthority", "X11 cookie"},
		{user + "xauth_*", "X11 cookie"},
		{user + "pipewire-*", "sound"},
		{user + "pulse", "sound"},
		{"/run/udev/data", "device names"},
		{"/run/media", "removable disks"},
		{"/run/shm", "a link to /dev/shm"},
		{"/run/opengl-driver*", "NixOS"},
		{"/run/current-system", "NixOS"},
		{"/run/booted-system", "NixOS"},
		{"/run/wrappers", "NixOS"},
	}
}
