package conf

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

var interfaceName = regexp.MustCompile(`^[a-zA-Z0-9_=+.-]{1,15}$`)

const nameRule = "1 to 15 of the characters a-z A-Z 0-9 _ = + . -"

// InterfaceName returns the interface that wg-quick(8) makes from file: the
// last element of its path without ".conf".
func InterfaceName(file string) (string, error) {
	name, ok := strings.CutSuffix(path.Base(file), ".conf")
	if !ok {
		return "", &Error{File: file, Problem: "name does not end in .conf",
			Hint: "the file is to be called NAME.conf, NAME being the interface; or give an interface name"}
	}
	if wrong := checkName(name); wrong != nil {
		wrong.File = file
		wrong.Hint += "; rename the file or give another interface name"
		return "", wrong
	}
	return name, nil
}

// CheckInterfaceName says why name cannot name the interface: wg-quick's rule,
// and the names that the kernel keeps for itself in every network namespace.
func CheckInterfaceName(name string) error {
	if wrong := checkName(name); wrong != nil {
		return wrong
	}
	return nil
}

func checkName(name string) *Error {
	switch {
	case len(name) > 15:
		return fault(fmt.Sprintf("interface name has %d characters", len(name)), "at most 15 are allowed")
	case !interfaceName.MatchString(name):
		return fault(fmt.Sprintf("%q cannot name an interface", name), "a name is "+nameRule)
	}
	switch name {
	case ".", "..", "all", "default", "lo":
		return fault(fmt.Sprintf("%q cannot name an interface", name), "the kernel keeps this name for itself")
	}
	return nil
}
