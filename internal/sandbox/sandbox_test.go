package sandbox

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestDegrade(t *testing.T) {
	t.Parallel()
	missing := Missing{Seccomp: errors.New("no such call"), Namespaces: os.ErrPermission}
	for _, c := range []struct {
		level   Level
		missing Missing
		notes   []string
		fails   bool
	}{
		{Auto, nil, nil, false},
		{Strict, nil, nil, false},
		{None, missing, nil, false},
		{Auto, missing, []string{
			"sandbox: without namespaces: permission denied",
			"sandbox: without seccomp: no such call",
		}, false},
		{Strict, missing, nil, true},
	} {
		notes, err := Degrade(c.level, c.missing)
		if !slices.Equal(notes, c.notes) || (err != nil) != c.fails {
			t.Errorf("%v, %v: %q, %v", c.level, c.missing, notes, err)
		}
	}
	if _, err := Degrade(Strict, missing); !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "seccomp: no such call") {
		t.Errorf("error %v does not name each layer", err)
	}
}

func TestLevelIsItsName(t *testing.T) {
	t.Parallel()
	for _, level := range []Level{Auto, Strict, None} {
		text, _ := level.MarshalText()
		got := Level(-1)
		if err := got.UnmarshalText(text); err != nil || got != level {
			t.Errorf("%v: %v, %v", level, got, err)
		}
	}
	if err := new(Level).UnmarshalText([]byte("some")); err == nil {
		t.Error("a level of another name")
	}
}
