package dns

import "bytes"

const nsswitchHosts = "hosts: files dns\n"

// Nsswitch returns host, the content of an nsswitch.conf(5), with its hosts
// lines replaced by one that names only "files" and "dns": no other source
// (resolve, mdns4_minimal, sss, nis …) may carry a name to the host. All other
// lines are kept as they are, in their order. An empty host is a missing file.
//
// What counts as a hosts line follows glibc (nss/nss_database.c), which is
// looser than the manual: leading blanks are skipped, the colon may be missing
// or have blanks before it, nothing continues a line, and the last of several
// lines wins. Where other parsers or locales may be looser still (letter case,
// bytes above 127 as blanks) it errs towards taking the line out.
func Nsswitch(host []byte) []byte {
	var b bytes.Buffer
	for line := range bytes.Lines(host) {
		if isHostsLine(line) {
			continue
		}
		b.Write(line)
	}
	if b.Len() > 0 && !bytes.HasSuffix(b.Bytes(), []byte("\n")) {
		b.WriteByte('\n')
	}
	b.WriteString(nsswitchHosts)
	return b.Bytes()
}

func isHostsLine(line []byte) bool {
	line = bytes.TrimLeftFunc(line, isBlank)
	end := bytes.IndexFunc(line, func(r rune) bool { return isBlank(r) || r == ':' || r == '#' })
	if end >= 0 {
		line = line[:end]
	}
	return bytes.EqualFold(line, []byte("hosts"))
}

// isBlank takes each byte that some C locale may call a space. A byte above
// 127 that is no UTF-8 arrives as U+FFFD.
func isBlank(r rune) bool { return r <= ' ' || r >= 0x7f }
