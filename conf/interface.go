package conf

import (
	"strconv"
	"strings"
)

// An IPv4 link has an MTU of at least 68 (RFC 791); no IP packet is longer
// than 65535.
const minMTU, maxMTU = 68, 65535

var interfaceSection = &section{title: "[Interface]"}

// The table is filled in here because its functions refer to it.
func init() {
	interfaceSection.keys = []key{
		{"PrivateKey", false, (*parser).setPrivateKey},
		{"ListenPort", false, (*parser).setListenPort},
		{"FwMark", false, (*parser).setFwMark},
		{"Address", true, (*parser).addAddresses},
		{"DNS", true, (*parser).addDNS},
		{"MTU", false, (*parser).setMTU},
		{"Table", false, (*parser).setTable},
		{"PreUp", true, func(p *parser, v string) *Error { return addHook(&p.config.Interface.PreUp, v) }},
		{"PostUp", true, func(p *parser, v string) *Error { return addHook(&p.config.Interface.PostUp, v) }},
		{"PreDown", true, func(p *parser, v string) *Error { return addHook(&p.config.Interface.PreDown, v) }},
		{"PostDown", true, func(p *parser, v string) *Error { return addHook(&p.config.Interface.PostDown, v) }},
		{"SaveConfig", false, (*parser).setSaveConfig},
	}
}

const keyForm = "a key is 32 bytes, written as 44 characters of base64"

func (p *parser) setPrivateKey(value string) *Error {
	k, err := ParsePrivateKey(squeeze(value))
	switch {
	case err != nil:
		return fault(err.Error(), keyForm)
	case k.IsZero():
		return fault("is all zeros", "put the real key there")
	}
	p.config.Interface.PrivateKey = k
	return nil
}

func (p *parser) setListenPort(value string) *Error {
	n, err := strconv.ParseUint(squeeze(value), 10, 16)
	if err != nil {
		return fault("is not a port", "write a number from 1 to 65535, or 0 for any")
	}
	p.config.Interface.ListenPort = uint16(n)
	return nil
}

func (p *parser) setFwMark(value string) *Error {
	value = strings.ToLower(squeeze(value))
	digits, base := value, 10
	if hex, ok := strings.CutPrefix(value, "0x"); ok {
		digits, base = hex, 16
	}
	n, err := strconv.ParseUint(digits, base, 32)
	if err != nil && value != "off" {
		return fault("is not a mark", "write off or a number of 32 bits, decimal or with 0x in front")
	}
	p.config.Interface.FwMark = uint32(n)
	return nil
}

func (p *parser) addAddresses(value string) *Error {
	i := &p.config.Interface
	for _, s := range splitList(value) {
		prefix, wrong := parseAddress(s)
		if wrong != nil {
			return wrong
		}
		if p.addresses[prefix] {
			p.warn(RepeatedAddress, "Address %v is given twice", prefix)
			continue
		}
		p.addresses[prefix] = true
		i.Addresses = append(i.Addresses, prefix)
	}
	return nil
}

func (p *parser) addDNS(value string) *Error {
	i := &p.config.Interface
	for _, s := range splitList(value) {
		// wg-quick too calls it an address by its characters alone.
		if strings.Contains(s, ":") || strings.Trim(s, "0123456789.") == "" {
			addr, ok := parseAddr(s)
			if !ok {
				return fault("has a part"+shown(s)+" that is not an IP address", "write addresses and search domains, with commas between them")
			}
			i.DNS = append(i.DNS, addr)
			continue
		}
		domain, routing := strings.CutPrefix(s, "~")
		switch {
		case routing && (domain == "." || isHostName(domain)):
			p.warn(RoutingDomain, "DNS has a domain with ~ in front, which asks for routing and not for searching: it is left out")
		case isHostName(s):
			i.Search = append(i.Search, s)
		default:
			return fault("has a part that is neither an IP address nor a search domain", "write addresses and search domains, with commas between them")
		}
	}
	return nil
}

func (p *parser) setMTU(value string) *Error {
	n, err := strconv.ParseUint(value, 10, 32)
	if value != "" && (err != nil || n < minMTU || n > maxMTU) {
		return fault("is not an MTU", "write a number from 68 to 65535; 1280 to 1420 is usual")
	}
	p.config.Interface.MTU = int(n)
	return nil
}

func (p *parser) setTable(value string) (wrong *Error) {
	p.config.Interface.Table, wrong = parseTable(value)
	return wrong
}

func addHook(hooks *[]string, value string) *Error {
	if value != "" {
		*hooks = append(*hooks, value)
	}
	return nil
}

func (p *parser) setSaveConfig(value string) *Error {
	switch strings.ToLower(value) {
	case "true":
		p.config.Interface.SaveConfig = true
	case "false":
		p.config.Interface.SaveConfig = false
	default:
		return fault("is neither true nor false", "write one of the two")
	}
	return nil
}
