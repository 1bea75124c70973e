package wireguard4netns_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The rules of docs/ARCHITECTURE.md, "Packages": who may import whom, and which
// things have one place only. They hold for the program, not for its tests.

const module = "wireguard4netns"

// only says which packages may import something; "" is the root package.
var only = map[string][]string{
	"unsafe":                               {"internal/sys"},
	"C":                                    {},
	"golang.zx2c4.com/wireguard/device":    {"internal/engine/wggo"},
	"golang.zx2c4.com/wireguard/tun":       {"internal/engine/wggo"},
	"golang.zx2c4.com/wireguard/conn":      {"internal/engine/wggo"},
	"github.com/spf13/cobra":               {"internal/cli"},
	"github.com/elastic/go-seccomp-bpf":    {"internal/sandbox"},
	module + "/internal/cli":               {"cmd/wireguard4netns"},
	module + "/internal/supervisor":        {"", "internal/waiter", "internal/cli"},
	module + "/internal/tunnel":            {"", "internal/supervisor", "internal/cli"},
	module + "/internal/engine/enginetest": {}, // for tests
}

// imports says what of ours a package may import; one not named here may import
// what only does not forbid.
var imports = map[string][]string{
	"conf":                   {},
	"internal/sys":           {},
	"internal/dns":           {},
	"internal/link":          {},
	"internal/state":         {},
	"internal/savefile":      {},
	"internal/uapi":          {"conf", "internal/unixsocket"},
	"internal/metrics":       {"internal/unixsocket"},
	"internal/service":       {},
	"internal/wg":            {"conf", "internal/uapi"},
	"internal/sandbox":       {"internal/sys"},
	"internal/ns":            {"internal/sys", "internal/ns/inside"},
	"internal/engine":        {"internal/uapi", "internal/sandbox", "internal/sys", "internal/engine/wggo", "internal/engine/native"},
	"internal/aead":          {},
	"internal/engine/native": {"internal/uapi", "internal/sys", "internal/aead"},
	"internal/watch":         {"conf", "internal/host", "internal/plan", "internal/uapi"},
	"internal/plan":          {"conf", "internal/dns", "internal/link", "internal/ns/inside", "internal/uapi"},
}

// pure packages do nothing to the machine.
var pure = map[string][]string{
	"conf":          {"os", "os/exec", "golang.org/x/sys/unix", "syscall"},
	"internal/dns":  {"os", "net", "os/exec", "golang.org/x/sys/unix", "syscall"},
	"internal/wg":   {"os", "net", "os/exec", "golang.org/x/sys/unix", "syscall"},
	"internal/plan": {"os", "net", "os/exec", "golang.org/x/sys/unix", "syscall", "time/tzdata"},
}

// process are names that only the outermost packages use: what lies below is
// told.
var process = map[string][]string{
	"os.Exit": {"cmd/wireguard4netns"}, "os.Stdout": {"cmd/wireguard4netns", "internal/cli"},
	"os.Stderr": {"cmd/wireguard4netns", "internal/cli"}, "os.Stdin": {"cmd/wireguard4netns", "internal/cli"},
	"os.Args": {"cmd/wireguard4netns"}, "os.Getenv": {}, "os.LookupEnv": {}, "os.Environ": {"cmd/wireguard4netns", "internal/waiter"},
	"syscall.RawSyscall": {"internal/sys"}, "syscall.RawSyscall6": {"internal/sys"},
	"unix.Syscall": {"internal/sys"}, "unix.RawSyscall": {"internal/sys"},
	"exec.LookPath": {},
}

// assembly is what may have some.
var assembly = []string{"internal/sys", "internal/aead"}

var badNames = []string{"util", "utils", "common", "helper", "helpers", "types", "misc", "base", "core", "manager", "pkg"}

func TestStructure(t *testing.T) {
	files := token.NewFileSet()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && name != "." || name == "test" || name == "docs" || name == "internal/nstest" {
				return filepath.SkipDir
			}
			if slices.Contains(badNames, d.Name()) {
				t.Errorf("%s: the name says nothing", name)
			}
			return nil
		}
		if strings.HasSuffix(name, ".s") && !slices.Contains(assembly, filepath.ToSlash(filepath.Dir(name))) {
			t.Errorf("%s: assembly is for %q alone", name, assembly)
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(files, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		checkFile(t, files, strings.TrimPrefix(path.Dir(filepath.ToSlash(name)), "."), f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checkFile(t *testing.T, files *token.FileSet, dir string, f *ast.File) {
	for _, spec := range f.Imports {
		name, _ := strconv.Unquote(spec.Path.Value)
		at := files.Position(spec.Pos())
		if allowed, ok := only[name]; ok && !slices.Contains(allowed, dir) {
			t.Errorf("%s: %q is for %q alone", at, name, allowed)
		}
		if slices.Contains(pure[dir], name) {
			t.Errorf("%s: a pure package imports %q", at, name)
		}
		ours, ok := strings.CutPrefix(name, module+"/")
		if allowed, known := imports[dir]; ok && known && !slices.Contains(allowed, ours) {
			t.Errorf("%s: %s imports %s", at, dir, ours)
		}
		if ok && ours == "internal/nstest" {
			t.Errorf("%s: test help in the program", at)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := s.X.(*ast.Ident)
		if !ok {
			return true
		}
		full := x.Name + "." + s.Sel.Name
		if allowed, ok := process[full]; ok && !slices.Contains(allowed, dir) {
			t.Errorf("%s: %s is for %q alone", files.Position(s.Pos()), full, allowed)
		}
		return true
	})
}
