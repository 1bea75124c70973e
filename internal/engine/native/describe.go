package native

import (
	"bytes"
	"fmt"
	"net/netip"
	"time"
)

// describe returns the body of the reply to a get request.
func (e *engine) describe() []byte {
	var b bytes.Buffer
	d := e.device
	if id := d.identity.Load(); id != nil {
		fmt.Fprintf(&b, "private_key=%x\n", id.private[:])
	}
	if port := e.wire.port; port != 0 {
		fmt.Fprintf(&b, "listen_port=%d\n", port)
	}
	if e.mark != 0 {
		fmt.Fprintf(&b, "fwmark=%d\n", e.mark)
	}
	allowed := make(map[*peer][]netip.Prefix)
	for prefix, p := range d.routes.Load().All() {
		allowed[p] = append(allowed[p], prefix)
	}
	for _, p := range d.all() {
		p.describe(&b, allowed[p])
	}
	return b.Bytes()
}

func (p *peer) describe(b *bytes.Buffer, allowed []netip.Prefix) {
	p.mu.Lock()
	psk := p.psk
	p.mu.Unlock()
	fmt.Fprintf(b, "public_key=%x\npreshared_key=%x\nprotocol_version=1\n", p.key[:], psk[:])
	if at := p.endpoint.Load(); at != nil {
		fmt.Fprintf(b, "endpoint=%v\n", at.addrPort())
	}
	when := p.handshook.Load()
	fmt.Fprintf(b, "last_handshake_time_sec=%d\nlast_handshake_time_nsec=%d\n", when/int64(time.Second), when%int64(time.Second))
	fmt.Fprintf(b, "tx_bytes=%d\nrx_bytes=%d\n", p.sent.Load(), p.received.Load())
	fmt.Fprintf(b, "persistent_keepalive_interval=%d\n", time.Duration(p.keepalive.Load())/time.Second)
	for _, prefix := range allowed {
		fmt.Fprintf(b, "allowed_ip=%v\n", prefix)
	}
}
