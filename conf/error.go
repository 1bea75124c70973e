package conf

import "fmt"

// Error says what in a file is wrong and what would be right. No field ever
// holds text that could be part of a key.
type Error struct {
	File    string
	Line    int    // counted from 1; 0: the file as a whole
	Key     string // the known key it is about, as wg(8) spells it; may be empty
	Problem string // what is wrong
	Hint    string // what is right; may be empty
}

// Error returns file, line, problem and hint on one line.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.What()
	}
	return e.What() + ": " + e.Hint
}

// What returns file, line and problem, for those who print the hint apart.
func (e *Error) What() string {
	return position(e.File, e.Line) + e.Problem
}

// A WarningKind says what a [Warning] is about.
type WarningKind string

const (
	NoPeer              WarningKind = "no peer"              // there is no [Peer] section
	RepeatedKey         WarningKind = "repeated key"         // the last value counts
	RepeatedAddress     WarningKind = "repeated address"     // kept once
	RepeatedPeer        WarningKind = "repeated peer"        // merged, as wg does
	OwnPublicKey        WarningKind = "own public key"       // WireGuard skips such a peer
	HostBits            WarningKind = "host bits"            // an allowed IP had some; they are cleared
	MovedAllowedIP      WarningKind = "moved allowed IP"     // a later peer has it
	UnbracketedEndpoint WarningKind = "unbracketed endpoint" // IPv6 and port, split at the last colon
	RoutingDomain       WarningKind = "routing-only domain"  // "~name" in DNS, left out
)

// A Warning is about a valid file that may not mean what its author thinks.
// Like [Error] it never holds text that could be part of a key.
type Warning struct {
	File string
	Line int // counted from 1; 0: the file as a whole
	Kind WarningKind
	Text string
}

// String returns file, line and text on one line.
func (w Warning) String() string {
	return position(w.File, w.Line) + w.Text
}

func position(file string, line int) string {
	switch {
	case file == "" && line == 0:
		return ""
	case line == 0:
		return file + ": "
	}
	return fmt.Sprintf("%s:%d: ", file, line)
}
