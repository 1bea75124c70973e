package conf

import (
	"strconv"
	"strings"
)

// A Table says where the routes go: [TableAuto], [TableOff] or the number of
// a routing table.
type Table uint32

const (
	TableAuto Table = 0
	TableOff  Table = 1<<32 - 1
)

// namedTables are known to every Linux; other names are in files of the host.
// The kernel reads table 0 as main.
var namedTables = map[string]Table{
	"": TableAuto, "auto": TableAuto, "off": TableOff,
	"default": 253, "main": 254, "local": 255, "0": 254,
}

// String returns the table as wg-quick reads it.
func (t Table) String() string {
	switch t {
	case TableAuto:
		return "auto"
	case TableOff:
		return "off"
	}
	return strconv.FormatUint(uint64(t), 10)
}

// MarshalText returns what String returns.
func (t Table) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (t *Table) UnmarshalText(text []byte) error {
	table, wrong := parseTable(string(text))
	if wrong != nil {
		wrong.Problem = "table " + wrong.Problem
		return wrong
	}
	*t = table
	return nil
}

func parseTable(s string) (Table, *Error) {
	if t, ok := namedTables[strings.ToLower(s)]; ok {
		return t, nil
	}
	n, err := strconv.ParseUint(s, 0, 32)
	if t := Table(n); err == nil && t != TableAuto && t != TableOff {
		return t, nil
	}
	return 0, fault("is not a routing table", "write auto, off or a number; names other than main, default and local are not looked up")
}
