package aead

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The assembly is read as text, and run with statements about values in place of the
// values: every path, for every message and key at once. It needs no AVX-512.

// step is an instruction. Its operands are in the order of the Go assembler: what is
// written comes last.
type step struct {
	line int
	op   string
	args []string
	next []int
}

// listing is the steps of a function; the first is the entry.
func listing(t *testing.T, function string) []step {
	t.Helper()
	text := readAssembly(t)
	_, body, found := strings.Cut(text, "\nTEXT ·"+function+"(SB)")
	if !found {
		t.Fatalf("no function %s", function)
	}
	line := strings.Count(text[:len(text)-len(body)], "\n")
	body, _, _ = strings.Cut(body, "\nTEXT ")
	var steps []step
	labels := map[string]int{}
	for i, l := range strings.Split(body, "\n")[1:] {
		code, _, _ := strings.Cut(l, "//")
		op, args, _ := strings.Cut(strings.TrimSpace(code), " ")
		switch label, isLabel := strings.CutSuffix(op, ":"); {
		case isLabel:
			labels[label] = len(steps)
		case op != "":
			steps = append(steps, step{line: line + i + 2, op: op, args: operands(args)})
		}
	}
	for i := range steps {
		s := &steps[i]
		if s.op[0] == 'J' {
			at, found := labels[s.args[0]]
			if !found {
				t.Fatalf("line %d: no label %s", s.line, s.args[0])
			}
			s.next = append(s.next, at)
		}
		if s.op != "JMP" && s.op != "RET" {
			s.next = append(s.next, i+1)
		}
	}
	return steps
}

func readAssembly(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("aead_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func operands(args string) []string {
	var list []string
	for arg := range strings.SplitSeq(args, ",") {
		if arg = strings.TrimSpace(arg); arg != "" {
			list = append(list, arg)
		}
	}
	return list
}

// place is where an operand is: a register, of which X0, Y0 and Z0 are one, or "" for
// memory and numbers.
func place(arg string) string {
	switch {
	case strings.ContainsAny(arg, "($"):
		return ""
	case strings.ContainsAny(arg[:1], "XYZ"):
		return "V" + arg[1:]
	case len(arg) == 2 && arg[1] == 'L': // the low byte
		return arg[:1] + "X"
	}
	return strings.TrimSuffix(arg, "B") // of R8 to R15
}

var registerInAddress = regexp.MustCompile(`\(([A-Z][A-Z0-9]+)(?:\*\d)?\)`)

// address is the registers that an operand in memory is found by.
func address(arg string) []string {
	var found []string
	for _, r := range registerInAddress.FindAllStringSubmatch(arg, -1) {
		if r[1] != "SB" && r[1] != "FP" && r[1] != "SP" {
			found = append(found, r[1])
		}
	}
	return found
}

// mask is the operand by which the others are masked, or "".
func (s step) mask() string {
	for _, arg := range s.args[:max(0, len(s.args)-1)] {
		if arg[0] == 'K' && s.op[0] == 'V' {
			return arg
		}
	}
	return ""
}

// facts are what is known at a step, by place.
type facts[F any] map[string]F

// follow finds what is known before each step, from what is at the start, what do
// makes of it and how join takes two that meet together. It ends when nothing is new.
func follow[F comparable](steps []step, start facts[F], do func(step, facts[F]), join func(a, b F) F) []facts[F] {
	before := make([]facts[F], len(steps))
	before[0] = start
	for todo := []int{0}; len(todo) > 0; {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		after := maps.Clone(before[i])
		do(steps[i], after)
		for _, next := range steps[i].next {
			if meet(&before[next], after, join) && !slices.Contains(todo, next) {
				todo = append(todo, next)
			}
		}
	}
	return before
}

// meet joins what comes into what is there, and tells whether that is more now.
func meet[F comparable](there *facts[F], comes facts[F], join func(a, b F) F) bool {
	if *there == nil {
		*there = maps.Clone(comes)
		return true
	}
	more := false
	for _, where := range slices.Sorted(maps.Keys(comes)) {
		was, known := (*there)[where]
		now := join(was, comes[where])
		if !known || now != was {
			(*there)[where] = now
			more = true
		}
	}
	return more
}
