package aead

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// No jump, no address and no mask of what is in memory depends on anything but
// lengths, addresses and what open returns; and when a function returns, no register
// has what depends on anything else. Secret is all that is read by a pointer. A
// conditional move on a secret is no jump.
func TestNoSecretShows(t *testing.T) {
	for _, function := range []string{"seal", "open", "poly1305"} {
		for _, shown := range secretsShown(listing(t, function)) {
			t.Error(function, shown)
		}
	}
}

func secretsShown(steps []step) (shown []string) {
	do := func(s step, f facts[bool]) { s.spread(f) }
	either := func(a, b bool) bool { return a || b }
	for i, f := range follow(steps, facts[bool]{}, do, either) {
		if what := steps[i].shows(f); what != "" {
			shown = append(shown, fmt.Sprintf("line %d, %s %q: %s", steps[i].line, steps[i].op, steps[i].args, what))
		}
	}
	return shown
}

// The test before sees secrets where they are shown: before the tag's comparison.
func TestSecretsAreSeen(t *testing.T) {
	for want, bad := range map[string][]step{
		"a jump":               {{op: "JEQ", args: []string{"end"}}},
		"an address":           {{op: "MOVQ", args: []string{"8(AX)(tag*1)", "tag"}}},
		"a mask":               {{op: "KMOVQ", args: []string{"tag", "K1"}}, {op: "VMOVDQU8.Z", args: []string{"(BX)", "K1", "Z0"}}},
		"is secret at the end": {{op: "RET"}},
	} {
		steps := listing(t, "open")
		compare := slices.IndexFunc(steps, func(s step) bool { return s.op == "SETEQ" })
		steps = steps[:compare]
		tag := steps[compare-1].args[1]
		for _, s := range bad {
			args := slices.Clone(s.args)
			for i := range args {
				args[i] = strings.Replace(args[i], "tag", tag, 1)
			}
			steps = append(steps, step{op: s.op, args: args, next: []int{len(steps) + 1}})
		}
		steps[len(steps)-1].next = nil
		for i := range steps { // what was further down is left out
			steps[i].next = slices.DeleteFunc(steps[i].next, func(next int) bool { return next >= len(steps) })
		}
		if shown := secretsShown(steps); len(shown) == 0 || !strings.HasSuffix(shown[0], want) {
			t.Errorf("saw %q, want %s", shown, want)
		}
	}
}

const flags = "flags"

// shows tells what of the secrets, which are the places in f, a step shows.
func (s step) shows(f facts[bool]) string {
	switch {
	case s.op == "RET":
		for where := range f {
			if where != flags {
				return where + " is secret at the end"
			}
		}
	case s.op[0] == 'J' && s.op != "JMP" && f[flags]:
		return "a jump"
	case s.op == "LEAQ":
		return ""
	}
	for _, arg := range s.args {
		if !strings.Contains(arg, "(") {
			continue
		}
		if f[s.mask()] {
			return "a mask"
		}
		for _, r := range address(arg) {
			if f[r] {
				return "an address"
			}
		}
	}
	return ""
}

// spread sets what is secret after a step.
func (s step) spread(f facts[bool]) {
	set := func(arg string, secret bool) {
		if where := place(arg); secret && where != "" {
			f[where] = true
		} else {
			delete(f, where)
		}
	}
	last := len(s.args) - 1
	if last < 0 || s.op[0] == 'J' {
		if s.op == "VZEROALL" {
			for i := range 16 {
				delete(f, "V"+strconv.Itoa(i))
			}
		}
		return
	}
	secret := slices.ContainsFunc(s.args[:last], func(arg string) bool { return isSecret(f, arg) })
	old := isSecret(f, s.args[last])
	same := last > 0 && s.args[0] == s.args[last] && s.args[last-1] == s.args[last]
	switch {
	case same && (strings.HasPrefix(s.op, "XOR") || s.op == "VPSUBQ" || s.op == "KXNORB"):
		set(s.args[last], false)
		if s.op[0] == 'X' {
			set(flags, false)
		}
	case s.op[0] == 'V' || s.op[0] == 'K':
		merged := strings.HasPrefix(s.op, "VPMADD") || s.mask() != "" && !strings.HasSuffix(s.op, ".Z")
		set(s.args[last], secret || merged && old)
	case s.op == "MULXQ":
		secret = isSecret(f, s.args[0]) || f["DX"]
		set(s.args[1], secret)
		set(s.args[2], secret)
	case s.op == "LEAQ":
		set(s.args[last], slices.ContainsFunc(address(s.args[0]), func(r string) bool { return f[r] }))
	case strings.HasPrefix(s.op, "SET"):
		set(s.args[last], f[flags])
	case strings.HasPrefix(s.op, "CMOV"):
		set(s.args[last], secret || old || f[flags])
	case strings.HasPrefix(s.op, "MOV"):
		set(s.args[last], secret)
		if strings.Contains(s.args[last], "ret+") {
			set(s.args[0], false) // what is returned is no secret
		}
	case strings.HasPrefix(s.op, "CMP"):
		set(flags, secret || old)
	default: // arithmetic
		old = old && !strings.HasPrefix(s.op, "BZHI")
		secret = secret || old || strings.HasPrefix(s.op, "ADC") && f[flags]
		set(s.args[last], secret)
		set(flags, secret)
	}
}

// isSecret tells whether an operand is: in memory all is, but constants and parameters.
func isSecret(f facts[bool], arg string) bool {
	if strings.Contains(arg, "(") {
		return !strings.Contains(arg, "(SB)") && !strings.Contains(arg, "(FP)")
	}
	return f[place(arg)]
}
