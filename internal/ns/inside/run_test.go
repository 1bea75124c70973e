package inside

import (
	"net"
	"os"
	"strings"
	"testing"
)

func listen(t *testing.T, path string) {
	t.Helper()
	socket, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
}

func TestRunIsAnAllowList(t *testing.T) {
	asHost(t, 1001, func(t *testing.T) {
		fakeDir(t, "/run", false)
		host(t, "mkdir -p /run/user/1001/pulse /run/user/1001/gnupg /run/user/1002 /run/udev/data /run/nscd /run/lock /run/deep/one; "+
			"ln -s /dev/shm /run/shm; ln -s /nix/store/x /run/current-system; ln -s deep/one /run/ring; ln -s ../../ring /run/deep/one/ring; "+
			"chmod 700 /run/user/1001; mkdir /run/many; mount -t tmpfs below /run/udev/data; echo b8:0 > /run/udev/data/b8:0; echo cookie > /run/user/1001/pulse/cookie")
		for _, path := range []string{"/run/user/1001/wayland-0", "/run/user/1001/bus", "/run/nscd/socket", "/run/many/kept", "/run/many/not", "/run/deep/one/socket"} {
			listen(t, path)
		}
		cfg := ownConfig()
		cfg.Keep = []string{"/run/user/1001/wayland-*", "/run/user/1001/pulse", "/run/udev/data", "/run/shm", "/run/current-system", "/run/absent"}
		cfg.Expose = []string{"/var/run/many/kept", "/run/ring", "/run/many/kept", "/run/ring", "/run/user/1001/wayland-0", "/run/user/1001/pulse/cookie", "/run/udev/data/b8:0"}
		in := startInside(t, cfg)
		if len(in.notes) != 0 {
			t.Errorf("notes: %q", in.notes)
		}
		listen(t, "/run/user/1001/late")
		listen(t, "/run/nscd/late")
		host(t, "mkdir /run/systemd; mkdir /run/user/1001/pulse/later")
		listen(t, "/run/systemd/late")
		equal(t, "/run", in.sh(t, "cd /run && find . | sort"), strings.Join([]string{
			".", "./current-system", "./deep", "./deep/one", "./deep/one/ring", "./deep/one/socket", "./lock", "./many", "./many/kept", "./ring", "./shm",
			"./udev", "./udev/data", "./udev/data/b8:0",
			"./user", "./user/1001", "./user/1001/pulse", "./user/1001/pulse/cookie", "./user/1001/pulse/later", "./user/1001/wayland-0",
		}, "\n"))
		equal(t, "kinds", in.sh(t, "stat -c '%F %a' /run /run/lock /run/user/1001 /run/user/1001/wayland-0 /run/many/kept"),
			"directory 755\ndirectory 1777\ndirectory 700\nsocket 755\nsocket 755")
		equal(t, "files", in.sh(t, "cat /run/user/1001/pulse/cookie /run/udev/data/b8:0"), "cookie\nb8:0")
		equal(t, "links", in.sh(t, "readlink /run/shm /run/current-system"), "/dev/shm\n/nix/store/x")
		in.sh(t, "touch /run/user/1001/mine /run/lock/mine")
		if _, err := os.Stat("/run/user/1001/mine"); err == nil {
			t.Error("what the app wrote into its runtime directory is on the host")
		}
	})
}

func TestExposeAllOfRun(t *testing.T) {
	asHost(t, 1001, func(t *testing.T) {
		fakeDir(t, "/run", false)
		cfg := ownConfig()
		cfg.Expose = []string{"/run"}
		in := startInside(t, cfg)
		write(t, "/run/late", "late")
		equal(t, "/run", in.sh(t, "cat /run/late"), "late")
	})
}

// A /var/run that is a directory of its own is an allow list too.
func TestVarRunAsDirectory(t *testing.T) {
	asHost(t, 1001, func(t *testing.T) {
		fakeDir(t, "/var", false)
		host(t, "mkdir -p /var/run/nscd")
		listen(t, "/var/run/nscd/socket")
		in := startInside(t, ownConfig())
		equal(t, "/var/run", in.sh(t, "ls -A /var/run"), "")
		listen(t, "/var/run/nscd/late")
		equal(t, "/var/run", in.sh(t, "ls -A /var/run"), "")
	})
}

// The host's later mounts and unmounts reach the app, but never on top of ours.
func TestHostMountsLater(t *testing.T) {
	asHost(t, 1001, func(t *testing.T) {
		fakeDir(t, "/srv", false)
		fakeDir(t, "/var/lib", false)
		fakeDir(t, "/run", false) // two of them, for one to be taken away
		fakeDir(t, "/run", false)
		host(t, "mkdir -p /srv/before /srv/after /var/lib/sss/pipes; mount --make-rshared /; "+
			"mount -t tmpfs stick /srv/before && echo stick > /srv/before/file")
		cfg := ownConfig()
		cfg.HideDirs = []string{"/var/lib/sss/pipes"}
		in := startInside(t, cfg)
		equal(t, "mounted before", in.sh(t, "cat /srv/before/file"), "stick")
		host(t, "umount /srv/before; mount -t tmpfs disk /srv/after && echo disk > /srv/after/file")
		equal(t, "mounted after", in.sh(t, "cat /srv/after/file; ls /srv/before"), "disk")

		host(t, `for dir in /run /etc /var/lib/sss/pipes; do
			mount -n -t tmpfs over $dir; mkdir -p $dir/nscd
			echo over > $dir/nscd/socket; echo over > $dir/resolv.conf; echo over > $dir/nss
		done`)
		inspect := "cat /etc/resolv.conf /run/nscd/socket /var/lib/sss/pipes/nss 2>/dev/null; umount -l /etc /run /var/lib/sss/pipes 2>/dev/null; cat /etc/resolv.conf"
		want := ownResolv + "\n" + ownResolv
		equal(t, "mounted over", in.sh(t, inspect), want)
		out, _ := in.appAs(t, "--map-root-user", "sh", "-c", inspect)
		equal(t, "mounted over, app with capabilities", out, want)
		host(t, "umount -n /run /etc /var/lib/sss/pipes")
		equal(t, "unmounted again", in.sh(t, inspect), want)
		host(t, "umount -n -l /run && mkdir -p /run/nscd && echo lazy > /run/nscd/socket && echo lazy > /run/resolv.conf")
		equal(t, "unmounted lazily", in.sh(t, inspect), want)
	})
}
