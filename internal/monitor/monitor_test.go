package monitor

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"wireguard4netns"
)

var update = flag.Bool("update", false, "write the golden files anew")

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const mebi = 1 << 20

// home is a tunnel with two peers, as status --json tells it.
func home(t testing.TB, rx, tx uint64) *wireguard4netns.Status {
	t.Helper()
	var s wireguard4netns.Status
	err := json.Unmarshal(fmt.Appendf(nil, `{
		"name": "home", "interface": "wg0", "state": "up", "since": "2026-03-01T09:30:00Z",
		"supervisorPid": 4000, "enginePid": 4001, "engineRestarts": 2, "mtu": 1420, "mtuSource": "the route to the endpoint",
		"addresses": ["10.77.0.2/32", "fd77::2/128"], "dns": ["10.77.0.1"], "search": ["example.com"],
		"peers": [
			{"name": "Zürich 東京", "publicKey": "oZ6zqYyHn4bqzQ0eR1d2n3m4v5b6c7x8y9a0bcdefgU=", "endpoint": "203.0.113.7:51820",
			 "configured": "vpn.example.com:51820", "lastHandshake": "2026-03-01T11:59:30Z", "rxBytes": %d, "txBytes": %d},
			{"publicKey": "qL7zqYyHn4bqzQ0eR1d2n3m4v5b6c7x8y9a0bcdefgU=", "endpoint": "[2001:db8:1234:5678:9abc:def0:1234:5678]:51820"}],
		"processes": [4711, 4712, 12345]}`, rx, tx), &s)
	if err != nil {
		t.Fatal(err)
	}
	return &s
}

var commands = map[int]string{4711: "firefox", 4712: "Web Content", 12345: "sh"}

// busy is a model that has seen a minute of traffic in the first of three tunnels.
func busy(t testing.TB) *Model {
	t.Helper()
	m := new(Model)
	var rx, tx uint64
	for i := range 70 {
		if i%30 < 20 {
			rx += uint64(i%30) * mebi
			tx += 1500
		}
		at := noon.Add(time.Duration(i-69) * time.Second)
		m.Add(Sample{At: at, Names: []string{"home", "lab", "office"}, Tunnels: []Tunnel{{Status: home(t, rx, tx), At: at, Commands: commands}}})
	}
	return m
}

func TestView(t *testing.T) {
	crowd := busy(t)
	s := home(t, 0, 0)
	for range 40 {
		s.Peers = append(s.Peers, s.Peers[0])
	}
	for pid := range 100 {
		s.Processes = append(s.Processes, 20000+pid)
	}
	s.State, s.Cause = "no-handshake", "nobody has answered for 42 s"
	crowd.Add(Sample{At: noon, Names: []string{"home"}, Tunnels: []Tunnel{{Status: s, At: noon, Commands: commands}}})
	gone := busy(t)
	gone.Add(Sample{At: noon, Names: []string{"lab"}})
	help := busy(t)
	help.Press(Help)
	empty := new(Model)
	empty.Add(Sample{At: noon})
	for _, test := range []struct {
		name  string
		model *Model
		size  Size
		style Style
	}{
		{"80x24", busy(t), Size{80, 24}, Style{Color: true}},
		{"80x24-no-color", busy(t), Size{80, 24}, Style{}},
		{"80x24-ascii", busy(t), Size{80, 24}, Style{ASCII: true}},
		{"20x5", busy(t), Size{20, 5}, Style{}},
		{"200x60", busy(t), Size{200, 60}, Style{}},
		{"crowd", crowd, Size{80, 24}, Style{}},
		{"gone", gone, Size{60, 6}, Style{}},
		{"help", help, Size{80, 12}, Style{}},
		{"empty", empty, Size{80, 4}, Style{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			golden(t, test.name, strings.Join(test.model.View(test.size, test.style), "\n")+"\n")
		})
	}
	var b bytes.Buffer
	if err := busy(t).Table(&b, Style{}); err != nil {
		t.Fatal(err)
	}
	golden(t, "once", b.String())
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("-want +got (-update writes it anew):\n%s", diff)
	}
}

// No size makes a line wrap, the screen scroll or the program panic.
func TestEverySizeFits(t *testing.T) {
	sgr := regexp.MustCompile("\x1b\\[[0-9;]*m")
	m := busy(t)
	for _, style := range []Style{{}, {ASCII: true}, {Color: true}} {
		for columns := range 201 {
			for _, rows := range []int{0, 1, 2, 3, 4, 5, 6, 9, 10, 11, 15, 16, 17, 23, 24, 25, 60} {
				lines := m.View(Size{columns, rows}, style)
				if len(lines) > rows {
					t.Fatalf("%d lines in %d rows", len(lines), rows)
				}
				for _, line := range lines {
					text := sgr.ReplaceAllString(line, "")
					if textCells(text) > columns || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == utf8.RuneError }) {
						t.Fatalf("%d×%d: %q", columns, rows, line)
					}
					if style.ASCII && strings.ContainsFunc(text, func(r rune) bool { return r > '~' }) {
						t.Fatalf("not ASCII: %q", line)
					}
				}
			}
		}
	}
}

func TestTextFromOutsideIsHarmless(t *testing.T) {
	evil := "\x1b]0;x\x07\u009b2J\u202e\r\nrow\xff\u2028"
	s := home(t, 1, 1)
	s.Peers[0].Name, s.Cause, s.Peers[1].Configured = evil, evil, evil
	s.Search = []string{evil}
	m := new(Model)
	m.Choose(evil)
	m.Add(Sample{At: noon, Names: []string{"home"}})
	all := m.View(Size{80, 24}, Style{})
	m.Choose("home")
	m.Add(Sample{At: noon, Names: []string{"home"}, Tunnels: []Tunnel{{Status: s, At: noon, Commands: map[int]string{4711: evil}}}})
	for _, size := range []Size{{80, 24}, {200, 60}} {
		all = append(all, m.View(size, Style{})...)
	}
	var b bytes.Buffer
	if err := m.Table(&b, Style{}); err != nil {
		t.Fatal(err)
	}
	all = append(all, strings.Split(b.String(), "\n")...)
	found := 0
	for _, line := range all {
		if strings.ContainsAny(line, "\x1b\x07\u009b\u202e\r\n\u2028") || !utf8.ValidString(line) {
			t.Errorf("%q", line)
		}
		found += strings.Count(line, "?]0;x??2J???row")
	}
	if found < 8 {
		t.Errorf("the harmless rest is shown %d times", found)
	}
}

func TestRates(t *testing.T) {
	m := new(Model)
	at := noon
	step := func(after time.Duration, change func(s *wireguard4netns.Status)) rates {
		at = at.Add(after)
		s := home(t, 0, 0)
		change(s)
		m.Add(Sample{At: at, Names: []string{"home"}, Tunnels: []Tunnel{{Status: s, At: at}}})
		return m.tunnels["home"].total
	}
	count := func(rx, tx uint64) func(*wireguard4netns.Status) {
		return func(s *wireguard4netns.Status) { s.Peers[0].RxBytes, s.Peers[0].TxBytes = rx, tx }
	}
	restarting := func(s *wireguard4netns.Status) { s.Peers, s.EnginePID = nil, 0 }
	for i, test := range []struct {
		after  time.Duration
		change func(*wireguard4netns.Status)
		want   rates
	}{
		{0, count(1000*mebi, 10), rates{unknown, unknown}},
		{time.Second, count(1001*mebi, 10), rates{mebi, 0}},
		{2 * time.Second, count(1005*mebi, 30), rates{2 * mebi, 10}},
		{time.Second, restarting, rates{}},
		{time.Second, count(500, 40), rates{250, 5}}, // since before the restart
		{time.Second, count(900, 40), rates{400, 0}},
		{time.Second, func(s *wireguard4netns.Status) { // another peer is added
			count(900, 40)(s)
			s.Peers[1].PublicKey, s.Peers[1].RxBytes = "new", 1<<40
		}, rates{}},
	} {
		if got := step(test.after, test.change); got != test.want {
			t.Errorf("sample %d: %v, want %v", i, got, test.want)
		}
	}
	// The same answer again is none.
	m.Add(Sample{At: at.Add(time.Second), Names: []string{"home"}, Tunnels: []Tunnel{{Status: home(t, 1, 1), At: at}}})
	if got := m.tunnels["home"].total; got != (rates{unknown, unknown}) {
		t.Errorf("without an answer: %v", got)
	}
	if got := step(2*time.Second, count(900, 640)); got != (rates{0, 300}) {
		t.Errorf("after two seconds without an answer: %v", got)
	}
	for range 2 * window {
		step(time.Second, count(900, 640))
	}
	if n := len(m.tunnels["home"].last); n != window {
		t.Errorf("%d samples are kept", n)
	}
}

func TestKeys(t *testing.T) {
	for input, want := range map[string][]Key{
		"q": {Quit}, "Q": {Quit}, "\x03": {Quit}, "\x1b\x1b": {Quit}, "?": {Help}, "\t": {Next},
		"\x1b[C\x1bOC": {Next, Next}, "\x1b[D\x1bOD\x1b[Z": {Previous, Previous, Previous},
		"19": {Nth, Nth + 8}, "0": {Other}, "\x1a": {Suspend}, "\x0c": {Redraw},
		"\x1b[1;5Cq": {Other, Quit}, "\x1b[A": {Other}, "\x1bq": {Other}, "é": {Other, Other},
		"\x1b": nil, "\x1b[": nil, "\x1bO": nil, "\x1b[1;5": nil, "": nil, "q\x1b[": {Quit},
	} {
		var got []Key
		for b := []byte(input); ; {
			k, used := ReadKey(b)
			if used == 0 {
				break
			}
			got, b = append(got, k), b[used:]
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", input, got, want)
		}
	}
}

func TestChoosing(t *testing.T) {
	m := new(Model)
	m.Press(Next)
	m.Press(Nth)
	m.Add(Sample{At: noon})
	if got := m.Chosen(); got != "" {
		t.Fatalf("chosen of none: %q", got)
	}
	m.Add(Sample{At: noon, Names: []string{"a", "c", "e"}})
	for i, test := range []struct {
		key   Key
		names []string
		want  string
	}{
		{Other, []string{"a", "c", "e"}, "a"},
		{Next, []string{"a", "c", "e"}, "c"},
		{Nth + 2, []string{"a", "c", "e"}, "e"},
		{Nth + 3, []string{"a", "c", "e"}, "e"},
		{Next, []string{"a", "c", "e"}, "a"},
		{Previous, []string{"a", "c", "e"}, "e"},
		{Previous, []string{"a", "e"}, "c"}, // and it goes away
		{Other, []string{"a", "e"}, "c"},
		{Next, []string{"a", "c", "e"}, "e"}, // and it comes back
		{Previous, []string{"a", "c"}, "c"},
		{Next, nil, "a"},
		{Previous, nil, "a"},
	} {
		m.Press(test.key)
		m.Add(Sample{At: noon, Names: test.names})
		if m.Chosen() != test.want {
			t.Fatalf("step %d: %q, want %q", i, m.Chosen(), test.want)
		}
	}
}

// The chosen tunnel's name is on the screen, however many there are.
func TestTitleOfMany(t *testing.T) {
	m := new(Model)
	var names []string
	for i := range 200 {
		names = append(names, fmt.Sprintf("tunnel-%03d", i))
	}
	m.Add(Sample{At: noon, Names: names})
	for range names {
		m.Press(Next)
		if title := m.View(Size{40, 3}, Style{})[0]; !strings.Contains(title, m.Chosen()+"]") {
			t.Fatalf("%q without %s", title, m.Chosen())
		}
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[float64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.00 KiB", 10234: "9.99 KiB", 10240: "10.0 KiB", 102400: "100 KiB",
		1023 * 1024: "1023 KiB", 1024*1024 - 1: "1.00 MiB", 3.5 * mebi: "3.50 MiB", 1 << 63: "8.00 EiB",
	} {
		if got := bytesText(n); got != want || len(got) > 8 {
			t.Errorf("%f: %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m1s", 3599 * time.Second: "59m59s",
		25 * time.Hour: "1d1h", 364*24*time.Hour + 23*time.Hour: "364d23h",
	} {
		if got := ageText(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
