package native

import (
	"bytes"
	"encoding/hex"
	"testing"

	"golang.zx2c4.com/wireguard/tai64n"

	"wireguard4netns/internal/uapi"
)

func identityOf(n byte) *identity {
	return newIdentity(uapi.Secret(bytes.Repeat([]byte{n}, keySize)))
}

// fixed is a source of ephemeral keys.
func fixed(n byte) *bytes.Reader { return bytes.NewReader(bytes.Repeat([]byte{n}, keySize)) }

// handshake does one between identities 1 and 2 with ephemeral keys 3 and 4.
func handshake(t testing.TB, initiatorPSK, responderPSK uapi.Secret) (initiation, response []byte, i, r secrets, err error) {
	t.Helper()
	one, two := identityOf(1), identityOf(2)
	state, initiation, err := one.newInitiation(two.public, 0x01020304, tai64n.Timestamp{0x40, 11: 9}, fixed(3))
	if err != nil {
		t.Fatal(err)
	}
	c, err := two.readInitiation(initiation, fixed(4))
	if err != nil {
		t.Fatal(err)
	}
	if c.from != one.public || c.sender != 0x01020304 || c.timestamp != (tai64n.Timestamp{0x40, 11: 9}) {
		t.Errorf("understood %+v", c)
	}
	response, r, err = c.respond(responderPSK, 0x05060708)
	if err != nil {
		t.Fatal(err)
	}
	i, err = readResponse(state, initiatorPSK, response)
	return initiation, response, i, r, err
}

// The messages for fixed keys, as derived from the whitepaper's formulas (5.4) with
// another library.
func TestKnownHandshake(t *testing.T) {
	psk := uapi.Secret(bytes.Repeat([]byte{5}, keySize))
	initiation, response, i, r, err := handshake(t, psk, psk)
	if err != nil {
		t.Fatal(err)
	}
	if i.send != r.receive || i.receive != r.send || i.send == i.receive {
		t.Error("the ends have not the same keys")
	}
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"initiation", initiation, knownInitiation},
		{"response", response, knownResponse},
		{"key to the responder", i.send[:], knownToResponder},
		{"key to the initiator", i.receive[:], knownToInitiator},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestAnotherPresharedKeyEndsTheHandshake(t *testing.T) {
	if _, _, _, _, err := handshake(t, uapi.Secret{1}, uapi.Secret{}); err == nil {
		t.Error("completed")
	}
}

// Every bit of an initiation that is not a code over it matters.
func TestAChangedInitiationIsRefused(t *testing.T) {
	one, two := identityOf(1), identityOf(2)
	_, message, err := one.newInitiation(two.public, 1, tai64n.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 8 * 8; i < (initiationSize-2*macSize)*8; i++ {
		if i == (8+keySize)*8-1 {
			continue // RFC 7748: the last bit of a key is not looked at, but hashed
		}
		changed := bytes.Clone(message)
		changed[i/8] ^= 1 << (i % 8)
		if _, err := two.readInitiation(changed, nil); err == nil {
			t.Errorf("bit %d changed: accepted", i)
		}
	}
}

// A wrong response leaves the state as it was: anybody could send one.
func TestAWrongResponseDoesNotSpoilTheHandshake(t *testing.T) {
	one, two := identityOf(1), identityOf(2)
	state, initiation, err := one.newInitiation(two.public, 1, tai64n.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := two.readInitiation(initiation, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, want, err := c.respond(uapi.Secret{}, 2)
	if err != nil {
		t.Fatal(err)
	}
	lowOrder := bytes.Clone(response)
	clear(lowOrder[12:][:keySize])
	wrong := [][]byte{lowOrder}
	for i := 12 * 8; i < (responseSize-2*macSize)*8; i += 7 {
		changed := bytes.Clone(response)
		changed[i/8] ^= 1 << (i % 8)
		wrong = append(wrong, changed)
	}
	for i, message := range wrong {
		if _, err := readResponse(state, uapi.Secret{}, message); err == nil {
			t.Fatalf("wrong response %d accepted", i)
		}
	}
	if got, err := readResponse(state, uapi.Secret{}, response); err != nil || got.send != want.receive {
		t.Errorf("after wrong responses: %v", err)
	}
}

func TestIdentities(t *testing.T) {
	if newIdentity(uapi.Secret{}) != nil {
		t.Error("no key is an identity")
	}
	// Clamped, as wg(8) shows it.
	id := newIdentity(uapi.Secret(bytes.Repeat([]byte{0xff}, keySize)))
	if id.private[0] != 0xf8 || id.private[31] != 0x7f {
		t.Errorf("%x", id.private[:])
	}
	if _, _, err := id.newInitiation(uapi.PublicKey{}, 1, tai64n.Now(), nil); err == nil {
		t.Error("an initiation to a key of low order")
	}
}

const (
	knownInitiation = "0100000004030201" +
		"5dfedd3b6bd47f6fa28ee15d969d5bb0ea53774d488bdaf9df1c6e0124b3ef22" +
		"0a26599fb2188bb723276fc173af67616c817fc32fd04d686d87ec152fac10eed2bda3bb3b6f1eded6977684082284d8" +
		"17fb46b3ccc89ae9bd273edfc93f213db99614309202934809c42a2e" +
		"0000000000000000000000000000000000000000000000000000000000000000"
	knownResponse = "020000000807060504030201" +
		"ac01b2209e86354fb853237b5de0f4fab13c7fcbf433a61c019369617fecf10b" +
		"527bb7a428566f5c0adddb259961887c" +
		"0000000000000000000000000000000000000000000000000000000000000000"
	knownToResponder = "a18cc809fd05b6b5f99644cf506f89dce368c2f54a9dbeb9a384f36c274317ef"
	knownToInitiator = "b1aa1b797d3a45da97552b8084ade493aa767f15af95854bc86557f6dacd851d"
)
