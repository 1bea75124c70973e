#!/bin/sh
# getnss.sh DIR: puts the real nscd and systemd-resolved, their NSS modules and
# libraries, unpacked from Debian's packages but not installed, into DIR/nss.
# Needs the package lists (apt-get update), no root. Does nothing when they are
# there.
#
# They must not be installed: systemd-resolved's package takes over the
# machine's own /etc/resolv.conf.
set -eu
test $# = 1 || { echo "usage: $0 DIR" >&2; exit 2; }
target=$1/nss
test ! -e "$target" || exit 0

programs="nscd systemd-resolved libnss-resolve libnss-myhostname libsystemd-shared"
libraries=$(apt-cache depends $programs | sed -n 's/^ [ |]\(Pre\)\?Depends: \(lib[a-z0-9.+-]*\)$/\2/p' | sort -u | grep -vx libc6)

mkdir -p "$1"
aside=$(mktemp -d "$1/nss.XXXXXX")
trap 'rm -rf "$aside"' EXIT
export HOME="$aside"
(cd "$aside" && apt-get download -q $programs $libraries >&2)
for deb in "$aside"/*.deb; do
	dpkg -x "$deb" "$aside/root"
done
chmod 755 "$aside/root"
mv -T "$aside/root" "$target"
