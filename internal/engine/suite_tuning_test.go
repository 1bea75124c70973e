package engine

import (
	"strings"
	"time"

	"wireguard4netns/internal/engine/native"
)

// The process of an engine is this test binary, and is tuned as the name of its link
// says.

// manyThreads has each packet go through the hands of several threads, all at work,
// however many processors there are.
const manyThreads = Native + "+threads"

// tunings are by name.
var tunings = map[string]func(o *native.Options){
	"threads": func(o *native.Options) { o.Threads = 4 },
	// A second, and as long as it takes on a slow machine.
	"time": limited(func(l *native.Limits) {
		l.RekeyAfterTime, l.RejectAfterTime, l.RekeyTimeout = time.Second, 15*time.Second, 500*time.Millisecond
	}),
	// Who only receives begins the next session after two seconds.
	"last call": limited(func(l *native.Limits) {
		l.RekeyAfterTime, l.RejectAfterTime = time.Second, 12*time.Second
		l.KeepaliveTimeout, l.RekeyTimeout = 9500*time.Millisecond, 500*time.Millisecond
	}),
	"messages": limited(func(l *native.Limits) { l.RekeyAfterMessages, l.RekeyTimeout = 300, 500*time.Millisecond }),
	"few": limited(func(l *native.Limits) {
		l.RekeyAfterMessages, l.RejectAfterMessages, l.RekeyTimeout = fewMessages/2, fewMessages, 500*time.Millisecond
	}),
}

// limited changes the protocol's limits.
func limited(change func(*native.Limits)) func(*native.Options) {
	return func(o *native.Options) {
		l := native.Protocol()
		change(&l)
		o.Limits = &l
	}
}

// tuningOf returns the tuning for an engine process with these arguments.
func tuningOf(args []string) func(*native.Options) {
	if o, err := parseOptions(args); err == nil {
		_, name, _ := strings.Cut(o.ifName, "+")
		if tune := tunings[name]; tune != nil {
			return tune
		}
	}
	return func(*native.Options) {}
}
