package supervisor

import (
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for name, test := range map[string]struct {
		peers []PeerStatus
		want  string
	}{
		"no peer":         {nil, "idle"},
		"silent":          {[]PeerStatus{{}}, "idle"},
		"nobody answers":  {[]PeerStatus{{TxBytes: 148}}, "no-handshake"},
		"answered":        {[]PeerStatus{{TxBytes: 148, LastHandshake: ago(time.Second)}}, "up"},
		"quiet":           {[]PeerStatus{{TxBytes: 148, LastHandshake: ago(time.Hour)}}, "up"},
		"one of two does": {[]PeerStatus{{TxBytes: 148}, {LastHandshake: ago(time.Second)}}, "up"},
	} {
		state, cause := judge(test.peers, now)
		if state != test.want {
			t.Errorf("%s: got %s (%s), want %s", name, state, cause, test.want)
		}
		if (cause == "") != (name == "answered" || name == "one of two does") {
			t.Errorf("%s: cause %q", name, cause)
		}
	}
}
