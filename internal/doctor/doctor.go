// Package doctor looks at what a tunnel needs: of the machine, and of a file.
//
// Each check probes one thing, and where that is not as it should be it explains
// why and advises what to do. What can be tried is tried; settings are read to
// explain a refusal, not to foretell one. What run says when it fails comes from
// the same advice (Machine.Advise).
package doctor

import (
	"context"
	"fmt"
	"slices"
)

// State is how a check ended.
type State string

const (
	OK   State = "ok"
	Note State = "note" // a tunnel works, but not as well as it could
	Fail State = "fail" // a tunnel does not work
)

// A Finding is what a check found. Its JSON form is documented in the help of the
// command and stable: names of checks are not changed, and fields only added.
type Finding struct {
	Check string `json:"check"`
	State State  `json:"state"`
	Seen  string `json:"seen"`
	Advice
}

// Advice is what to do.
type Advice struct {
	Why  string `json:"why,omitempty"`
	Do   string `json:"do,omitempty"`   // in one line
	Text string `json:"text,omitempty"` // what that line speaks of, to be copied
}

// Line returns cause and remedy as one line.
func (a Advice) Line() string {
	if a.Why != "" && a.Do != "" {
		return a.Why + "; " + a.Do
	}
	return a.Why + a.Do
}

func ok(format string, args ...any) Finding {
	return Finding{State: OK, Seen: fmt.Sprintf(format, args...)}
}

func note(a Advice, format string, args ...any) Finding {
	return Finding{State: Note, Seen: fmt.Sprintf(format, args...), Advice: a}
}

func fail(a Advice, format string, args ...any) Finding {
	return Finding{State: Fail, Seen: fmt.Sprintf(format, args...), Advice: a}
}

// failure is a finding of err, with the advice there is.
func (m *Machine) failure(err error) Finding {
	a, _ := m.Advise(err)
	return fail(a, "%v", err)
}

// A check has a name, the checks without whose success it tells nothing, and a
// probe.
type check struct {
	name  string
	needs []string
	look  func(*Machine, context.Context) Finding
}

var checks = []check{
	{"kernel", nil, (*Machine).kernel},
	{"clock", nil, (*Machine).clock},
	{"namespaces", nil, (*Machine).namespaces},
	{"tun", nil, (*Machine).tun},
	{"state-directory", nil, (*Machine).stateDirectory},
	{"tun-offload", []string{"namespaces", "tun"}, (*Machine).tunOffload},
	{"udp-offload", nil, (*Machine).udpOffload},
	{"receive-buffer", nil, (*Machine).receiveBuffer},
	{"tunnel", []string{"kernel", "namespaces", "tun", "state-directory"}, (*Machine).tunnel},
	{"overlay", []string{"tunnel"}, (*Machine).overlay},
	{"sandbox", []string{"tunnel"}, (*Machine).sandbox},
}

// Check looks at the machine.
func (m *Machine) Check(ctx context.Context) []Finding {
	var list []Finding
	for _, c := range checks {
		f := note(Advice{}, "not tried")
		if lacking := failed(list, c.needs); lacking == "" {
			f = c.look(m, ctx)
		} else {
			f.Why = lacking + " failed"
		}
		f.Check = c.name
		list = append(list, f)
	}
	return list
}

// failed returns the first of the named checks that was not well.
func failed(list []Finding, names []string) string {
	for _, f := range list {
		if slices.Contains(names, f.Check) && (f.State == Fail || f.Seen == "not tried") {
			return f.Check
		}
	}
	return ""
}

// Well tells that nothing failed.
func Well(list []Finding) bool {
	return !slices.ContainsFunc(list, func(f Finding) bool { return f.State == Fail })
}
