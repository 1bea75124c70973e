package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// View is what a program inside is to see.
type View struct {
	IfName    string
	Addresses []netip.Prefix
	DNS       netip.Addr
	Page      netip.AddrPort
	Host      netip.AddrPort // where the host listens, and the inside must not get to
}

// String returns v as Look reads it.
func (v View) String() string {
	text, _ := json.Marshal(v) // all of it has a text form
	return string(text)
}

// Look is the role of a program in the tunnel: it prints a line for each thing of
// view that is to be true, and tells whether all were.
func Look(w io.Writer, view string) (ok bool, err error) {
	var v View
	if err := json.Unmarshal([]byte(view), &v); err != nil {
		return false, fmt.Errorf("read view: %w", err)
	}
	return report(w, []step{
		{"link", v.link},
		{"routes", v.routes},
		{"DNS", v.dns},
		{"page", v.fetch},
		{"host", v.host},
		{"rights", v.rights},
	}), nil
}

// link sees that the link is there as the file says, and no other.
func (v View) link() (string, error) {
	links, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	seen := ""
	for _, l := range links {
		switch {
		case l.Name == v.IfName:
			addrs, err := addresses(l)
			if err != nil {
				return "", err
			}
			if !slices.Equal(addrs, v.Addresses) {
				return "", fmt.Errorf("%s has %s and not %s", l.Name, join(addrs), join(v.Addresses))
			}
			seen = fmt.Sprintf("%s with %s, MTU %d", l.Name, join(addrs), l.MTU)
		case l.Name != "lo" && l.Flags&net.FlagUp != 0: // some kernels give each namespace a tunl0 that is down
			return "", fmt.Errorf("there is another link: %s", l.Name)
		}
	}
	if seen == "" {
		return "", fmt.Errorf("there is no link %s", v.IfName)
	}
	return seen + "; besides lo the only one", nil
}

func addresses(l net.Interface) (list []netip.Prefix, err error) {
	addrs, err := l.Addrs()
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, err
}

func join(list []netip.Prefix) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", ", "), "[]")
}

// routes sees that each route goes over the link, and that all else does too.
func (v View) routes() (string, error) {
	four, err := table("/proc/net/route", 0, "00000000", 1)
	if err != nil {
		return "", err
	}
	six, err := table("/proc/net/ipv6_route", 9, strings.Repeat("0", 32), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) { // a kernel without IPv6
		return "", err
	}
	defaults := 0
	for _, r := range append(four, six...) {
		if r.link != v.IfName && r.link != "lo" {
			return "", fmt.Errorf("there is a route over %s", r.link)
		}
		if r.all && r.link == v.IfName {
			defaults++
		}
	}
	if defaults == 0 {
		return "", fmt.Errorf("there is no default route over %s", v.IfName)
	}
	return "all over " + v.IfName, nil
}

type route struct {
	link string
	all  bool // a default route
}

// table reads a routing table of proc_pid_net(5): the link's name is in one
// column, and another is zero for a default route.
func table(path string, link int, zero string, destination int) (list []route, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) > max(link, destination) && fields[0] != "Iface" {
			list = append(list, route{fields[link], fields[destination] == zero})
		}
	}
	return list, nil
}

// dns sees that names are asked of the tunnel's server, and of no other.
func (v View) dns() (string, error) {
	text, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return "", err
	}
	var servers []string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "nameserver" {
			servers = append(servers, f[1])
		}
	}
	if !slices.Equal(servers, []string{v.DNS.String()}) {
		return "", fmt.Errorf("names are asked of %v and not of %s", servers, v.DNS)
	}
	return fmt.Sprintf("names are asked of %s, through the tunnel, and of nobody else", v.DNS), nil
}

// patience is how long one step may take.
const patience = 10 * time.Second

// fetch gets the page, and sees that it knows this end by its address inside.
func (v View) fetch() (string, error) {
	url := "http://" + v.Page.String() + "/"
	// Not the default transport: a proxy of the environment is out of reach.
	client := http.Client{Timeout: patience, Transport: &http.Transport{}}
	r, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	if err != nil {
		return "", err
	}
	want := greeting(v.Addresses[0].Addr().String())
	if r.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
		return "", fmt.Errorf("%s does not say %q but %s", url, want, r.Status)
	}
	return fmt.Sprintf("%s says: %s", url, want), nil
}

// host sees that where the host listens nobody does here.
func (v View) host() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", v.Host.String())
	switch {
	case err == nil:
		c.Close()
		return "", fmt.Errorf("%s of the host can be reached", v.Host)
	case !errors.Is(err, unix.ECONNREFUSED):
		return "", err // refused is what an own loopback says; anything else proves nothing
	}
	return fmt.Sprintf("%s, where the host listens, cannot be reached: %v", v.Host, unix.ECONNREFUSED), nil
}
