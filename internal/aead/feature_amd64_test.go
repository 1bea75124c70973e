package aead

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Without any one of the features that the assembly says it needs, the library does
// it all. They are switched off by GODEBUG in processes of this test.
func TestFeatures(t *testing.T) {
	if strings.Contains(os.Getenv("GODEBUG"), "cpu.") {
		if accelerated {
			t.Error("the assembly is used")
		}
		check(t, newPair(t, make([]byte, 32)), make([]byte, 12), make([]byte, 1420), 0, 0)
		return
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, feature := range required(t) {
		child := exec.Command(program, "-test.run=^TestFeatures$", "-test.count=1")
		child.Env = append(os.Environ(), "GODEBUG=cpu."+strings.ToLower(feature)+"=off", "GORACE=atexit_sleep_ms=0")
		if out, err := child.CombinedOutput(); err != nil || strings.Contains(string(out), "sys/cpu") {
			t.Errorf("without %s: %v\n%s", feature, err, out)
		}
	}
}

// required are the features in the comments before the functions, and AVX512, which
// stands for all that begin so. CMOV every such processor has.
func required(t *testing.T) []string {
	t.Helper()
	assembly, err := os.ReadFile("aead_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	features := []string{"AVX512"}
	for _, line := range regexp.MustCompile(`(?m)^// Requires: (.*)$`).FindAllStringSubmatch(string(assembly), -1) {
		for feature := range strings.SplitSeq(line[1], ", ") {
			if feature != "CMOV" {
				features = append(features, feature)
			}
		}
	}
	if len(features) < 10 {
		t.Fatalf("found only %q", features)
	}
	slices.Sort(features)
	return slices.Compact(features)
}
