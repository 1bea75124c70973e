// Package tunnel is the whole start of a tunnel on one page, and its undo.
package tunnel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"wireguard4netns/conf"
	"wireguard4netns/internal/engine"
	"wireguard4netns/internal/link"
	"wireguard4netns/internal/ns"
	"wireguard4netns/internal/plan"
	"wireguard4netns/internal/sandbox"
	"wireguard4netns/internal/state"
	"wireguard4netns/internal/uapi"
	"wireguard4netns/internal/watch"
)

// Request is what a tunnel is asked to be. Apart from Conf it holds no keys.
type Request struct {
	Conf     []byte // the text of a wg-quick(8) file
	ConfName string // what messages call it
	ConfPath string // absolute, where it is read from again; may be empty
	Options  plan.Options

	Root   string     // state directory of the user
	Name   string     // of the tunnel; empty: the interface and this process
	Target *ns.Target // nil: new namespaces are made

	// Kept is taken over, if not nil, in place of new namespaces and a new link.
	// Running is then what the engine was, as it said itself (the body of a get);
	// empty: what Conf says.
	Kept    *Kept `json:"-"`
	Running []byte
	// What is known of the time until then.
	Given      Given
	Handshakes map[conf.PublicKey]time.Time `json:",omitempty"` // the last of each peer

	// UAPIPath is where the UAPI socket is; empty: in the tunnel's directory.
	UAPIPath string

	Wait    time.Duration // for the first handshake; 0: do not
	Patient bool          // without Wait: endpoints' names need not resolve yet
	Engine  string        // which one; empty: the default
	Sandbox sandbox.Level
	Verbose bool
}

// Tunnel is one that runs. Close undoes it.
type Tunnel struct {
	Dir    *state.Dir
	NS     *ns.Set
	Engine *engine.Engine

	// TUN keeps the link alive while an engine dies and another takes over.
	TUN *os.File

	Began time.Time // when the link was made

	request  Request
	plan     atomic.Pointer[plan.Plan] // what is so now: Reload has another
	uapiPath string                    // not in Dir, if set
	log      *Log
	given    given          // what save heeds
	unsaved  string         // see Unsaved
	undo     []func() error // last in, first out

	changing sync.Mutex              // held to change the link
	netlink  *os.File                // inside
	links    *link.Conn              // over netlink
	state    *os.File                // see Keep; nil: nobody keeps anything
	mtu      atomic.Pointer[linkMTU] // nil: the plan's
	reloaded chan struct{}           // holds one

	outside sync.Mutex // held while a command runs outside

	resolutions watch.Resolutions
	history     history

	engineMTU int // the engine was started with it; the link's is never above
}

// Request returns what the tunnel would be asked for now; it holds keys. Wait is over:
// a peer that is silent later is no reason to end it.
func (t *Tunnel) Request() Request {
	r := t.request
	r.Name, r.Kept, r.Running, r.Wait = t.Dir.Name(), nil, nil, 0
	r.Given, r.Handshakes = t.given.get(), t.history.all()
	return r
}

// Plan returns what the tunnel is made after.
func (t *Tunnel) Plan() *plan.Plan { return t.plan.Load() }

// Start makes the tunnel up to its Publish, which is the caller's. Each step pushes its undo; when one fails, what came
// before is undone and the error is of that step. say gets a line for each thing
// the user should know.
func Start(ctx context.Context, r Request, say func(string)) (_ *Tunnel, err error) {
	t := &Tunnel{request: r, reloaded: make(chan struct{}, 1), Began: time.Now(), given: given{is: r.Given}, history: history{handshakes: r.Handshakes}}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()

	config, _, err := conf.Parse(bytes.NewReader(r.Conf), r.ConfName)
	if err != nil {
		return nil, err
	}
	facts, err := r.look(ctx, config, say)
	if err != nil {
		return nil, err
	}
	p, err := plan.New(config, r.Options, facts)
	if errors.Is(err, plan.ErrNoAddress) {
		return nil, fmt.Errorf("%s: %w", r.ConfName, err)
	}
	if err != nil {
		return nil, err
	}
	t.plan.Store(p)
	t.engineMTU = p.Link.MTU
	if r.Verbose {
		say(fmt.Sprintf("link %s: MTU %d, from %s", p.Link.Name, p.Link.MTU, p.MTUSource))
	}
	for _, warning := range p.Warnings {
		say(warning)
	}
	if r.Kept, err = fitting(r.Kept, p, say); err != nil {
		return nil, err
	}
	if t.Dir, err = r.claim(); err != nil {
		return nil, err
	}
	t.push(t.Dir.Remove)
	if t.log, err = openLog(t.Dir); err != nil {
		return nil, err
	}
	t.push(t.log.Close)
	say = t.log.Also(say)
	if err := t.namespaces(ctx, r, p, say); err != nil {
		return nil, err
	}
	t.push(t.NS.Close)
	if err := t.device(r, p); err != nil {
		return nil, err
	}
	if r.Kept == nil {
		err = t.hooks(ctx, "PreUp", p.Hooks.PreUp, say)
	}
	if err != nil {
		return nil, err
	}
	if t.links, err = link.NewConn(int(t.netlink.Fd())); err != nil {
		return nil, err
	}
	if r.Kept == nil {
		err = t.links.Configure(p.Link)
	} else {
		err = t.take(r.Kept, p)
	}
	if err != nil {
		return nil, err
	}
	if err := t.engine(ctx, r, p); err != nil {
		return nil, err
	}
	if err := t.listen(r, p); err != nil {
		return nil, err
	}
	if err := sandbox.HideMemory(); err != nil {
		return nil, err
	}
	if r.Wait > 0 {
		if err := t.awaitHandshake(ctx, r.Wait); err != nil {
			return nil, err
		}
	}
	if r.Kept == nil {
		err = t.hooks(ctx, "PostUp", p.Hooks.PostUp, say)
	}
	if err != nil {
		return nil, err
	}
	t.push(func() error { t.save(say); return nil })
	t.push(func() error { return t.hooksDown(say) })
	return t, nil
}

func (r Request) name() string {
	if r.Name != "" {
		return r.Name
	}
	return fmt.Sprintf("%s-%d", r.Options.IfName, os.Getpid())
}

// claim makes the tunnel's directory, or takes it over.
func (r Request) claim() (*state.Dir, error) {
	if r.Kept != nil && r.Kept.Lock != nil {
		return state.Adopt(r.Root, r.name(), r.Kept.Lock), nil
	}
	return state.Claim(r.Root, r.name())
}

// namespaces makes those of the tunnel, or opens the target's, or takes those over
// that were kept.
func (t *Tunnel) namespaces(ctx context.Context, r Request, p *plan.Plan, say func(string)) (err error) {
	switch {
	case r.Kept != nil:
		t.NS = r.Kept.NS
	case r.Target != nil:
		t.NS, err = ns.Open(*r.Target)
	default:
		var notes []string
		t.NS, notes, err = ns.Create(ctx, *p.Inside)
		for _, note := range notes {
			say(note)
		}
	}
	return err
}

// device makes the TUN device, or takes over the one that was kept.
func (t *Tunnel) device(r Request, p *plan.Plan) (err error) {
	if r.Kept != nil {
		t.TUN, t.netlink, t.state, t.Began = r.Kept.TUN, r.Kept.Netlink, r.Kept.state, r.Kept.began
	} else if t.TUN, t.netlink, err = t.NS.Interface(p.Link.Name); err != nil {
		return err
	}
	if r.Target != nil {
		t.push(t.TUN.Close) // who attaches next may want the name
	} // else it goes with this process: the kernel takes 10 ms to remove a link
	t.push(t.netlink.Close)
	t.push(t.closeState)
	if r.Target != nil {
		return t.NS.Release()
	}
	return nil
}

// engine starts the engine and gives it the keys.
func (t *Tunnel) engine(ctx context.Context, r Request, p *plan.Plan) (err error) {
	// Where there is a tunnel to lose, a process that dies of its start is not the end.
	for tries := range 3 {
		if tries > 0 && (r.Kept == nil || ctx.Err() != nil) {
			break
		}
		t.Engine, err = engine.Open(ctx, engine.Config{
			IfName: p.Link.Name, MTU: p.Link.MTU, TUN: t.TUN,
			Engine: r.Engine, Sandbox: r.Sandbox, Verbose: r.Verbose, Log: t.log.Line,
		})
		if err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	t.push(func() error { t.Engine.Close(); return nil })
	config := p.Device
	if len(r.Running) > 0 {
		d, err := uapi.Parse(bytes.NewReader(r.Running))
		if err != nil {
			return fmt.Errorf("take over the engine's state: %w", err)
		}
		config = d.Restore()
		t.history.remember(d.Peers)
	}
	if err := t.Engine.Set(ctx, config.Body()); err != nil {
		return configureError(p, err)
	}
	if r.Kept != nil {
		return t.Engine.Call(ctx) // peers are to learn of the new engine now
	}
	return nil
}

// listen serves the UAPI socket.
func (t *Tunnel) listen(r Request, p *plan.Plan) error {
	t.uapiPath = r.UAPIPath
	if r.UAPIPath != "" {
		// If this process is killed, who tidies up finds the socket by this.
		if err := os.Symlink(r.UAPIPath, filepath.Join(t.Dir.Path(), p.Link.Name+".sock")); err != nil {
			return err
		}
	}
	l, err := uapi.Listen(t.UAPIPath())
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- l.Serve(context.Background(), noted{t.Engine, &t.given}) }()
	t.push(func() error { return errors.Join(l.Close(), <-served) })
	return nil
}

// Settle lets go of what only the start needed.
func (t *Tunnel) Settle() error { return t.log.TakeStderr() }

// UAPIPath returns where the UAPI socket is.
func (t *Tunnel) UAPIPath() string {
	if t.uapiPath != "" {
		return t.uapiPath
	}
	return filepath.Join(t.Dir.Path(), t.Plan().Link.Name+".sock")
}

func (t *Tunnel) push(undo func() error) { t.undo = append(t.undo, undo) }

// Close undoes the tunnel: all of it, also where a part fails.
func (t *Tunnel) Close() error {
	var errs []error
	for _, undo := range slices.Backward(t.undo) {
		errs = append(errs, undo())
	}
	t.undo = nil
	return errors.Join(errs...)
}
