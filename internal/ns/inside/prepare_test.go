package inside

import (
	"os"
	"testing"
)

const (
	ownResolv   = "nameserver 10.9.9.9\n"
	ownNsswitch = "hosts: files dns\n"
)

func ownConfig() Config {
	return Config{
		UID: os.Getuid(),
		Etc: map[string][]byte{"resolv.conf": []byte(ownResolv), "nsswitch.conf": []byte(ownNsswitch)},
		Run: []string{"/run", "/var/run"},
	}
}

func TestSmoke(t *testing.T) {
	asHost(t, 1001, func(t *testing.T) {
		in := startInside(t, ownConfig())
		t.Log(in.notes)
		t.Log(in.sh(t, "cat /etc/resolv.conf /etc/nsswitch.conf; ls -la /run /etc | head -40; grep -n wireguard /proc/mounts; cat /proc/sys/net/ipv4/ping_group_range; id"))
		t.Log(in.app(t, "sh", "-c", "umount /etc; umount /run; umount -l /etc"))
	})
}
