// Package inside makes the mounts that an app in a tunnel sees, from within:
// it is the role of a process which the supervisor starts in new user, network
// and mount namespaces, and which exits as soon as the supervisor holds them.
package inside

// Argv0 is the name of the role: what cmd looks at to call Main.
const Argv0 = "wireguard4netns-inside"

// ConnFD is the file descriptor on which the process finds its socket.
const ConnFD = 3

// A Config is what Prepare is to do. All of it was decided outside; a path of
// it that the host does not have is passed over. It holds no keys.
type Config struct {
	// UID is the user's id, by which /run/user/UID is named.
	UID int `json:"uid"`

	// Etc are files of our own in /etc, name → content, in the place of the
	// host's. Nil leaves /etc as it is.
	Etc map[string][]byte `json:"etc,omitempty"`

	// Run are directories whose content is hidden but for Keep and Expose:
	// /run, and /var/run where it is not a link to it. Nil leaves them as
	// they are.
	Run []string `json:"run,omitempty"`
	// Keep are absolute patterns (path.Match) of what stays visible below Run.
	Keep []string `json:"keep,omitempty"`
	// Expose are absolute paths that the user wants to stay visible: they are
	// bound back below Run, and taken out of HideDirs and HideFiles.
	Expose []string `json:"expose,omitempty"`

	// HideDirs become empty directories and HideFiles empty files, read-only.
	// A hidden file shows again once the host renames another to its place, or
	// makes it anew (an editor may): only a hidden directory is safe from that.
	HideDirs  []string `json:"hideDirs,omitempty"`
	HideFiles []string `json:"hideFiles,omitempty"`
}
