package cli

import (
	"slices"
	"testing"

	"github.com/spf13/pflag"

	"wireguard4netns"
)

// Each flag of up is one that a tunnel keeps, so that up --replace compares it, or is
// of the moment.
func TestUpComparesItsFlags(t *testing.T) {
	t.Parallel()
	kept := new(runFlags).settings(wireguard4netns.Options{})
	moment := []string{"name", "wait", "dry-run", "replace"}
	newUp(new(Env)).Flags().VisitAll(func(f *pflag.Flag) {
		if _, ok := kept["--"+f.Name]; ok == slices.Contains(moment, f.Name) {
			t.Errorf("--%s is compared: %v", f.Name, ok)
		}
		delete(kept, "--"+f.Name)
	})
	for flag := range kept {
		t.Errorf("up has no %s", flag)
	}
}
