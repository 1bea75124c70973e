package dns

import (
	"bufio"
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// directives returns the lines of a resolv.conf that a resolver obeys.
func directives(text []byte) []string {
	var lines []string
	for scan := bufio.NewScanner(bytes.NewReader(text)); scan.Scan(); {
		if line := scan.Text(); line != "" && line[0] != '#' && line[0] != ';' {
			lines = append(lines, line)
		}
	}
	return lines
}

func addrs(texts ...string) []netip.Addr {
	var servers []netip.Addr
	for _, text := range texts {
		servers = append(servers, netip.MustParseAddr(text))
	}
	return servers
}

func TestResolvConf(t *testing.T) {
	for _, test := range []struct {
		name    string
		servers []netip.Addr
		search  []string
		want    []string
		warns   []string // what the warnings contain, in their order
	}{
		{"none", nil, nil,
			[]string{"nameserver 127.0.0.1", "options attempts:1 timeout:1", "search ."}, []string{"lookups inside fail"}},
		{"search only", nil, []string{"example.org"},
			[]string{"nameserver 127.0.0.1", "options attempts:1 timeout:1", "search example.org"}, []string{"lookups inside fail"}},
		{"both families", addrs("10.0.0.1", "fd00::1", "::ffff:10.0.0.2"), []string{"a.example", "b"},
			[]string{"nameserver 10.0.0.1", "nameserver fd00::1", "nameserver 10.0.0.2", "search a.example b"}, nil},
		{"four servers", addrs("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"), nil,
			[]string{"nameserver 10.0.0.1", "nameserver 10.0.0.2", "nameserver 10.0.0.3", "nameserver 10.0.0.4", "search ."},
			[]string{"4 DNS servers: glibc asks the first 3"}},
		{"seven domains", addrs("10.0.0.1"), strings.Fields("a b c d e f g"),
			[]string{"nameserver 10.0.0.1", "search a b c d e f g"}, []string{"7 search domains"}},
		{"what is no domain", addrs("10.0.0.1"), []string{"x\nnameserver 192.0.2.1", "", "a b", "ok.example", "#"},
			[]string{"nameserver 10.0.0.1", "search ok.example"},
			[]string{`"x\nnameserver 192.0.2.1" is not a domain`, `"" is not`, `"a b" is not`, `"#" is not`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := directives(ResolvConf(test.servers, test.search)); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
			got := Warnings(test.servers, test.search)
			if !slices.EqualFunc(got, test.warns, strings.Contains) {
				t.Errorf("warnings: got %q, want %q", got, test.warns)
			}
		})
	}
}
