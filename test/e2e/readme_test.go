package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	readmeExample = regexp.MustCompile(`(?m)^    \$ (.*)$`)
	manExample    = regexp.MustCompile(`(?m)^  ((?:eval .*)?wireguard4netns .*)$`)
)

// Each example in the README and in the help of each command is run as it
// stands. The programs that they name and a test machine has not (a browser,
// curl, podman) are stand-ins that succeed; the tunnel is real.
func TestExamples(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := readmeExample.FindAllStringSubmatch(string(readme), -1)
	if len(examples) < 6 {
		t.Fatalf("found %d examples in the README: has its layout changed?", len(examples))
	}
	w := newWorld(t)
	for _, command := range []string{"run", "up", "exec", "env", "reload", "list", "status", "monitor", "show", "showconf", "set", "setconf", "addconf", "syncconf", "logs", "down", "attach", "doctor", "demo"} {
		help := output(t, w.tool(command, "--help"))
		found := manExample.FindAllStringSubmatch(exampleSection(help), -1)
		if len(found) == 0 {
			t.Errorf("%s --help has no example", command)
		}
		examples = append(examples, found...)
	}
	home := exampleHome(t, w)
	for _, e := range examples {
		line := e[1]
		if strings.Contains(line, "--ready-fd") || strings.Contains(line, " 4711 ") {
			continue // descriptors and PIDs of the reader's own: TestAttach… has them
		}
		line, _, _ = strings.Cut(line, "   #")
		t.Run(line, func(t *testing.T) {
			cmd := w.user.commandIn(home, "sh", "-c", line)
			cmd.Env = append(cmd.Env, "HOME="+home, "SHELL=/bin/true", "PATH="+home+"/bin:"+os.Getenv("PATH"))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		})
	}
}

func exampleSection(help string) string {
	_, rest, _ := strings.Cut(help, "Examples:\n")
	section, _, _ := strings.Cut(rest, "\nFlags:")
	return section
}

// exampleHome is a home directory in which the examples find what they name.
func exampleHome(t *testing.T, w *world) string {
	t.Helper()
	home := t.TempDir()
	write := func(name, content string, mode os.FileMode) {
		path := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	conf, err := os.ReadFile(w.account(t, "DNS = 10.77.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"Downloads/provider.conf", "provider.conf", "wg0.conf",
		".config/wireguard4netns/home.conf", ".config/wireguard4netns/provider.conf",
	} {
		write(name, string(conf), 0o600)
	}
	for _, name := range []string{"curl", "firefox", "ssh", "bash"} {
		write("bin/"+name, "#!/bin/sh\nexit 0\n", 0o755)
	}
	var pids strings.Builder // of containers, one for each example that asks
	for range 3 {
		fmt.Fprintln(&pids, hold(t, w.user.command("unshare", "-Urn", "sh", "-c", "echo $$; read -r _")))
	}
	write("pids", pids.String(), 0o644)
	write("bin/podman", "#!/bin/sh\n[ \"$1\" = inspect ] || exit 0\nhead -n 1 ~/pids\nsed -i 1d ~/pids\n", 0o755)
	if err := os.Symlink(w.program, filepath.Join(home, "bin/wireguard4netns")); err != nil {
		t.Fatal(err)
	}
	return home
}

func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, stderr.Bytes())
	}
	return string(out)
}
