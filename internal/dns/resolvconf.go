// Package dns decides what name resolution looks like inside a tunnel: the
// text of resolv.conf and nsswitch.conf, and the list of the host's doors to a
// resolver that are closed. It is pure: it opens nothing and mounts nothing.
package dns

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
)

// The limits of glibc's resolver, resolv.conf(5): MAXNS, and what searched
// before version 2.26. Others (musl, Go, c-ares) have the same or none.
const (
	maxServers     = 3
	maxOldSearch   = 6
	maxOldSearchLn = 256
)

const resolvConfHead = "# Made by wireguard4netns for this namespace; the host's own file is untouched.\n"

const noServers = `# The tunnel has no DNS server (no "DNS =" line, no --dns), and the host's may
# not be asked from here. Nothing listens on this address, so that each lookup
# fails at once instead of waiting for an answer that cannot come.
nameserver 127.0.0.1
options attempts:1 timeout:1
`

// ResolvConf returns the resolv.conf(5) that asks servers, in their order, and
// searches the domains of search. Without servers its content makes lookups
// fail at once.
//
// With no search domain it says "search .": without the line glibc would
// search the domain of the host's own name, and tell it to the tunnel's server.
// A domain that Warnings reports as impossible is left out.
func ResolvConf(servers []netip.Addr, search []string) []byte {
	var b bytes.Buffer
	b.WriteString(resolvConfHead)
	if len(servers) == 0 {
		b.WriteString(noServers)
	}
	for _, server := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", server.Unmap())
	}
	domains := validDomains(search)
	if len(domains) == 0 {
		domains = []string{"."}
	}
	fmt.Fprintf(&b, "search %s\n", strings.Join(domains, " "))
	return b.Bytes()
}

// Warnings returns a line for each thing in servers and search that a resolver
// inside will not do as one may expect.
func Warnings(servers []netip.Addr, search []string) []string {
	var warnings []string
	if len(servers) == 0 {
		warnings = append(warnings, "no DNS server for the tunnel: lookups inside fail (add a DNS line to the file, or --dns)")
	}
	if len(servers) > maxServers {
		warnings = append(warnings, fmt.Sprintf("%d DNS servers: glibc asks the first %d only", len(servers), maxServers))
	}
	domains := validDomains(search)
	if len(domains) != len(search) {
		for _, domain := range search {
			if !validDomain(domain) {
				warnings = append(warnings, fmt.Sprintf("search domain %q is not a domain name: left out", domain))
			}
		}
	}
	if len(domains) > maxOldSearch || len(strings.Join(domains, " ")) > maxOldSearchLn {
		warnings = append(warnings, fmt.Sprintf("%d search domains: glibc before 2.26 uses the first %d, and %d letters, only",
			len(domains), maxOldSearch, maxOldSearchLn))
	}
	return warnings
}

func validDomains(search []string) []string {
	var domains []string
	for _, domain := range search {
		if validDomain(domain) {
			domains = append(domains, domain)
		}
	}
	return domains
}

// validDomain is about the file, not about DNS: no letter may end the word,
// the line, or start a comment or an option.
func validDomain(domain string) bool {
	if domain == "" {
		return false
	}
	for i := range len(domain) {
		c := domain[i]
		alnum := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alnum && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return true
}
