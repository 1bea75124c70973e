package dns

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestNsswitch(t *testing.T) {
	for _, test := range []struct{ name, host, want string }{
		{"missing", "", ""},
		{"Debian", "passwd: files systemd\n\nhosts:          files mdns4_minimal [NOTFOUND=return] dns\nnetworks: files\n",
			"passwd: files systemd\n\nnetworks: files\n"},
		{"Fedora", "hosts:      files myhostname resolve [!UNAVAIL=return] dns\n# hosts: kept\n", "# hosts: kept\n"},
		{"several", "hosts: files\npasswd: files\n  hosts: resolve\n", "passwd: files\n"},
		{"no newline at the end", "passwd: files\nhosts: resolve", "passwd: files\n"},
		{"other without newline", "hosts: resolve\npasswd: files", "passwd: files\n"},
		{"no colon", "hosts resolve\n", ""},
		{"blanks", "\t hosts \v: resolve\n", ""},
		{"case", "Hosts: resolve\n", ""},
		{"CRLF", "hosts: resolve\r\npasswd: files\r\n", "passwd: files\r\n"},
		{"continuation", "hosts: files \\\n  resolve\n", "  resolve\n"},
		{"similar names", "hostsx: a\nhost: b\nxhosts: c\n", "hostsx: a\nhost: b\nxhosts: c\n"},
		{"NEL of Latin-1", "\x85hosts: resolve\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, want := string(Nsswitch([]byte(test.host))), test.want+"hosts: files dns\n"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// glibcHosts reads nsswitch.conf as glibc's nss_database.c does, written anew
// from its grammar, and returns the sources of the hosts database and the lines
// that say something of others.
func glibcHosts(text []byte) (hosts []string, others []string) {
	const space = " \t\n\v\f\r"
	for _, line := range strings.SplitAfter(string(text), "\n") {
		whole := line
		if i := strings.IndexAny(line, "#\x00"); i >= 0 {
			line = line[:i]
		}
		line = strings.TrimLeft(line, space)
		end := strings.IndexAny(line, space+":")
		if end <= 0 {
			continue
		}
		if line[:end] != "hosts" {
			others = append(others, whole)
			continue
		}
		hosts = strings.Fields(strings.TrimLeft(line[end:], space+":"))
	}
	return hosts, others
}

func FuzzNsswitch(f *testing.F) {
	for _, seed := range []string{
		"", "hosts: resolve", "passwd: files\nhosts: files [!UNAVAIL=return] dns\n", "hosts resolve\x00", ":hosts: x\n",
		"\x00hosts: nis\n", "hosts#: x\n", "\xa0hosts:x\n", "hosts:\\\nhosts: x\\", "h\u200bosts: x",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, host []byte) {
		got := Nsswitch(host)
		hosts, others := glibcHosts(got)
		if !slices.Equal(hosts, []string{"files", "dns"}) {
			t.Fatalf("hosts come from %q in %q", hosts, got)
		}
		_, before := glibcHosts(append(slices.Clone(host), '\n'))
		// What a looser parser would take for a hosts line may be gone.
		before = slices.DeleteFunc(before, func(line string) bool { return isHostsLine([]byte(line)) })
		for i := range before {
			before[i] = strings.TrimSuffix(before[i], "\n")
		}
		for i := range others {
			others[i] = strings.TrimSuffix(others[i], "\n")
		}
		if !slices.Equal(before, others) {
			t.Fatalf("other lines: got %q, want %q", others, before)
		}
		if again := Nsswitch(got); !bytes.Equal(again, got) {
			t.Fatalf("not stable: %q becomes %q", got, again)
		}
	})
}

// The machine's own glibc is asked, of each line, whether it obeys it as a
// hosts line, and of each result, whether the hosts line is ours.
func TestNsswitchAgainstGlibc(t *testing.T) {
	lines := []string{
		"hosts: files", "hosts files", " hosts: files", "\thosts : files", "hosts:files", "hosts::files", "hosts :: files",
		"\v\fhosts:\r files", "hosts: files # dns", "hosts: files\r", "hosts:\tfiles [NOTFOUND=return]", "hosts: : files",
		"Hosts: files", "HOSTS: files", ":hosts: files", "#hosts: files", "hosts#: files", "host: files", "hostsx: files",
		"hosts", "hosts:", "hosts: \\\nfiles", "passwd: files \\\nhosts: files", "passwd: files\rhosts: files", "xhosts: files",
		"hosts: [SUCCESS=continue] files", "hosts\x00: files", "hosts: files\x00x", "\x00hosts: files", "\xa0hosts: files", "\xc2\xa0hosts: files",
	}
	// Only "files" can answer: there is no network.
	obeys := func(file string) string { return "hosts: dns\n" + file + "\n" }
	var files []string
	for _, line := range lines {
		files = append(files, obeys(line), string(Nsswitch([]byte(obeys(line)))), string(Nsswitch([]byte("hosts: dns\n"+line))))
	}
	found := askGlibc(t, files)
	obeyed := 0
	for i, line := range lines {
		asIs, ours := found[3*i], found[3*i+1] && found[3*i+2]
		if asIs {
			obeyed++
			if !slices.ContainsFunc(strings.SplitAfter(line, "\n"), func(l string) bool { return isHostsLine([]byte(l)) }) {
				t.Errorf("glibc obeys %q, and it is kept", line)
			}
		}
		if !ours {
			t.Errorf("glibc does not obey our line after %q", line)
		}
	}
	if obeyed == 0 || obeyed == len(lines) {
		t.Errorf("glibc obeys %d of %d lines: the question is not right", obeyed, len(lines))
	}
}

// askGlibc returns, for each of files as nsswitch.conf, whether getent(1)
// finds a name of /etc/hosts, in namespaces of its own.
func askGlibc(t *testing.T, files []string) []bool {
	t.Helper()
	dir := t.TempDir()
	const name = "oracle.example"
	script := "cd " + dir + "; printf '192.0.2.9 " + name + "\\n' > hosts; mount --bind hosts /etc/hosts\n" +
		"for nscd in /run/nscd /var/run/nscd; do test ! -d $nscd || mount -n -t tmpfs none $nscd; done\n"
	for i, file := range files {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, []byte(file), 0o644); err != nil {
			t.Fatal(err)
		}
		script += "mount -n --bind " + path + " /etc/nsswitch.conf; getent hosts " + name + " > /dev/null && echo yes || echo no; umount -n /etc/nsswitch.conf\n"
	}
	cmd := exec.Command("unshare", "--user", "--map-root-user", "--mount", "--net", "sh", "-ec", script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	answers := strings.Fields(string(out))
	if len(answers) != len(files) {
		t.Fatalf("%d answers for %d files:\n%s", len(answers), len(files), out)
	}
	var found []bool
	for _, answer := range answers {
		found = append(found, answer == "yes")
	}
	return found
}
