// Command wireguard4netns gives one program, one container or one job WireGuard
// as its only network, without root.
package main

import (
	"os"
	"runtime"

	"wireguard4netns"
	"wireguard4netns/internal/cli"
)

func init() { runtime.LockOSThread() } // the app's life hangs on this thread

func main() {
	if code, ok := wireguard4netns.Role(os.Args, os.Stderr, cli.Report); ok {
		os.Exit(code)
	}
	os.Exit(cli.Main(cli.Env{
		Args: os.Args, Environ: os.Environ(),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	}))
}
