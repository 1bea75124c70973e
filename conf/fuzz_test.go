package conf_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"wireguard4netns/conf"
)

// FuzzParse puts a key at some place of a text and demands: no panic, messages
// of one printable line without a part of the key, and of what is accepted the
// same Config again after Marshal.
func FuzzParse(f *testing.F) {
	for _, sample := range samples(f) {
		text := read(f, sample)
		f.Add(text, uint(0), uint(0))
		f.Add(text, uint(40), uint(len(secret)))
	}
	f.Fuzz(func(t *testing.T, text string, at, length uint) {
		key := secret[:length%uint(len(secret)+1)]
		i := at % uint(len(text)+1)
		c, warnings, err := parse(text[:i] + key + text[i:])

		said := []string{fmt.Sprint(err)}
		for _, w := range warnings {
			said = append(said, w.String())
		}
		for _, line := range said {
			unprintable := func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }
			if len(line) > 300 || strings.ContainsFunc(line, unprintable) {
				t.Errorf("not a short printable line: %q", line)
			}
			// The text may hold a part of the key by itself.
			if part := leaks(line, secret); part != "" && !strings.Contains(text, part) {
				t.Errorf("%q is in %s", part, line)
			}
		}
		if err != nil {
			return
		}
		data, err := c.Marshal()
		if err != nil {
			t.Fatalf("%v\n%+v", err, c)
		}
		again, warnings, err := parse(string(data))
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Errorf("%v\nfirst %+v\nagain %+v\n%s", err, c, again, data)
		}
		for _, w := range warnings {
			if w.Kind != conf.NoPeer {
				t.Errorf("what Marshal writes has a warning: %s", w)
			}
		}
	})
}
