package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The pages in the repository are those that the program's help makes.
func TestPagesAreCurrent(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("go", "run", ".", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	fresh, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(fresh) == 0 {
		t.Fatalf("no page was made: %v", err)
	}
	kept, err := filepath.Glob("*.1")
	if err != nil || len(kept) != len(fresh) {
		t.Errorf("%d pages are kept, %d were made: run make docs", len(kept), len(fresh))
	}
	for _, page := range fresh {
		want, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Base(page)); err != nil || string(got) != string(want) {
			t.Errorf("%s is not what --help says: run make docs", filepath.Base(page))
		}
	}
}
