// Command man writes the manual pages into the directory of its argument, from
// the same source as --help.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra/doc"

	"wireguard4netns/internal/cli"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: man DIR")
		os.Exit(2)
	}
	root := cli.Command()
	root.DisableAutoGenTag = true
	root.InitDefaultHelpCmd()
	for _, c := range root.Commands() {
		if c.Name() == "help" {
			root.RemoveCommand(c)
		}
	}
	day := time.Date(2026, time.November, 22, 0, 0, 0, 0, time.UTC)
	header := doc.GenManHeader{Section: "1", Source: "wireguard4netns", Manual: "User Commands", Date: &day}
	if err := doc.GenManTree(root, &header, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
