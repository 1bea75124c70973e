package wireguard4netns

import (
	"wireguard4netns/internal/metrics"
	"wireguard4netns/internal/tunnel"
)

// Outside are commands that are run on the host, by /bin/sh and with the rights of
// the user, when something happens to the tunnel: when it is ready, before it is
// undone, and at a peer's first handshake, or its first after three minutes without.
// They run one at a time and are ended after 30 seconds; the log has what they print
// and how they fail. What they are told is in the environment:
//
//	W4N_EVENT           up, down or handshake
//	W4N_NAME            of the tunnel
//	W4N_INTERFACE       the link inside
//	W4N_ADDRESSES       its addresses, with a space between
//	W4N_DNS             the servers, with a space between
//	W4N_DIRECTORY       of the tunnel
//	W4N_UAPI_SOCKET
//	W4N_SUPERVISOR_PID
//	W4N_PEER            handshake: the public key
//	W4N_PEER_NAME       handshake: what the file calls it; may be empty
//	W4N_ENDPOINT        handshake: where the peer is
type Outside = tunnel.Outside

// MetricsAddress is where metrics are served for Prometheus.
type MetricsAddress = metrics.Address

// ParseMetricsAddress reads "unix:PATH", "127.0.0.1:PORT" or "[::1]:PORT".
func ParseMetricsAddress(s string) (MetricsAddress, error) { return metrics.ParseAddress(s) }
