// Package nstest is help for tests that speak to the real kernel without
// rights.
//
//	           test process (its own uid, no capabilities)
//	                │ one a process
//	       lab: userns, uid 0 = the test's uid
//	     ┌──────────┴──────────┐
//	Host: userns+netns+mntns  Host: …           NewHost
//	     └────── veth ─────────┘                Connect
//	     │ Command: as root of the Host
//	     └ UserCommand: in one more userns, as uid 1000, no capabilities
//
// A Host is a machine made by the test: one is "the user's machine", another
// "the Internet with a VPN peer in it". Everything it is made of ends with the
// test, and a process left running in it fails the test.
//
// Code runs inside a Host by re-execution of the test binary in another role,
// so each package that uses this one has
//
//	func TestMain(m *testing.M) { nstest.Main(m) }
package nstest

import (
	"fmt"
	"os"
	"testing"
)

// roleEnv names the role in which a re-executed test binary runs.
const roleEnv = "W4N_NSTEST_ROLE"

// roles holds what a re-executed test binary can be. Filled only by package
// variables and init functions, so that both processes agree on it.
var roles = map[string]func() error{}

// Main runs the tests, or the role for which the test binary was re-executed.
// It does not return.
func Main(m *testing.M) {
	if name, ok := os.LookupEnv(roleEnv); ok {
		os.Unsetenv(roleEnv)
		os.Exit(runRole(name))
	}
	code := m.Run()
	for _, undo := range processUndo {
		undo()
	}
	os.Exit(code)
}

// mustBeTest ends a process that was re-executed for a role and runs tests all the
// same, since its TestMain does not call Main: they would re-execute it again, and
// so on until the machine is full.
func mustBeTest() {
	if _, ok := os.LookupEnv(roleEnv); ok {
		fmt.Fprintln(os.Stderr, "nstest: this package's TestMain does not call nstest.Main")
		os.Exit(2)
	}
}

// processUndo is what to undo at the end of the test process.
var processUndo []func()

func runRole(name string) int {
	role, ok := roles[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "nstest: unknown role %q\n", name)
		return 2
	}
	if err := role(); err != nil {
		fmt.Fprintf(os.Stderr, "nstest: %s: %v\n", name, err)
		return 1
	}
	return 0
}
