package native

import "encoding/binary"

// The four messages of WireGuard (whitepaper, 5.4). All numbers are little
// endian; the first byte is the type, three zero bytes follow it.
//
//	initiation  148  type, sender, ephemeral, static, timestamp, mac1, mac2
//	response     92  type, sender, receiver, ephemeral, empty, mac1, mac2
//	cookie       64  type, receiver, nonce, cookie
//	transport    32+ type, receiver, counter, packet
const (
	typeInitiation = 1
	typeResponse   = 2
	typeCookie     = 3
	typeTransport  = 4

	initiationSize  = 148
	responseSize    = 92
	cookieReplySize = 64

	macSize    = 16 // mac1, mac2
	tagSize    = 16 // of Poly1305
	headerSize = 16 // of a transport message
	overhead   = headerSize + tagSize

	keySize = 32
)

// kindOf returns the type of a message; zero for what cannot be a message of
// any type, by its first bytes and its length.
func kindOf(message []byte) uint32 {
	if len(message) < overhead {
		return 0
	}
	kind := binary.LittleEndian.Uint32(message)
	switch {
	case kind == typeTransport,
		kind == typeInitiation && len(message) == initiationSize,
		kind == typeResponse && len(message) == responseSize,
		kind == typeCookie && len(message) == cookieReplySize:
		return kind
	}
	return 0
}

// receiverOf returns the index of a response, cookie or transport message's
// receiver, senderOf that of an initiation's or a response's sender.
func receiverOf(message []byte) uint32 {
	if message[0] == typeResponse {
		return binary.LittleEndian.Uint32(message[8:])
	}
	return binary.LittleEndian.Uint32(message[4:])
}

func senderOf(message []byte) uint32 { return binary.LittleEndian.Uint32(message[4:]) }

func counterOf(transport []byte) uint64 { return binary.LittleEndian.Uint64(transport[8:]) }

// putTransport writes the header of a transport message.
func putTransport(b []byte, receiver uint32, counter uint64) {
	_ = b[headerSize-1]
	binary.LittleEndian.PutUint32(b, typeTransport)
	binary.LittleEndian.PutUint32(b[4:], receiver)
	binary.LittleEndian.PutUint64(b[8:], counter)
}
