package sys

import "syscall"

// RestoreNofile puts back the soft limit of open files that the process was
// started with, so that a child of a bare fork inherits it. The Go runtime
// raises the limit at start and lowers it again only in its own exec, and does
// not tell the value; an exec that cannot succeed (ENOENT: no path) is the one
// way to have it lowered and to go on.
func RestoreNofile() {
	_ = syscall.Exec("", nil, nil)
}
