package engine

import (
	"net/netip"
	"strconv"
	"testing"

	"wireguard4netns/internal/nstest"
	"wireguard4netns/internal/uapi"
)

// An outpost is a site whose engine is in a machine of its own, beside which the
// network of that machine is.
type outpost struct {
	*site
	outside *nstest.Host
	control *uapi.Conn
	said    *running // "trouble"
}

func newOutpost(t testing.TB, engine, addr string, outside *nstest.Host, mtu int) *outpost {
	t.Helper()
	o := &outpost{site: &site{host: nstest.NewHost(t), addr: netip.MustParseAddr(addr), key: openKey(t)}, outside: outside}
	tun := openTUN(t, o.host, "wg0")
	configureLink(t, o.site, mtu)
	role := (&site{host: outside}).role(t, "engine-suite-outpost", engine, strconv.Itoa(mtu), wgSocket)
	role.ExtraFiles = append(role.ExtraFiles, tun)
	o.said = startCommand(t, role)
	if line := o.said.line(t); line != "ready" {
		t.Fatal(line)
	}
	var err error
	if o.control, err = uapi.Dial(outside.Path(wgSocket)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.control.Close() })
	return o
}

func (o *outpost) tell(t testing.TB, u uapi.Update) {
	t.Helper()
	if err := o.control.Set(t.Context(), u.Body()); err != nil {
		t.Fatal(err)
	}
}
