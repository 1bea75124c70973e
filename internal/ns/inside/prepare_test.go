package inside

import (
	"bufio"
	"os"
	"slices"
	"strings"
	"testing"
)

const (
	ownResolv   = "nameserver 10.9.9.9"
	ownNsswitch = "hosts: files dns"
)

func ownConfig() Config {
	return Config{
		UID: os.Getuid(),
		Etc: map[string][]byte{"resolv.conf": []byte(ownResolv + "\n"), "nsswitch.conf": []byte(ownNsswitch + "\n")},
		Run: []string{"/run", "/var/run"},
	}
}

// equal says what differs, by a name for what is compared.
func equal(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// fsType returns the type of the file system that shows at path in the app.
func (in inner) fsType(t *testing.T, path string) string {
	t.Helper()
	return in.sh(t, "stat -f -c %T "+path)
}

func (in inner) ourMounts(t *testing.T) []string {
	t.Helper()
	var points []string
	lines := bufio.NewScanner(strings.NewReader(in.sh(t, "cat /proc/self/mounts")))
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); fields[0] == device && !slices.Contains(points, fields[1]) {
			points = append(points, fields[1])
		}
	}
	return points
}

// The app may have all capabilities in its own namespaces: the mounts hold.
func TestMountsAreLocked(t *testing.T) {
	asHost(t, 1001, func(t *testing.T) {
		fakeDir(t, "/run", false)
		fakeDir(t, "/var/lib", false)
		write(t, "/run/user/1001/pulse/native", "pulse")
		write(t, "/var/lib/sss/pipes/nss", "host")
		write(t, "/var/lib/secret.conf", "host")
		cfg := ownConfig()
		cfg.Keep = []string{"/run/user/1001/pulse"}
		cfg.HideDirs = []string{"/var/lib/sss/pipes"}
		cfg.HideFiles = []string{"/var/lib/secret.conf"}
		in := startInside(t, cfg)

		points := in.ourMounts(t)
		for _, point := range []string{"/etc", "/run", "/var/lib/sss/pipes", "/var/lib/secret.conf"} {
			if !slices.Contains(points, point) {
				t.Errorf("%s is not among our mounts: %q", point, points)
			}
		}
		control := "mount -n -t tmpfs -o ro own /mnt && mount -n -o remount,bind,rw /mnt && umount /mnt || echo 'no capability to mount at all'\n"
		script := "can() { \"$@\" 2>/dev/null && echo \"can: $*\"; }\n" +
			"can mount --bind / /mnt\n"
		for _, point := range append(points, "/etc/.host", "/sys", "/run/user/1001/pulse") {
			script += "can umount " + point + "; can umount -l " + point + "; can mount -n --move " + point + " /mnt\n"
		}
		for _, point := range []string{"/etc", "/etc/.host", "/var/lib/sss/pipes", "/var/lib/secret.conf"} {
			script += "can mount -n -o remount,bind,rw " + point + "; can mount -n -o remount,rw " + point + "\n"
		}
		script += "can touch /etc/new; can touch /etc/resolv.conf; can touch /etc/.host/new; can rm /etc/resolv.conf\n" +
			"can touch /var/lib/sss/pipes/nss\n" +
			"cat /etc/resolv.conf /var/lib/secret.conf; ls /var/lib/sss/pipes\n"
		out, _ := in.appAs(t, "--map-root-user", "sh", "-c", control+script)
		equal(t, "app with capabilities", out, ownResolv)
		out, _ = in.app(t, "sh", "-c", script)
		equal(t, "app", out, ownResolv)
	})
}

// A file of ours stays, whatever the host does with its own, and the host's
// hosts file is seen as it is now, whichever way /etc was made.
func TestEtcSurvivesRename(t *testing.T) {
	methods := []struct {
		name, fsType string
		make         func(t *testing.T)
	}{
		{"overlay", "overlayfs", func(*testing.T) {}},
		// With a mount below the host's /etc, as containers have, the kernel
		// refuses the overlay.
		{"links", "tmpfs", func(t *testing.T) { host(t, "mount --bind /etc/hostname /etc/hostname") }},
	}
	for _, method := range methods {
		t.Run(method.name, func(t *testing.T) {
			asHost(t, 1001, func(t *testing.T) {
				fakeDir(t, "/etc", true)
				fakeDir(t, "/run", false)
				host(t, "rm -f /etc/resolv.conf && ln -s ../run/resolve/stub.conf /etc/resolv.conf")
				write(t, "/run/resolve/stub.conf", "nameserver 127.0.0.53\n")
				write(t, "/etc/hosts", "192.0.2.1 first\n")
				write(t, "/etc/other.conf", "other\n")
				write(t, "/etc/own.d/file", "own\n")
				host(t, "rm -f /etc/localtime && ln -s ../usr/share/zoneinfo/UTC /etc/localtime")
				method.make(t)
				in := startInside(t, ownConfig())
				equal(t, "file system of /etc", in.fsType(t, "/etc"), method.fsType)
				equal(t, "files", in.sh(t, "cat /etc/resolv.conf /etc/nsswitch.conf /etc/hosts /etc/other.conf /etc/own.d/file"),
					ownResolv+"\n"+ownNsswitch+"\n192.0.2.1 first\nother\nown")
				equal(t, "localtime", in.sh(t, "readlink /etc/localtime"), "../usr/share/zoneinfo/UTC")

				rename := func(content, path string) {
					write(t, path+".new", content)
					host(t, "mv -T "+path+".new "+path)
				}
				rename("nameserver 192.168.1.1\n", "/run/resolve/stub.conf")
				equal(t, "resolv.conf, link's target renamed", in.sh(t, "cat /etc/resolv.conf"), ownResolv)
				rename("nameserver 192.168.1.1\n", "/etc/resolv.conf")
				rename("hosts: resolve\n", "/etc/nsswitch.conf")
				equal(t, "after rename", in.sh(t, "cat /etc/resolv.conf /etc/nsswitch.conf"), ownResolv+"\n"+ownNsswitch)
				host(t, "rm /etc/resolv.conf /etc/nsswitch.conf")
				equal(t, "after removal", in.sh(t, "cat /etc/resolv.conf /etc/nsswitch.conf"), ownResolv+"\n"+ownNsswitch)

				host(t, "echo 192.0.2.2 second >> /etc/hosts")
				equal(t, "hosts, written", in.sh(t, "getent hosts second"), "192.0.2.2       second")
				rename("192.0.2.3 third\n", "/etc/hosts")
				equal(t, "hosts, renamed", in.sh(t, "getent hosts third"), "192.0.2.3       third")
				host(t, "echo more >> /etc/other.conf")
				equal(t, "other file, written", in.sh(t, "cat /etc/other.conf"), "other\nmore")

				// The supervisor may write our files, and nobody inside.
				for _, content := range []string{"nameserver 10.0.0.2\nnameserver 10.0.0.3\nsearch example.com\n", "nameserver 10.0.0.4\n"} {
					if err := Rewrite(in.layer, map[string][]byte{"resolv.conf": []byte(content)}); err != nil {
						t.Fatal(err)
					}
					equal(t, "resolv.conf, rewritten", in.sh(t, "cat /etc/resolv.conf")+"\n", content)
				}
				equal(t, "size", in.sh(t, "stat -c %s /etc/resolv.conf"), "20")
				for _, forbidden := range []string{"echo x >> /etc/resolv.conf", "rm /etc/resolv.conf", "mount -o remount,bind,rw /etc", "chmod 666 /etc/nsswitch.conf"} {
					if out, code := in.app(t, "sh", "-c", forbidden); code == 0 {
						t.Errorf("the app may: %s: %s", forbidden, out)
					}
				}
				if err := Rewrite(in.layer, map[string][]byte{"hosts": nil}); err == nil {
					t.Error("the host's own file was written")
				}
			})
		})
	}
}

// What a container's runtime mounts below /etc is seen, but for our own files.
func TestMountsBelowEtcStay(t *testing.T) {
	asHost(t, 1001, func(t *testing.T) {
		fakeDir(t, "/etc", true)
		fakeDir(t, "/srv", false)
		for _, name := range []string{"hosts", "hostname", "resolv.conf", "nsswitch.conf"} {
			write(t, "/srv/"+name, "container's "+name+"\n")
			host(t, "touch /etc/"+name+" && mount --bind /srv/"+name+" /etc/"+name)
		}
		// Flags that are locked for what is remounted later, mount_namespaces(7).
		host(t, "mount -n -o remount,bind,nosuid,nodev,noexec,noatime /etc")
		host(t, "mkdir /etc/secrets && mount -t tmpfs secrets /etc/secrets && echo secret > /etc/secrets/one")
		in := startInside(t, ownConfig())
		equal(t, "/etc", in.sh(t, "cd /etc && cat hosts hostname resolv.conf nsswitch.conf secrets/one"),
			"container's hosts\ncontainer's hostname\n"+ownResolv+"\n"+ownNsswitch+"\nsecret")
	})
}

// With host DNS nothing but what is hidden changes.
func TestHostDNSLeavesEtcAndRun(t *testing.T) {
	asHost(t, 1001, func(t *testing.T) {
		fakeDir(t, "/etc", true)
		fakeDir(t, "/run", false)
		write(t, "/etc/resolv.conf", "nameserver 192.0.2.53\n")
		write(t, "/etc/wireguard/wg0.conf", "PrivateKey = x\n")
		write(t, "/run/nscd/socket", "nscd")
		write(t, "/etc/hostname", "below")
		host(t, "mount --bind /etc/hosts /etc/hostname")
		in := startInside(t, Config{UID: 1001, HideFiles: []string{"/etc/wireguard/wg0.conf"}})
		equal(t, "files", in.sh(t, "cat /etc/resolv.conf /run/nscd/socket /etc/wireguard/wg0.conf"), "nameserver 192.0.2.53\nnscd")
		equal(t, "mount below /etc", in.sh(t, "cat /etc/hostname"), host(t, "cat /etc/hosts"))
		host(t, "echo nameserver 192.0.2.54 > /etc/new && mv /etc/new /etc/resolv.conf")
		equal(t, "resolv.conf, renamed", in.sh(t, "cat /etc/resolv.conf"), "nameserver 192.0.2.54")
	})
}

func TestHide(t *testing.T) {
	for _, method := range []string{"overlay", "links"} {
		t.Run(method, func(t *testing.T) {
			asHost(t, 1001, func(t *testing.T) {
				fakeDir(t, "/etc", true)
				fakeDir(t, "/srv", false)
				const key = "PrivateKey = x"
				write(t, "/etc/wireguard/wg0.conf", key)
				write(t, "/srv/real.conf", key)
				write(t, "/srv/state/uapi.sock", key)
				write(t, "/srv/shown/uapi.sock", "shown")
				host(t, "ln -s real.conf /srv/link.conf; ln -s /etc/wireguard/wg0.conf /srv/etc.conf; mkfifo /srv/fifo")
				if method == "links" {
					host(t, "mount --bind /etc/hosts /etc/hosts")
				}
				cfg := ownConfig()
				cfg.HideDirs = []string{"/srv/state", "/srv/absent", "/srv/shown"}
				cfg.HideFiles = []string{"/srv/link.conf", "/srv/etc.conf", "/srv/fifo", "/srv/absent.conf"}
				cfg.Expose = []string{"/srv/shown"}
				in := startInside(t, cfg)
				equal(t, "hidden", in.sh(t, "cat /srv/link.conf /srv/real.conf /srv/etc.conf /etc/wireguard/wg0.conf /etc/.host/wireguard/wg0.conf; ls -A /srv/state"), "")
				equal(t, "exposed", in.sh(t, "cat /srv/shown/uapi.sock"), "shown")
				out, code := in.app(t, "sh", "-c", "rm -rf /srv/state /srv/real.conf; touch /srv/state/x; echo x > /srv/real.conf")
				if code == 0 {
					t.Errorf("could write to what is hidden: %s", out)
				}
				equal(t, "on the host", host(t, "cat /srv/real.conf"), key)
			})
		})
	}
}
