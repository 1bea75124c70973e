package engine

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wireguard4netns/internal/engine/native"
	"wireguard4netns/internal/engine/wggo"
	"wireguard4netns/internal/sandbox"
)

// What the engine process finds open besides standard input and output, which
// are /dev/null, and standard error, which is a pipe for log lines.
const (
	tunFD     = 3
	controlFD = 4
)

// Engines that there are.
const (
	Native      = "native"
	WireGuardGo = "wireguard-go"
)

// Names are those of all engines, the default first.
var Names = []string{Native, WireGuardGo}

// Main is the engine process: args are its arguments after Argv0, lines of its
// log go to stderr. It returns the exit code.
func Main(args []string, stderr io.Writer) int {
	return mainTuned(args, stderr, func(*native.Options) {})
}

// mainTuned is Main with options of the native engine that only tests have: there is
// no argument for them.
func mainTuned(args []string, stderr io.Writer, tune func(*native.Options)) int {
	if err := run(args, stderr, tune); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

func run(args []string, stderr io.Writer, tune func(*native.Options)) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	// Before the runtime has opened anything of its own.
	if err := unix.CloseRange(controlFD+1, math.MaxUint32, 0); err != nil {
		return fmt.Errorf("close inherited files: %w", err)
	}
	if err := sandbox.HideMemory(); err != nil {
		return err
	}
	control, err := streamOf(controlFD)
	if err != nil {
		return err
	}
	// Whose rules are in a file, which nobody may open any more when the first
	// time is printed: wireguard-go does so when a handshake is replayed.
	time.Local = time.UTC
	log := func(line string) { fmt.Fprintln(stderr, line) }
	trouble := func() { log(troubleLine) }
	seal := func() error {
		notes, err := sandbox.Engine(o.sandbox, o.missing())
		for _, note := range notes {
			log(note)
		}
		return err
	}
	if o.engine == WireGuardGo {
		return wggo.Run(context.Background(), tunFD, control, wggo.Options{
			MTU: o.mtu, Verbose: o.verbose, Log: log, Trouble: trouble, Seal: seal,
		})
	}
	n := native.Options{MTU: o.mtu, Verbose: o.verbose, Log: log, Trouble: trouble, Seal: seal}
	tune(&n)
	return native.Run(context.Background(), tunFD, control, n)
}

// streamOf takes over an inherited socket.
func streamOf(fd uintptr) (net.Conn, error) {
	f := os.NewFile(fd, "control")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	return c, nil
}

// options is what the arguments of an engine process say. They can be seen by
// all (ps), so nothing secret is among them.
type options struct {
	ifName       string // for who reads ps
	mtu          int
	verbose      bool
	engine       string // empty: the default
	sandbox      sandbox.Level
	noNamespaces string // why it has no namespaces of its own; empty: it has
}

func (o options) args() []string {
	args := []string{
		"--ifname=" + o.ifName,
		fmt.Sprintf("--mtu=%d", o.mtu),
		"--sandbox=" + o.sandbox.String(),
	}
	if o.verbose {
		args = append(args, "--verbose")
	}
	if o.engine != "" {
		args = append(args, "--engine="+o.engine)
	}
	if o.noNamespaces != "" {
		args = append(args, "--no-namespaces="+o.noNamespaces)
	}
	return args
}

func parseOptions(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet(Argv0, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.ifName, "ifname", "", "")
	f.IntVar(&o.mtu, "mtu", 0, "")
	f.BoolVar(&o.verbose, "verbose", false, "")
	f.StringVar(&o.engine, "engine", "", "")
	f.TextVar(&o.sandbox, "sandbox", sandbox.Auto, "")
	f.StringVar(&o.noNamespaces, "no-namespaces", "", "")
	err := f.Parse(args)
	if err == nil && (f.NArg() > 0 || o.mtu <= 0 || o.engine != "" && !slices.Contains(Names, o.engine)) {
		err = errors.New(strings.Join(args, " "))
	}
	if err != nil {
		return options{}, fmt.Errorf("parse engine arguments: %w", err)
	}
	return o, nil
}

func (o options) missing() sandbox.Missing {
	if o.noNamespaces == "" {
		return nil
	}
	return sandbox.Missing{sandbox.Namespaces: errors.New(o.noNamespaces)}
}
