package conf_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"wireguard4netns/conf"
)

// leaks says which part of a key is in text: any six characters in a row of
// its base64 or hexadecimal form, or its first bytes as fmt prints them.
func leaks(text, key string) string {
	raw, _ := base64.StdEncoding.DecodeString(key)
	for _, form := range []string{key, hex.EncodeToString(raw), strings.ToUpper(hex.EncodeToString(raw))} {
		for i := range len(form) - 5 {
			if strings.Contains(text, form[i:i+6]) {
				return form[i : i+6]
			}
		}
	}
	for _, format := range []string{"%d", "%v", "%x", "%q", "%#v"} {
		if n := fmt.Sprintf(format, raw[:4]); len(n) > 2 && strings.Contains(text, n[1:len(n)-1]) {
			return n
		}
	}
	return ""
}

func TestSecretsDoNotPrint(t *testing.T) {
	c := mustParse(t, head+peer+"PresharedKey = "+preshared)
	private, shared := c.Interface.PrivateKey, c.Peers[0].PresharedKey

	// fmt calls no methods on what is behind an unexported field.
	type unexported struct {
		private conf.PrivateKey
		shared  *conf.PresharedKey
		config  *conf.Config
		list    []conf.PrivateKey
		keyed   map[conf.PresharedKey]bool
		any     any
	}
	inside := unexported{private, &shared, c, []conf.PrivateKey{private}, map[conf.PresharedKey]bool{shared: true}, *c}

	var out strings.Builder
	for _, value := range []any{private, &private, shared, &shared, c, *c, inside, &inside, []any{private}, fmt.Errorf("%v", private)} {
		for _, verb := range "vdxXsqcbopTtUeEfgGwZ!" {
			for _, flags := range []string{"", "+", "#", "-80", " ", "080.5"} {
				fmt.Fprintf(&out, "%"+flags+string(verb)+"\n", value)
			}
		}
		fmt.Fprintln(&out, value)
		for _, marshal := range []func(any) ([]byte, error){json.Marshal, xml.Marshal} {
			text, err := marshal(value)
			fmt.Fprintf(&out, "%s %v\n", text, err)
		}
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(h).Info("key", "value", value)
		}
	}
	for _, key := range []string{secret, preshared} {
		if part := leaks(out.String(), key); part != "" {
			t.Errorf("%q is in the output", part)
		}
	}
	for _, got := range []string{private.String(), private.GoString(), fmt.Sprint(private), fmt.Sprintf("%x", shared), fmt.Sprintf("%#v", &shared), private.LogValue().String()} {
		if got != "(hidden)" {
			t.Errorf("got %q, want (hidden)", got)
		}
	}
	if leaks("so "+secret[7:13]+".", secret) == "" || leaks(fmt.Sprint(private.Bytes()), secret) == "" || leaks(private.Hex(), secret) == "" {
		t.Error("leaks does not find what is there")
	}
}

func TestKeys(t *testing.T) {
	k, err := conf.ParsePrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := base64.StdEncoding.DecodeString(secret)
	if k.Base64() != secret || k.Hex() != hex.EncodeToString(raw) || !bytes.Equal(k.Bytes(), raw) {
		t.Errorf("%s %s %x", k.Base64(), k.Hex(), k.Bytes())
	}
	if same := conf.NewPrivateKey([32]byte(raw)); same != k || same.IsZero() {
		t.Error("equal keys are not ==")
	}
	if zero := conf.NewPresharedKey([32]byte{}); zero != (conf.PresharedKey{}) || !zero.IsZero() || len(zero.Bytes()) != 32 {
		t.Error("the zero key is not the zero value")
	}
	p := k.PublicKey()
	if want := strings.TrimSpace(wg(t, secret, "pubkey")); p.String() != want {
		t.Errorf("public key %s, wg says %s", p, want)
	}
	if text, err := json.Marshal(p); err != nil || string(text) != `"`+p.String()+`"` {
		t.Errorf("%s %v", text, err)
	}
}

// TestNoSecretInMessages puts a key, whole or mistyped, at each place of each
// sample, and looks at all that Parse says.
func TestNoSecretInMessages(t *testing.T) {
	raw, _ := base64.StdEncoding.DecodeString(secret)
	forms := []string{
		secret,
		secret[:43],
		secret[:20],
		secret[21:],
		" " + secret[:12] + " " + secret[12:] + "\n",
		"\n" + secret + "\n",
		"\n" + secret[:22] + "\n" + secret[22:] + "\n",
		"\n" + secret[:30] + " = " + secret[30:] + "\n",
		"[" + secret + "]",
		secret[:10] + "/" + secret[10:20] + "," + secret[20:],
		secret[:10] + "." + secret[10:20] + ":" + secret[20:],
		secret[:15] + "l-_?" + secret[15:],
		"fe80::1%" + secret,
		hex.EncodeToString(raw),
		"= " + hex.EncodeToString(raw)[:20] + " ",
	}
	messages := 0
	for _, file := range samples(t) {
		text := read(t, file)
		for i := range len(text) + 1 {
			for _, form := range forms {
				_, warnings, err := conf.Parse(strings.NewReader(text[:i]+form+text[i:]), filepath.Base(file))
				said := fmt.Sprintf("%v %#v %v", err, err, warnings)
				if part := leaks(said, secret); part != "" {
					t.Fatalf("%s: %q at %d: %q is in %s", file, form, i, part, said)
				}
				messages++
			}
		}
	}
	t.Logf("%d files tried", messages)
}
