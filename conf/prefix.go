package conf

import (
	"math/bits"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// splitList splits as wg-quick does: at commas and white space, empty elements
// left out.
func splitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(","+space, r) })
}

// parseAddr reads an address with or without a zone. netip takes any text as a
// zone; the kernel has only names of interfaces.
func parseAddr(s string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(s)
	return addr, err == nil && (addr.Zone() == "" || interfaceName.MatchString(addr.Zone()))
}

// parsePrefix reads an address with or without a mask and keeps its host bits.
func parsePrefix(s string) (netip.Prefix, *Error) {
	host, mask, masked := strings.Cut(s, "/")
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Zone() != "" {
		return netip.Prefix{}, fault("has a part"+shown(s)+" that is not an IP address", "write ADDRESS/BITS, with commas between several")
	}
	if !masked {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	n, err := strconv.ParseUint(mask, 10, 8)
	if err != nil || int(n) > addr.BitLen() {
		return netip.Prefix{}, fault("has a part"+shown(s)+" with a wrong mask", "a mask is a number from 0 to "+strconv.Itoa(addr.BitLen()))
	}
	return netip.PrefixFrom(addr, int(n)), nil
}

// parseAddress also reads 10.0.0.2/255.255.255.0, which ip-address(8) and so
// wg-quick take, wg(8) not.
func parseAddress(s string) (netip.Prefix, *Error) {
	if host, mask, ok := strings.Cut(s, "/"); ok {
		if dotted, err := netip.ParseAddr(mask); err == nil && dotted.Is4() {
			b := dotted.As4()
			m := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
			if ones := bits.LeadingZeros32(^m); bits.OnesCount32(m) == ones {
				return parsePrefix(host + "/" + strconv.Itoa(ones))
			}
		}
	}
	return parsePrefix(s)
}

// addressLike holds for what is written like an address. It never has more
// than four hexadecimal digits in a row, so it shows nothing of a key.
var addressLike = regexp.MustCompile(`^[0-9a-fA-F]{0,4}([.:/]+[0-9a-fA-F]{0,4})+$`)

// shown quotes s after a space if s is written like an address; otherwise it
// is "", since somebody may have put a key there.
func shown(s string) string {
	if len(s) > 50 || !addressLike.MatchString(s) {
		return ""
	}
	return " " + strconv.Quote(s)
}
