package conf

import (
	"regexp"
	"strconv"
	"strings"
)

// amneziaKey are the keys that AmneziaWG adds to [Interface].
var amneziaKey = regexp.MustCompile(`^(?i:J(c|min|max)|[SH][1-4]|I[1-5]|J[1-3]|Itime)$`)

// appKeys are written by WireGuard's Android app and read by it alone.
var appKeys = []string{"IncludedApplications", "ExcludedApplications"}

// unknown says what a key that the open section has not might be. It never
// repeats name unless that is nearly a known key: the rest of a broken key
// looks like a name too.
func (p *parser) unknown(name string) *Error {
	here, other := p.section, interfaceSection
	if here == interfaceSection {
		other = peerSection
	}
	if amneziaKey.MatchString(name) {
		return &Error{Key: name, Problem: name + " is a key of AmneziaWG: this is an AmneziaWG file",
			Hint: "its peer speaks another protocol; ask for a plain WireGuard file"}
	}
	for _, k := range other.keys {
		if strings.EqualFold(k.name, name) {
			return &Error{Key: k.name, Problem: k.name + " in " + here.title, Hint: "it belongs in " + other.title}
		}
	}
	for _, k := range appKeys {
		if strings.EqualFold(k, name) {
			return &Error{Key: k, Problem: k + " is a key of the WireGuard app for Android", Hint: "delete the line"}
		}
	}
	for _, s := range []*section{here, other} {
		near := nearest(name, s.names())
		if near == "" {
			continue
		}
		wrong := &Error{Key: near, Problem: "unknown key " + strconv.Quote(name) + " in " + here.title, Hint: `did you mean "` + near + `"?`}
		if s == other {
			wrong.Hint = `did you mean "` + near + `", which belongs in ` + other.title + "?"
		}
		return wrong
	}
	return fault("unknown key in "+here.title, "the keys of "+here.title+" are "+strings.Join(here.names(), ", "))
}

func (s *section) names() []string {
	names := make([]string, len(s.keys))
	for i, k := range s.keys {
		names[i] = k.name
	}
	return names
}
