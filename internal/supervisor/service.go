package supervisor

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"wireguard4netns/internal/metrics"
	"wireguard4netns/internal/service"
	"wireguard4netns/internal/tunnel"
	"wireguard4netns/internal/uapi"
)

const (
	// comeback is how long a peer was silent when its next handshake is told to
	// --on-handshake: longer than a session lives (whitepaper, 6.1:
	// Reject-After-Time).
	comeback = staleHandshake

	// How often the engine is asked for handshakes if there is --on-handshake: at
	// first the tunnel is about to have one.
	eagerTime, eagerPoll, restPoll = 30 * time.Second, time.Second, 10 * time.Second

	// maxEvents bounds the handshakes that wait for the command to end.
	maxEvents = 64
)

// attendant tells those outside who look after a tunnel how it is. News of the
// engine are in its answers to whoever asked, so that telling them wakes nobody:
//
//	engine's news ──┬──▶ STATUS=       service manager
//	                └──▶ handshakes ─┐
//	begin ───────────────▶ up ───────┼──▶ commands outside, one at a time
//	end ─────────────────▶ down ─────┘
//	half of WATCHDOG_USEC ──▶ engine asked ──▶ WATCHDOG=1
//	GET /metrics ──▶ engine asked
type attendant struct {
	t       *tunnel.Tunnel
	manager service.Manager
	outside tunnel.Outside
	server  *metrics.Server // nil: none

	// takenOver: of a supervisor before, whose work it goes on with.
	takenOver bool

	events  chan tunnel.Event
	begun   bool
	working sync.WaitGroup
	told    string      // what of the last STATUS was new
	deaf    atomic.Bool // the manager did not get the last that it was told

	// handshakes are the last that were seen. Those of other peers were before
	// known.
	handshakes map[uapi.PublicKey]time.Time
	known      time.Time
}

// attend makes what others can connect to. It is closed by end, also after an error.
func attend(t *tunnel.Tunnel, start Start) (*attendant, error) {
	a := &attendant{
		t: t, manager: start.Service, outside: start.Outside, takenOver: start.Kept != nil,
		events: make(chan tunnel.Event, maxEvents), handshakes: map[uapi.PublicKey]time.Time{},
	}
	if start.Metrics.IsZero() {
		return a, nil
	}
	var err error
	a.server, err = metrics.Serve(start.Metrics, a.look)
	return a, err
}

// begin begins the work for a tunnel that is ready.
func (a *attendant) begin(ctx context.Context) {
	a.begun = true
	if a.takenOver {
		a.known = time.Now()
	}
	if a.manager.Socket != "" || a.outside.Handshake != "" {
		a.working.Go(func() { a.watch(ctx) })
	}
	if a.outside.Handshake != "" {
		a.working.Go(func() { a.poll(ctx) })
	}
	if a.manager.Watchdog > 0 {
		a.working.Go(func() { a.live(ctx) })
	}
	if !a.outside.IsZero() {
		a.working.Go(func() { a.run(ctx) })
	}
}

// end ends the work, after the context of begin has ended and before the tunnel is
// undone.
func (a *attendant) end() {
	a.working.Wait()
	if a.begun {
		a.t.RunOutside(a.outside, tunnel.Event{Name: "down"})
	}
	if a.server != nil {
		a.server.Close()
	}
}

// tell says in the log what could not be said to the service manager, once until it
// hears again: WATCHDOG=1 would fill the log.
func (a *attendant) tell(lines ...string) {
	err := a.manager.Tell(lines...)
	if deaf := a.deaf.Swap(err != nil); err != nil && !deaf {
		a.t.Log(err.Error())
	}
}

// watch tells the news of the engine until ctx ends.
func (a *attendant) watch(ctx context.Context) {
	for {
		d := a.t.Engine.Last()
		a.tellStatus(d)
		a.noteHandshakes(d)
		select {
		case <-a.t.Engine.News():
		case <-ctx.Done():
			return
		}
	}
}

// tellStatus says how the tunnel is when that is another word than before, or the
// engine another process.
func (a *attendant) tellStatus(d uapi.Device) {
	var s Status
	if a.t.Engine.Pid() == 0 {
		s.State = "engine-restarting"
	} else {
		s.peers(a.t, d)
		s.judge(a.t.Unresolved(), a.t.Began, time.Now())
	}
	restarts := a.t.Engine.Restarts()
	news := fmt.Sprint(s.State, restarts)
	if news == a.told {
		return
	}
	a.told = news
	text := a.t.Plan().Link.Name + " " + s.State
	if s.Cause != "" {
		text += ": " + s.Cause
	}
	if restarts > 0 {
		text += fmt.Sprintf("; engine restarted %d times", restarts)
	}
	a.tell(service.Status(text))
}

// noteHandshakes has the command run for peers whose first handshake was made, or
// the first after a long silence. An engine that took over from another knows of
// none.
func (a *attendant) noteHandshakes(d uapi.Device) {
	for _, p := range d.Peers {
		before, seen := a.handshakes[p.PublicKey]
		if !seen {
			before = a.known
		}
		if !p.LastHandshake.After(before) {
			continue
		}
		a.handshakes[p.PublicKey] = p.LastHandshake
		if before.IsZero() || p.LastHandshake.Sub(before) > comeback {
			a.happened(tunnel.Event{Name: "handshake", Peer: uapi.Peer{PublicKey: p.PublicKey, Endpoint: p.Endpoint}})
		}
	}
}

func (a *attendant) happened(e tunnel.Event) {
	if a.outside.Handshake == "" {
		return
	}
	select {
	case a.events <- e:
	default:
		a.t.Log(fmt.Sprintf("--on-handshake: not run for %s: %d wait", e.Peer.PublicKey, maxEvents))
	}
}

// poll asks the engine, whose news watch gets.
func (a *attendant) poll(ctx context.Context) {
	for began := time.Now(); ; {
		pause := restPoll
		if time.Since(began) < eagerTime {
			pause = eagerPoll
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		// An engine that does not answer is another's business.
		_, _ = a.t.Engine.Get(ctx)
	}
}

// live tells the service manager that this process and the engine work, as long as
// they do.
func (a *attendant) live(ctx context.Context) {
	half := a.manager.Watchdog / 2
	for tick := time.NewTicker(half); ; {
		if a.answers(ctx, half) {
			a.tell(service.Alive)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return
		}
	}
}

func (a *attendant) answers(ctx context.Context, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_, err := a.t.Engine.Get(ctx)
	return err == nil
}

// run runs commands one after the other. One that runs when ctx ends is waited for;
// those that wait are not run.
func (a *attendant) run(ctx context.Context) {
	if !a.takenOver {
		a.t.RunOutside(a.outside, tunnel.Event{Name: "up"})
	}
	for {
		select {
		case e := <-a.events:
			a.t.RunOutside(a.outside, e)
		case <-ctx.Done():
			return
		}
	}
}

// look is what Prometheus is told.
func (a *attendant) look(ctx context.Context) metrics.Tunnel {
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	m := metrics.Tunnel{
		Name: a.t.Dir.Name(), Interface: a.t.Plan().Link.Name, Began: a.t.Began, EngineRestarts: a.t.Engine.Restarts(),
	}
	m.MTU, _ = a.t.MTU()
	m.Resolved, m.Unresolved = a.t.Resolutions()
	if _, err := a.t.Engine.Get(ctx); err != nil {
		return m
	}
	m.Up = true
	for _, p := range a.t.Engine.Last().Peers {
		m.Peers = append(m.Peers, metrics.Peer{
			Name: a.t.PeerName(p.PublicKey), PublicKey: p.PublicKey.String(),
			LastHandshake: a.t.LastHandshake(p), RxBytes: p.RxBytes, TxBytes: p.TxBytes,
		})
	}
	return m
}
