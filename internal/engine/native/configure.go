package native

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"wireguard4netns/internal/uapi"
)

// maxPeers is the most that a device has.
const maxPeers = 1 << 16

// An update applies the body of a set request, line by line, as it comes: what
// is before an error stands.
type update struct {
	engine *engine
	key    uapi.PublicKey
	peer   *peer // of the lines that follow; nil: they are for none
	turned bool  // its persistent keepalive was turned on
}

// apply applies a body that has passed uapi.CheckSet. Errors hold a
// syscall.Errno.
func (e *engine) apply(body []byte) error {
	u := &update{engine: e}
	line := u.deviceLine
	for text := range bytes.Lines(body) {
		key, value, _ := strings.Cut(strings.TrimSuffix(string(text), "\n"), "=")
		if key == "public_key" {
			u.endPeer()
			line = u.peerLine
			if err := u.beginPeer(uapi.PublicKey(keyOf(value))); err != nil {
				return err
			}
			continue
		}
		if err := line(key, value); err != nil {
			return err
		}
	}
	u.endPeer()
	return nil
}

func (u *update) deviceLine(key, value string) error {
	e, d := u.engine, u.engine.device
	switch key {
	case "private_key":
		d.verbose("UAPI: Updating private key")
		d.setIdentity(keyOf(value))
	case "listen_port":
		d.verbose("UAPI: Updating listen port")
		return e.setPort(uint16(numberOf(value)))
	case "fwmark":
		d.verbose("UAPI: Updating fwmark")
		return e.setMark(uint32(numberOf(value)))
	case "replace_peers":
		d.verbose("UAPI: Removing all peers")
		for _, p := range d.all() {
			d.remove(p)
		}
	}
	return nil
}

// beginPeer finds or makes a peer. The device itself is none.
func (u *update) beginPeer(key uapi.PublicKey) error {
	d := u.engine.device
	u.key, u.turned = key, false
	u.peer = d.lookup(key)
	if id := d.identity.Load(); u.peer != nil || id != nil && id.public == key {
		return nil
	}
	if len(d.peers) >= maxPeers {
		return syscall.EINVAL
	}
	u.peer = d.add(key)
	u.peer.fresh = true
	return nil
}

func (u *update) peerLine(key, value string) error {
	p, d := u.peer, u.engine.device
	if p == nil {
		return nil
	}
	switch key {
	case "update_only":
		if p.fresh {
			d.remove(p)
			u.peer = nil
		}
	case "remove":
		d.remove(p)
		u.peer = nil
	case "preshared_key":
		p.mu.Lock()
		p.psk = keyOf(value)
		p.mu.Unlock()
	case "endpoint":
		at, _ := netip.ParseAddrPort(value)
		to, err := endpointOf(at)
		if err != nil {
			return err
		}
		p.endpoint.Store(to)
	case "persistent_keepalive_interval":
		interval := time.Duration(numberOf(value)) * time.Second
		before := p.keepalive.Swap(int64(interval))
		u.turned = before == 0 && interval > 0
	case "replace_allowed_ips":
		d.disallowAll(p)
	case "allowed_ip":
		text, removed := strings.CutPrefix(value, "-")
		prefix, _ := netip.ParsePrefix(text)
		if removed {
			d.disallow(p, prefix)
		} else {
			d.allow(p, prefix)
		}
	}
	return nil
}

// endPeer does at once what the new settings ask for.
func (u *update) endPeer() {
	if u.peer == nil {
		return
	}
	u.peer.fresh = false
	if u.engine.up() {
		u.peer.settle(u.turned)
	}
	u.peer = nil
}

// settle sends what waits and, if that is wanted, a keepalive.
func (p *peer) settle(keepalive bool) {
	if keepalive || p.waiting.Load() {
		p.sendKeepalive(p.device.now())
	}
}

// allow routes a prefix to p, whosever it was.
func (d *device) allow(p *peer, prefix netip.Prefix) {
	d.routes.Store(d.routes.Load().InsertPersist(prefix.Masked(), p))
	p.allowed = true
}

// disallow takes a prefix from p, if it is its.
func (d *device) disallow(p *peer, prefix netip.Prefix) {
	if owner, ok := d.routes.Load().Get(prefix.Masked()); ok && owner == p {
		d.routes.Store(d.routes.Load().DeletePersist(prefix.Masked()))
	}
}

func (d *device) disallowAll(p *peer) {
	if !p.allowed {
		return
	}
	routes := d.routes.Load()
	for prefix, owner := range d.routes.Load().All() {
		if owner == p {
			routes = routes.DeletePersist(prefix)
		}
	}
	d.routes.Store(routes)
	p.allowed = false
}

// The values have been checked.

func keyOf(value string) (key [keySize]byte) {
	_, _ = hex.Decode(key[:], []byte(value))
	return key
}

func numberOf(value string) uint64 {
	n, _ := strconv.ParseUint(value, 10, 64)
	return n
}
