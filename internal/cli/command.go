package cli

import "github.com/spf13/cobra"

// Command returns the command line as documents are made of it.
func Command() *cobra.Command { return newRoot(new(Env)) }
