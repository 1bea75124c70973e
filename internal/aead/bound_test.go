package aead

import (
	"fmt"
	"math"
	"math/bits"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// No sum of Poly1305 in vectors is ever too large for its 64 bits, nothing that is
// multiplied for the 52 bits which the processor takes of it, and no product that is
// taken without its upper half has one: for every key and message. It is worked out
// from the instructions, with the largest value that each register can have.
func TestBounds(t *testing.T) {
	largest := largestConstants(t)
	for _, function := range []string{"seal", "open", "poly1305"} {
		for _, wrong := range largest.exceeded(listing(t, function)) {
			t.Error(function, wrong)
		}
	}
	// With a mask that leaves more than a limb it would not hold.
	const limb = "limb<>+0(SB)"
	if largest[limb] != 1<<44-1 {
		t.Fatalf("a limb is up to %#x", largest[limb])
	}
	for _, bits := range []int{45, 52, 63} {
		largest[limb] = 1<<bits - 1
		if len(largest.exceeded(listing(t, "open"))) == 0 {
			t.Errorf("nothing is too large with limbs of %d bits", bits)
		}
	}
}

func (c constantBounds) exceeded(steps []step) (wrong []string) {
	start := facts[uint64]{}
	for _, s := range steps {
		for _, arg := range s.args {
			start[spot(arg)] = unknown
		}
	}
	do := func(s step, f facts[uint64]) { c.bound(s, f) }
	for i, f := range follow(steps, start, do, func(a, b uint64) uint64 { return max(a, b) }) {
		if what := c.bound(steps[i], f); what != "" {
			wrong = append(wrong, fmt.Sprintf("line %d, %s %q: %s", steps[i].line, steps[i].op, steps[i].args, what))
		}
	}
	return wrong
}

// unknown is the bound of what may be anything.
const unknown = math.MaxUint64

// spot is place, or a vector in the frame, which begins at AX.
func spot(arg string) string {
	if frame, found := strings.CutSuffix(arg, "(AX)"); found {
		return "frame " + frame
	}
	return place(arg)
}

// constantBounds are the constants of 64 bits, by name and offset.
type constantBounds map[string]uint64

func largestConstants(t *testing.T) constantBounds {
	t.Helper()
	constants := constantBounds{}
	for _, m := range regexp.MustCompile(`DATA (\w+<>\+\d+\(SB\))/8, \$(\w+)`).FindAllStringSubmatch(readAssembly(t), -1) {
		n, err := strconv.ParseUint(m[2], 0, 64)
		if err != nil {
			t.Fatal(err)
		}
		constants[m[1]] = n
	}
	return constants
}

func (c constantBounds) of(f facts[uint64], arg string) uint64 {
	if n, found := c[arg]; found {
		return n
	}
	if n, err := strconv.ParseUint(strings.TrimPrefix(arg, "$"), 0, 64); err == nil {
		return n
	}
	if n, found := f[spot(arg)]; found && spot(arg) != "" {
		return n
	}
	return unknown
}

// bound sets the bound of what a step writes, and tells what is wrong with it.
func (c constantBounds) bound(s step, f facts[uint64]) (wrong string) {
	last := len(s.args) - 1
	if s.op[0] != 'V' || last < 0 {
		return ""
	}
	to := spot(s.args[last])
	a, b := c.of(f, s.args[0]), c.of(f, s.args[min(1, last)])
	x := uint64(unknown)
	op, _, zeroed := strings.Cut(s.op, ".Z")
	switch strings.TrimSuffix(op, ".BCST") {
	case "VMOVDQA64", "VMOVDQU64", "VPBROADCASTQ":
		x = a
	case "VEXTRACTI64X4", "VEXTRACTI64X2", "VPSRLDQ":
		x = b
	case "VPUNPCKLQDQ", "VPUNPCKHQDQ":
		x = max(a, b)
	case "VPANDQ":
		x = min(a, b)
	case "VPORQ", "VPADDQ":
		x, wrong = add(a, b)
	case "VPSUBQ":
		if s.args[0] == s.args[1] {
			x = 0
		}
	case "VPSRLQ":
		x = b >> a
	case "VPSLLQ":
		if x = b << a; x>>a != b {
			x, wrong = unknown, "bits are lost"
		}
	case "VPMADD52LUQ", "VPMADD52HUQ":
		x, wrong = multiplyAdd(a, b, f[to], strings.Contains(op, "LUQ"))
	}
	if s.mask() != "" && !zeroed {
		x = max(x, f[to])
	}
	f[to] = x
	return wrong
}

func add(a, b uint64) (sum uint64, wrong string) {
	sum, carry := bits.Add64(a, b, 0)
	if carry > 0 {
		return unknown, "a sum of more than 64 bits"
	}
	return sum, ""
}

// multiplyAdd is a bound of sum and half of a product. That by 20 is always taken
// without the upper half.
func multiplyAdd(a, b, sum uint64, low bool) (_ uint64, wrong string) {
	const mask = 1<<52 - 1
	if a > mask || b > mask {
		return unknown, "a factor of more than 52 bits"
	}
	high52, low52 := bits.Mul64(a<<12, b)
	if !low {
		return add(sum, high52)
	}
	if high52 == 0 {
		return add(sum, low52>>12)
	}
	if a == 20 {
		return unknown, "a product of more than 52 bits"
	}
	return add(sum, mask)
}
