package native

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	wggo "golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"

	"wireguard4netns/internal/uapi"
)

func newUnstarted() *engine {
	e := &engine{wire: &socket{fd: -1}}
	e.device = newDevice(e.wire, Options{MTU: 1420})
	return e
}

func (e *engine) parsed(t *testing.T) uapi.Device {
	t.Helper()
	d, err := uapi.Parse(bytes.NewReader(e.describe()))
	if err != nil {
		t.Fatalf("%v in\n%s", err, e.describe())
	}
	return d
}

// randomUpdate is a request of a few lines over few peers and addresses, so that
// they meet.
func randomUpdate(r *rand.Rand) []byte {
	var b bytes.Buffer
	one := func(choices ...string) string { return choices[r.IntN(len(choices))] }
	key := func() string { return strings.Repeat(one("01", "02", "03", "a4"), keySize) }
	if r.IntN(4) == 0 {
		fmt.Fprintf(&b, "private_key=%s\n", one(strings.Repeat("00", keySize), strings.Repeat("11", keySize), strings.Repeat("22", keySize)))
	}
	if r.IntN(8) == 0 {
		b.WriteString("replace_peers=true\n")
	}
	for range r.IntN(4) {
		public := key()
		if r.IntN(8) == 0 {
			public = fmt.Sprintf("%x", identityOf(0x11).public[:]) // perhaps our own
		}
		fmt.Fprintf(&b, "public_key=%s\n", public)
		for range r.IntN(6) {
			b.WriteString(one(
				"update_only=true\n",
				"remove=true\n",
				"preshared_key="+key()+"\n",
				"endpoint=192.0.2.1:7\n",
				"endpoint=[2001:db8::7]:65535\n",
				"persistent_keepalive_interval="+one("0", "25", "65535")+"\n",
				"replace_allowed_ips=true\n",
				"allowed_ip="+one("", "-")+one("10.0.0.0/8", "10.1.2.3/16", "0.0.0.0/0", "::/0", "fd00::1/64", "10.0.0.1/32")+"\n",
				"allowed_ip="+one("10.0.0.0/8", "10.1.0.0/16", "fd00::/64", "10.0.0.1/32")+"\n",
				"protocol_version=1\n",
			))
		}
	}
	return b.Bytes()
}

// After any requests, we say of ourselves what upstream says.
func TestRequestsDoWhatUpstreamDoes(t *testing.T) {
	t.Parallel()
	stopped, stop := context.WithCancel(t.Context())
	stop()
	socket := newNode(stopped, make(map[netip.AddrPort]*node), 9)
	options := cmp.Options{
		cmpopts.IgnoreFields(uapi.Device{}, "ListenPort"), cmpopts.IgnoreFields(uapi.Peer{}, "TxBytes"),
		cmpopts.EquateComparable(netip.AddrPort{}, netip.Prefix{}, uapi.Secret{}), cmpopts.EquateEmpty(),
		cmpopts.SortSlices(func(a, b netip.Prefix) bool { return a.String() < b.String() }),
		cmpopts.SortSlices(func(a, b uapi.Peer) bool { return a.PublicKey.String() < b.PublicKey.String() }),
	}
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 0))
		ours := newUnstarted()
		upstream := wggo.NewDevice(tuntest.NewChannelTUN().TUN(), &memoryBind{node: socket}, wggo.NewLogger(wggo.LogLevelSilent, ""))
		var history []string
		for range 20 {
			body := randomUpdate(r)
			history = append(history, string(body))
			if err := uapi.CheckSet(bytes.NewReader(body)); err != nil {
				t.Fatal(err)
			}
			if ourErr, itsErr := ours.apply(body), upstream.IpcSet(string(body)); ourErr != nil || itsErr != nil {
				t.Fatalf("%v, upstream %v, after\n%s", ourErr, itsErr, body)
			}
			text, err := upstream.IpcGet()
			if err != nil {
				t.Fatal(err)
			}
			want, err := uapi.Parse(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, ours.parsed(t), options); diff != "" {
				t.Fatalf("%s\nafter\n%s", diff, strings.Join(slices.Compact(history), "---\n"))
			}
		}
		upstream.Close()
	}
}

func TestEndpointsOfLinks(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"192.0.2.7:9":              "192.0.2.7:9",
		"[::ffff:192.0.2.7]:9":     "192.0.2.7:9",
		"[2001:db8::1]:51820":      "[2001:db8::1]:51820",
		"[fe80::1%7]:1":            "[fe80::1%7]:1",
		"[fe80::1%lo]:1":           "[fe80::1%1]:1",
		"[fe80::1%no-such-link]:1": "",
	} {
		e, err := endpointOf(netip.MustParseAddrPort(text))
		if want == "" {
			if !errors.Is(err, syscall.EINVAL) {
				t.Errorf("%s: %v, want EINVAL", text, err)
			}
			continue
		}
		if err != nil || e.addrPort().String() != want {
			t.Errorf("%s: %v, %v, want %s", text, e.addrPort(), err, want)
		}
	}
}
