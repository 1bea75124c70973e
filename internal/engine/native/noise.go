package native

import (
	"crypto/ecdh"
	"encoding/binary"
	"errors"
	"io"

	"github.com/flynn/noise"
	"golang.org/x/crypto/curve25519"
	"golang.zx2c4.com/wireguard/tai64n"

	"wireguard4netns/internal/uapi"
)

// The handshake is Noise_IKpsk2 (whitepaper, 5.4.2 and 5.4.3), and flynn/noise
// does it all: here is only what WireGuard puts around it.
//
//	initiator                              responder
//	newInitiation ── e, es, s, ss, {t} ──▶ readInitiation: who is it?
//	readResponse  ◀── e, ee, se, psk, {} ── call.respond
//	      secrets                             secrets
const prologue = "WireGuard v1 zx2c4 Jason@zx2c4.com"

var suite = noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashBLAKE2s)

var errMalformed = errors.New("malformed handshake message")

// secrets are the two keys of a session.
type secrets struct{ send, receive [keySize]byte }

// identity is a device's own static key, with what follows from it.
type identity struct {
	private uapi.Secret
	public  uapi.PublicKey
	static  noise.DHKey
	macs    receiverMACs
}

// newIdentity returns nil for the zero key: none.
func newIdentity(private uapi.Secret) *identity {
	if private.IsZero() {
		return nil
	}
	private[0] &= 248 // RFC 7748, section 5
	private[31] = private[31]&127 | 64
	key, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		panic(err) // any 32 bytes are a key
	}
	id := &identity{private: private, public: uapi.PublicKey(key.PublicKey().Bytes())}
	id.static = noise.DHKey{Private: id.private[:], Public: id.public[:]}
	id.macs = newReceiverMACs(id.public)
	return id
}

// config is the handshake's. Random is where its ephemeral key comes from, the
// system's generator if nil.
func (id *identity) config(random io.Reader) noise.Config {
	return noise.Config{
		CipherSuite: suite, Pattern: noise.HandshakeIK, Prologue: []byte(prologue),
		StaticKeypair: id.static, PresharedKeyPlacement: 2, Random: random,
	}
}

// newInitiation returns the message, without its macs, and the state that the
// response is read with. It fails for a peer whose public key is no key.
func (id *identity) newInitiation(to uapi.PublicKey, sender uint32, t tai64n.Timestamp, random io.Reader) (*noise.HandshakeState, []byte, error) {
	c := id.config(random)
	c.Initiator, c.PeerStatic = true, to[:]
	state, err := noise.NewHandshakeState(c)
	if err != nil {
		return nil, nil, err
	}
	message := make([]byte, 8, initiationSize)
	message[0] = typeInitiation
	binary.LittleEndian.PutUint32(message[4:], sender)
	message, _, _, err = state.WriteMessage(message, t[:])
	return state, message[:cap(message)], err
}

// call is an initiation that was understood: somebody who holds the key says so.
type call struct {
	state     *noise.HandshakeState
	from, to  uapi.PublicKey
	sender    uint32
	timestamp tai64n.Timestamp
}

// readInitiation reads a message whose size and mac1 were checked.
func (id *identity) readInitiation(message []byte, random io.Reader) (*call, error) {
	state, err := noise.NewHandshakeState(id.config(random))
	if err != nil {
		return nil, err
	}
	t, _, _, err := state.ReadMessage(nil, message[8:initiationSize-2*macSize])
	if err != nil {
		return nil, err
	}
	if len(t) != tai64n.TimestampSize || len(state.PeerStatic()) != keySize {
		return nil, errMalformed
	}
	return &call{state, uapi.PublicKey(state.PeerStatic()), id.public, senderOf(message), tai64n.Timestamp(t)}, nil
}

// respond returns the response, without its macs, and the session's keys.
func (c *call) respond(psk uapi.Secret, sender uint32) ([]byte, secrets, error) {
	if err := c.state.SetPresharedKey(psk[:]); err != nil {
		return nil, secrets{}, err
	}
	message := make([]byte, 12, responseSize)
	message[0] = typeResponse
	binary.LittleEndian.PutUint32(message[4:], sender)
	binary.LittleEndian.PutUint32(message[8:], c.sender)
	message, toResponder, toInitiator, err := c.state.WriteMessage(message, nil)
	if err != nil {
		return nil, secrets{}, err
	}
	return message[:cap(message)], secrets{send: toInitiator.UnsafeKey(), receive: toResponder.UnsafeKey()}, nil
}

// readResponse reads a message whose size and mac1 were checked. After an error
// the state still takes the right response.
func readResponse(state *noise.HandshakeState, psk uapi.Secret, message []byte) (secrets, error) {
	body := message[12 : responseSize-2*macSize]
	// A key of low order makes the library leave the state half changed, and
	// anybody who has seen the initiation could send one.
	if _, err := curve25519.X25519(state.LocalEphemeral().Private, body[:keySize]); err != nil {
		return secrets{}, err
	}
	if err := state.SetPresharedKey(psk[:]); err != nil {
		return secrets{}, err
	}
	_, toResponder, toInitiator, err := state.ReadMessage(nil, body)
	if err != nil {
		return secrets{}, err
	}
	return secrets{send: toResponder.UnsafeKey(), receive: toInitiator.UnsafeKey()}, nil
}
