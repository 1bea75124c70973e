package native

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"wireguard4netns/internal/uapi"
)

// idleEngine has no descriptors: it is never up.
func idleEngine() *engine {
	e := &engine{wire: &socket{fd: -1}}
	e.device = newDevice(e.wire, Options{MTU: 1420})
	return e
}

func (e *engine) forget() {
	for _, p := range e.device.all() {
		e.device.remove(p)
	}
}

// FuzzUAPI: what is applied is described such that it can be read, and applied
// again with the same result.
func FuzzUAPI(f *testing.F) {
	key := strings.Repeat("77", 32)
	f.Add([]byte("private_key=" + key + "\nlisten_port=7\nfwmark=0\nreplace_peers=true\n"))
	f.Add([]byte("public_key=" + key + "\npreshared_key=" + key + "\nendpoint=[fd00::1]:5\nallowed_ip=10.0.0.0/8\nallowed_ip=fd00::/8\npersistent_keepalive_interval=25\n"))
	f.Add([]byte("public_key=" + key + "\nallowed_ip=0.0.0.0/0\nallowed_ip=-0.0.0.0/0\nallowed_ip=10.1.2.3/8\npublic_key=" + strings.Repeat("78", 32) + "\nallowed_ip=10.0.0.0/8\n"))
	f.Add([]byte("public_key=" + key + "\nupdate_only=true\nallowed_ip=10.0.0.0/8\npublic_key=" + key + "\nremove=true\n"))
	f.Add([]byte("public_key=" + key + "\nreplace_allowed_ips=true\nprotocol_version=1\nendpoint=127.0.0.1:1\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		if uapi.CheckSet(bytes.NewReader(body)) != nil {
			return
		}
		first, second := idleEngine(), idleEngine()
		defer first.forget()
		defer second.forget()
		_ = first.apply(body)
		text := first.describe()
		d, err := uapi.Parse(bytes.NewReader(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		restore := d.Restore().Body()
		if err := uapi.CheckSet(bytes.NewReader(restore)); err != nil {
			t.Fatalf("%v\n%s", err, restore)
		}
		if err := second.apply(restore); err != nil {
			t.Fatalf("%v\n%s", err, restore)
		}
		if a, b := sorted(text), sorted(second.describe()); !slices.Equal(a, b) {
			t.Errorf("described:\n%s\nafter it was applied:\n%s", text, b)
		}
	})
}

func sorted(text []byte) []string {
	lines := strings.Split(string(text), "\n")
	slices.Sort(lines)
	return lines
}
