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
		peers      []PeerStatus
		unresolved []string
		want       string
	}{
		"no peer":         {nil, nil, "idle"},
		"silent":          {[]PeerStatus{{}}, nil, "idle"},
		"nobody answers":  {[]PeerStatus{{TxBytes: 148}}, nil, "no-handshake"},
		"answered":        {[]PeerStatus{{TxBytes: 148, LastHandshake: ago(time.Second)}}, nil, "up"},
		"quiet":           {[]PeerStatus{{TxBytes: 148, LastHandshake: ago(time.Hour)}}, nil, "up"},
		"one of two does": {[]PeerStatus{{TxBytes: 148}, {LastHandshake: ago(time.Second)}}, nil, "up"},
		"a name":          {[]PeerStatus{{}}, []string{"vpn.example:51820"}, "endpoint-unresolved"},
	} {
		s := Status{Peers: test.peers}
		s.judge(test.unresolved, ago(time.Minute), now)
		if s.State != test.want {
			t.Errorf("%s: got %s (%s), want %s", name, s.State, s.Cause, test.want)
		}
		if (s.Cause == "") != (name == "answered" || name == "one of two does") {
			t.Errorf("%s: cause %q", name, s.Cause)
		}
	}
}
