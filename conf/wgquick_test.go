package conf_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"wireguard4netns/conf"
)

// wgQuick runs the real wg-quick(8) on a file of this name as root of a userns
// and netns of its own. What it would run is replaced by a script that does
// nothing but show what resolvconf is given.
func wgQuick(t *testing.T, verb, name, text string) (stdout, stderr string, err error) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("/usr/bin/wg-quick")
	if err != nil {
		t.Fatal(err)
	}
	// wg-quick looks for programs beside itself first.
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	const stub = "#!/bin/sh\ncase \"${0##*/} $*\" in 'resolvconf -a'*) cat >&2;; 'wg show interfaces') echo wg0;; esac\n"
	programs := map[string]string{"wg-quick": string(script), "ip": stub, "wg": stub, "resolvconf": stub, "nft": stub, "iptables": stub}
	for name, text := range programs {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var out, log strings.Builder
	cmd := exec.Command("unshare", "-Urn", filepath.Join(bin, "wg-quick"), verb, file)
	cmd.Stdout, cmd.Stderr = &out, &log
	err = cmd.Run()
	return out.String(), log.String(), err
}

// wgText is text as wg(8) can be given it: it would ask a name server on the
// Internet.
func wgText(text string) string {
	return strings.ReplaceAll(text, "engage.cloudflareclient.com", "162.159.192.1")
}

// TestStrip compares each sample with what wg(8) makes of it after
// "wg-quick strip", and so with what Marshal makes of it.
func TestStrip(t *testing.T) {
	for _, sample := range samples(t) {
		t.Run(filepath.Base(sample), func(t *testing.T) {
			t.Parallel()
			c := mustParse(t, wgText(read(t, sample)))
			for _, text := range []string{wgText(read(t, sample)), marshal(t, c)} {
				stripped, log, err := wgQuick(t, "strip", "wg0.conf", text)
				if err != nil {
					t.Fatalf("%v\n%s", err, log)
				}
				compareWithWg(t, c, stripped)
			}
		})
	}
}

// TestUpAndDown compares what wg-quick would run for each sample with what the
// Config says.
func TestUpAndDown(t *testing.T) {
	for _, sample := range samples(t) {
		t.Run(filepath.Base(sample), func(t *testing.T) {
			t.Parallel()
			c := mustParse(t, read(t, sample))
			for _, text := range []string{read(t, sample), marshal(t, c)} {
				for verb, want := range map[string][]string{"up": upLog(c), "down": downLog(c)} {
					_, log, err := wgQuick(t, verb, "wg0.conf", text)
					if err != nil {
						t.Fatalf("%v\n%s", err, log)
					}
					if got := plainLog(log); !slices.Equal(got, want) {
						t.Errorf("%s: wg-quick runs\n%s\nwant\n%s", verb, strings.Join(got, "\n"), strings.Join(want, "\n"))
					}
				}
			}
		})
	}
}

// upLog is what "wg-quick up" says it runs for c on a machine without routes.
func upLog(c *conf.Config) []string {
	i := c.Interface.Expand("wg0")
	log := slices.Clone(i.PreUp)
	log = append(log, "ip link add wg0 type wireguard", "wg setconf wg0")
	for _, a := range i.Addresses {
		family := 4
		if a.Addr().Is6() {
			family = 6
		}
		log = append(log, fmt.Sprintf("ip -%d address add %v dev wg0", family, a))
	}
	mtu := i.MTU
	if mtu == 0 {
		mtu = 1420
	}
	log = append(log, fmt.Sprintf("ip link set mtu %d up dev wg0", mtu))
	if len(i.DNS) > 0 {
		log = append(log, "resolvconf -a wg0 -m 0 -x")
		for _, server := range i.DNS {
			log = append(log, "nameserver "+server.String())
		}
		if len(i.Search) > 0 {
			log = append(log, "search "+strings.Join(i.Search, " "))
		}
	}
	return append(log, i.PostUp...)
}

// downLog is what "wg-quick down" says it runs for c.
func downLog(c *conf.Config) []string {
	i := c.Interface.Expand("wg0")
	log := slices.Clone(i.PreDown)
	if i.SaveConfig {
		log = append(log, "wg showconf wg0")
	}
	log = append(log, "ip link delete dev wg0")
	if len(i.DNS) > 0 {
		log = append(log, "resolvconf -d wg0 -f")
	}
	return append(log, i.PostDown...)
}

// plainLog takes from wg-quick's log what differs from run to run, and gives
// addresses the mask that ip-address(8) assumes.
func plainLog(log string) []string {
	var plain []string
	for line := range strings.Lines(log) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "[#] ")
		if line == "[#]" {
			continue // an empty hook
		}
		if strings.HasPrefix(line, "wg setconf wg0 /dev/fd/") {
			line = "wg setconf wg0"
		}
		if words := strings.Fields(line); len(words) == 7 && words[2] == "address" {
			if addr, err := netip.ParseAddr(words[4]); err == nil {
				words[4] = netip.PrefixFrom(addr, addr.BitLen()).String()
			}
			line = strings.Join(words, " ")
		}
		plain = append(plain, line)
	}
	return plain
}

func TestInterfaceName(t *testing.T) {
	for _, test := range []struct{ file, want, wrong string }{
		{"/etc/wireguard/wg0.conf", "wg0", ""},
		{"wg0.conf", "wg0", ""},
		{"./a_=+.-Z9.conf", "a_=+.-Z9", ""},
		{"fifteen-letters.conf", "fifteen-letters", ""},
		{"x.conf.conf", "x.conf", ""},
		{"sixteen-letters-.conf", "", "sixteen-letters-.conf: interface name has 16 characters: at most 15 are allowed; rename the file or give another interface name"},
		{"my vpn.conf", "", `my vpn.conf: "my vpn" cannot name an interface: a name is 1 to 15 of the characters a-z A-Z 0-9 _ = + . -; rename the file or give another interface name`},
		{"zürich.conf", "", `zürich.conf: "zürich" cannot name an interface: a name is 1 to 15 of the characters a-z A-Z 0-9 _ = + . -; rename the file or give another interface name`},
		{".conf", "", `.conf: "" cannot name an interface: a name is 1 to 15 of the characters a-z A-Z 0-9 _ = + . -; rename the file or give another interface name`},
		{"wg0.txt", "", "wg0.txt: name does not end in .conf: the file is to be called NAME.conf, NAME being the interface; or give an interface name"},
		{"wg0.CONF", "", "wg0.CONF: name does not end in .conf: the file is to be called NAME.conf, NAME being the interface; or give an interface name"},
	} {
		got, err := conf.InterfaceName(test.file)
		if got != test.want || (err == nil) != (test.wrong == "") || err != nil && err.Error() != test.wrong {
			t.Errorf("%s: got %q, %v; want %q, %s", test.file, got, err, test.want, test.wrong)
		}
		if _, log, wgErr := wgQuick(t, "strip", filepath.Base(test.file), head); (wgErr == nil) != (err == nil) {
			t.Errorf("%s: got %v; wg-quick says %v %s", test.file, err, wgErr, log)
		}
	}
	// wg-quick takes these and the kernel refuses them.
	kernelTakes := func(name string) bool {
		return exec.Command("unshare", "-Urn", "ip", "link", "add", name, "type", "veth").Run() == nil
	}
	if !kernelTakes("wg0") {
		t.Error("the kernel refuses wg0")
	}
	for _, name := range []string{"all", "default", "lo", ".", ".."} {
		if err := conf.CheckInterfaceName(name); err == nil || kernelTakes(name) {
			t.Errorf("%s: %v; the kernel takes it: %v", name, err, kernelTakes(name))
		}
	}
}
