package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"wireguard4netns"
	"wireguard4netns/internal/monitor"
	"wireguard4netns/internal/supervisor"
)

// answerTime bounds how long a sample waits for supervisors. One that is late is
// shown as such; its answer counts for the next sample.
const answerTime = 500 * time.Millisecond

// maxCommands bounds how many processes of a tunnel are looked up.
const maxCommands = 500

// sampler asks tunnels how they are, each over a connection that stays open.
type sampler struct {
	root  string
	lines map[string]*line
	serve sync.WaitGroup
}

func newSampler(root string) *sampler { return &sampler{root: root, lines: map[string]*line{}} }

// close ends all connections.
func (s *sampler) close() {
	s.keep(nil)
	s.serve.Wait()
}

// keep ends the connections to all but the named tunnels.
func (s *sampler) keep(names []string) {
	for name, l := range s.lines {
		if !slices.Contains(names, name) {
			l.close()
			delete(s.lines, name)
		}
	}
}

// sample asks some of the tunnels that stand.
func (s *sampler) sample(ctx context.Context, names, asked []string) monitor.Sample {
	s.keep(asked)
	for _, name := range asked {
		l := s.lines[name]
		if l == nil {
			l = &line{root: s.root, name: name, questions: make(chan struct{}, 1), answers: make(chan answer, 1)}
			s.lines[name] = l
			s.serve.Go(l.serve)
		}
		l.question()
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	var tunnels []monitor.Tunnel
	for _, name := range asked {
		if t := s.lines[name].await(ctx); t.Status != nil {
			tunnels = append(tunnels, t)
		}
	}
	return monitor.Sample{At: time.Now(), Names: names, Tunnels: tunnels}
}

// line is the connection to one supervisor, and its last answer.
type line struct {
	root, name string
	questions  chan struct{}
	answers    chan answer
	since      time.Time // of a question without an answer; zero: none
	last       monitor.Tunnel

	mu     sync.Mutex
	tunnel *wireguard4netns.Tunnel // nil: not reached
	closed bool
}

type answer struct {
	monitor.Tunnel
	err error
}

func (l *line) question() {
	if l.since.IsZero() {
		l.since = time.Now()
		l.questions <- struct{}{}
	}
}

// await returns what the tunnel answered, or that it did not; without a status if
// it does not stand any more.
func (l *line) await(ctx context.Context) monitor.Tunnel {
	select {
	case a := <-l.answers:
		return l.take(a)
	default:
	}
	select {
	case a := <-l.answers:
		return l.take(a)
	case <-ctx.Done():
		return l.silent(fmt.Sprintf("the supervisor has not answered for %v", time.Since(l.since).Round(time.Second)))
	}
}

func (l *line) take(a answer) monitor.Tunnel {
	l.since = time.Time{}
	switch {
	case errors.Is(a.err, supervisor.ErrNoTunnel):
		return monitor.Tunnel{}
	case a.err != nil:
		return l.silent(a.err.Error())
	}
	l.last = a.Tunnel
	return l.last
}

// silent is the last answer, with why there is no other.
func (l *line) silent(cause string) monitor.Tunnel {
	s := wireguard4netns.Status{Name: l.name}
	if l.last.Status != nil {
		s = *l.last.Status
	}
	s.State, s.Cause = "no-answer", cause
	return monitor.Tunnel{Status: &s, At: l.last.At, Commands: l.last.Commands}
}

func (l *line) serve() {
	defer l.drop()
	for range l.questions {
		s, err := l.status()
		a := answer{err: err}
		if err == nil {
			a.Tunnel = monitor.Tunnel{Status: s, At: time.Now(), Commands: commandsOf(s.Processes)}
		}
		l.answers <- a
	}
}

// status asks; a second time over a new connection, for the supervisor may have
// become another program.
func (l *line) status() (*wireguard4netns.Status, error) {
	for again := false; ; again = true {
		t, fresh, err := l.reach()
		if err != nil {
			return nil, err
		}
		s, err := t.Status()
		if err == nil || fresh || again {
			return s, err
		}
		l.drop()
	}
}

func (l *line) reach() (t *wireguard4netns.Tunnel, fresh bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, false, os.ErrClosed
	}
	if l.tunnel == nil {
		fresh = true
		l.tunnel, err = wireguard4netns.Open(l.root, l.name)
	}
	return l.tunnel, fresh, err
}

// drop lets go of the connection, which also ends a question on it.
func (l *line) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tunnel != nil {
		l.tunnel.Detach()
		l.tunnel = nil
	}
}

func (l *line) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.drop()
	close(l.questions)
}

// commandsOf returns the names of processes, as ps(1) without arguments does.
func commandsOf(pids []int) map[int]string {
	names := make(map[int]string, len(pids))
	for _, pid := range pids[:min(len(pids), maxCommands)] {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err == nil {
			names[pid] = strings.TrimSuffix(string(comm), "\n")
		}
	}
	return names
}

// watcher takes samples beside the loop that draws, which a slow tunnel must not
// hold up.
type watcher struct {
	samples chan timed
	root    string
	chosen  atomic.Pointer[string]
	end     context.CancelFunc
	done    sync.WaitGroup
}

type timed struct {
	monitor.Sample
	err error
}

func newWatcher(ctx context.Context, s *sampler, interval time.Duration) *watcher {
	ctx, end := context.WithCancel(ctx)
	w := &watcher{samples: make(chan timed), root: s.root, end: end}
	w.done.Go(func() { w.run(ctx, s, interval) })
	return w
}

// show tells which tunnel is asked in any case.
func (w *watcher) show(name string) { w.chosen.Store(&name) }

func (w *watcher) run(ctx context.Context, s *sampler, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		var next timed
		var names []string
		if names, next.err = wireguard4netns.List(s.root); next.err == nil {
			next.Sample = s.sample(ctx, names, w.asked(names))
		}
		select {
		case w.samples <- next:
		case <-ctx.Done():
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (w *watcher) asked(names []string) []string {
	if len(names) <= maxAsked {
		return names
	}
	chosen := names[0]
	if p := w.chosen.Load(); p != nil && *p != "" {
		chosen = *p
	}
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n != chosen })
}

func (w *watcher) close() {
	w.end()
	w.done.Wait()
}
