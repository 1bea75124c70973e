package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"wireguard4netns"
)

// serviceFlags are of what looks after a tunnel from outside.
type serviceFlags struct {
	metrics string
	outside wireguard4netns.Outside
}

func (f *serviceFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.metrics, "metrics", "", "serve metrics for Prometheus at `ADDRESS`: unix:PATH, 127.0.0.1:PORT or [::1]:PORT")
	flags.StringVar(&f.outside.Up, "on-up", "", "run `CMD` on the host when the tunnel is ready")
	flags.StringVar(&f.outside.Down, "on-down", "", "run `CMD` on the host before the tunnel is undone")
	flags.StringVar(&f.outside.Handshake, "on-handshake", "", "run `CMD` on the host at a peer's first handshake, and its first after three minutes without")
}

// setService says in o what the flags do.
func (env *Env) setService(f serviceFlags, o *wireguard4netns.Options) error {
	if f.metrics != "" {
		at, err := wireguard4netns.ParseMetricsAddress(f.metrics)
		if err != nil {
			return &usageError{
				err:  fmt.Errorf("--metrics %s: %w", f.metrics, err),
				hint: "such as unix:/run/user/1000/wg0.metrics or 127.0.0.1:9586; all who reach the address may read it",
			}
		}
		o.Metrics = at
	}
	if o.Outside = f.outside; o.Outside.IsZero() {
		return nil
	}
	var err error
	if o.Outside.Dir, err = os.Getwd(); err != nil {
		o.Outside.Dir = "/"
	}
	o.Outside.Env = slices.DeleteFunc(slices.Clone(env.Environ), ofManager)
	return nil
}

// ofManager tells whether a variable is between a service manager and the process
// that it started: a command outside is none of them.
func ofManager(kv string) bool {
	for _, name := range []string{"NOTIFY_SOCKET=", "WATCHDOG_", "LISTEN_", "MAINPID=", "INVOCATION_ID=", "JOURNAL_STREAM="} {
		if strings.HasPrefix(kv, name) {
			return true
		}
	}
	return false
}
