package demo

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"wireguard4netns/internal/sys"
)

// rights sees that a program inside has none over the tunnel. It tries what must
// not work only after it saw that the namespaces are not its own, so it does no
// harm wherever it is run.
func (v View) rights() (string, error) {
	held, err := capabilities()
	if err != nil {
		return "", err
	}
	if held != noCapability {
		if err := onlyItsOwn(); err != nil {
			return "", fmt.Errorf("it has %s: %w", held, err)
		}
	}
	for _, attempt := range []struct {
		what string
		try  func() error
	}{
		{"unmount /etc", unmountEtc},
		{"add a route", v.addRoute},
		{"open a raw socket", rawSocket},
	} {
		err := attempt.try()
		if err == nil {
			return "", fmt.Errorf("it can %s", attempt.what)
		}
		if !errors.Is(err, unix.EPERM) {
			return "", fmt.Errorf("%s: %w", attempt.what, err)
		}
	}
	return held + "; unmounting /etc, adding a route, a raw socket: " + unix.EPERM.Error(), nil
}

const (
	noCapability = "no capability"
	rootOfItself = "capabilities over nothing but itself" // of the app of a user who is root
)

// capabilities says what the process holds, from proc_pid_status(5). To be able
// to gain more is an error.
func capabilities() (held string, err error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "", err
	}
	held = noCapability
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch name {
		case "CapInh", "CapPrm", "CapEff", "CapAmb":
			if strings.Trim(value, "0") != "" {
				held = rootOfItself
			}
		case "NoNewPrivs":
			if value != "1" {
				return "", errors.New("it could gain rights by a setuid program")
			}
		}
	}
	return held, nil
}

// onlyItsOwn sees that the capabilities, which root always has in a user
// namespace, are not over the network namespace: the kernel shows the owner of
// that only to who could have them, ioctl_ns(2).
func onlyItsOwn() error {
	netns, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return err
	}
	defer netns.Close()
	owner, err := sys.UserNSOf(int(netns.Fd()))
	if err == nil {
		owner.Close()
		return errors.New("the network namespace is its own")
	}
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	return nil
}

// unmountEtc tries to look beneath the mask. To who has CAP_SYS_ADMIN the kernel
// says EINVAL of a mount that is locked, mount_namespaces(7).
func unmountEtc() error {
	err := unix.Unmount("/etc", unix.MNT_DETACH)
	if err == unix.EINVAL {
		return unix.EPERM
	}
	return err
}

// addRoute asks for a route over the link to an address for documentation
// (RFC 5737), as rtnetlink(7) has it.
func (v View) addRoute() error {
	l, err := net.InterfaceByName(v.IfName)
	if err != nil {
		return err
	}
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	attributes := netlink.NewAttributeEncoder()
	attributes.Bytes(unix.RTA_DST, []byte{198, 51, 100, 1})
	attributes.Uint32(unix.RTA_OIF, uint32(l.Index))
	encoded, err := attributes.Encode()
	if err != nil {
		return err
	}
	// struct rtmsg: family, lengths of destination and source, TOS, table,
	// protocol, scope, type, and four bytes of flags.
	rtmsg := []byte{unix.AF_INET, 32, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_LINK, unix.RTN_UNICAST, 0, 0, 0, 0}
	_, err = c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_NEWROUTE, Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Excl},
		Data:   append(rtmsg, encoded...),
	})
	return err
}

func rawSocket() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
