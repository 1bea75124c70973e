// Package native is an engine of our own: WireGuard
// (https://www.wireguard.com/papers/wireguard.pdf) on a TUN device and a UDP
// socket. Each packet runs to completion on one thread: it is read, sealed and
// sent, or received, opened and written, and then the next.
//
//	            inside                                 outside
//	TUN device ──▶ outbound thread ─────────────────────▶ UDP socket
//	            ≤ 64 KiB   splitter   route   outbox       ≤ 64 datagrams
//	            a read     in place   by dst  seals        a send
//
//	TUN device ◀─────────────────────── inbound thread ◀─ UDP socket
//	≤ 64 packets     delivery, in turn     open  session   ≤ 64 KiB
//	a write          coalescer, source,    in    by index  a receive
//	                 replay window         place  │
//	                      answerer goroutine ◀────┘ handshake messages
//	                      timers, one a peer, none while it is idle
//
// Each direction has a crew of such threads (crew.go). One of them is at work; the
// others are where there are more processors, for when there is more than one can do.
// Order is kept: they take packets, and send or write them, one at a time.
//
// The directions share no lock for a packet. What both need is behind atomic
// pointers to what does not change: routes, a peer's session, its endpoint. A
// peer's mutex is for its handshakes and for packets that wait for one.
//
// A peer, seen from an outbound thread:
//
//	           packet: wait, initiate                response: flush what waits
//	no session ─────────────────────▶ handshake ─────────────────────▶ session
//	   ▲  ▲                            │  ▲ every 5 s, for 90 s         │ │ │
//	   │  └──────── given up ──────────┘  └─────────────────────────────┘ │ │
//	   │                                   120 s or 2⁶⁰ messages, or no   │ │
//	   │                                   answer (timers.go): the old    │ │
//	   │                                   session goes on meanwhile      │ │
//	   ├────────── 180 s, or 2⁶⁴ − 2¹³ messages: it carries nothing ──────┘ │
//	   └────────── 540 s without a new one: all keys are dropped ───────────┘
//
// Where to read on:
//
//	native.go      Run: socket, link, requests
//	crew.go        threads: who reads, who sends
//	outbound.go    inbound.go, deliver.go: the two ways
//	segment.go     coalesce.go: large packets (GSO, GRO), pure
//	outbox.go      sealing, runs of datagrams
//	peer.go        handshake.go, timers.go, limits.go: the protocol's state
//	noise.go       mac.go, keypair.go: its cryptography, by libraries
//	answerer.go    handshakes that others ask for, and floods of them
//	configure.go   describe.go: requests
//
// docs/ENGINE.md tells why this engine is, and what was checked.
package native
