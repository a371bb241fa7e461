#!/bin/sh
# build-image.sh PACKAGE_LIST OUT.sqfs
#
# A Debian 12 root file system with the packages of PACKAGE_LIST (one name a line, # starts a
# comment) as a read-only squashfs. The agent is not in it: it comes with the kernel's initramfs.
# The same list, the same state of the archive and the same SOURCE_DATE_EPOCH give the same bytes.
#
#   SOURCE_DATE_EPOCH     time stamp of everything in the image (default below)
#   MOTTE_DEBIAN_MIRROR   where to fetch from (default: mmdebstrap's); name a snapshot of the
#                         archive here to build the same image again in a year
set -eu

die() {
    echo "build-image.sh: $*" >&2
    exit 1
}

[ $# -eq 2 ] || die "usage: build-image.sh PACKAGE_LIST OUT.sqfs"
list=$1 out=$2
[ -r "$list" ] || die "cannot read $list: give a file with one package name a line"
for tool in mmdebstrap mksquashfs; do
    command -v "$tool" >/dev/null ||
        die "$tool is missing: apt-get install mmdebstrap squashfs-tools"
done

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH-1735689600}
export SOURCE_DATE_EPOCH LC_ALL=C
umask 022

packages=$(sed 's/#.*//' "$list" | tr -s '[:space:]' '\n' | sort -u | paste -sd, - | sed 's/^,//')
case $packages in
'') die "$list names no package" ;;
*[!a-z0-9.+,-]*) die "$list: a package name may hold a-z 0-9 . + - only" ;;
esac

# Beside the result, not in /tmp: some 200 MiB, and the last step is a rename.
work=$(mktemp -d "$out.XXXXXX") || die "cannot make a directory beside $out"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# Manuals and translations serve nobody in a microVM; licences stay. Name and resolver of the
# building host must not reach the image.
# shellcheck disable=SC2016 # $1 is for the hook's own shell
set -- --quiet --variant=minbase --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --customize-hook='echo motte >"$1/etc/hostname"' \
    --customize-hook='printf "127.0.0.1 localhost motte\n::1 localhost\n" >"$1/etc/hosts"' \
    --customize-hook=': >"$1/etc/resolv.conf"' \
    --customize-hook='rm -rf "$1"/var/log/* "$1"/var/cache/*' \
    bookworm "$work/root.tar"
[ -z "${MOTTE_DEBIAN_MIRROR-}" ] || set -- "$@" "$MOTTE_DEBIAN_MIRROR"
mmdebstrap "$@" || die "mmdebstrap failed: its last words stand above. Is every package in $list" \
    "spelled as in Debian 12, and is the archive reachable?"

mksquashfs - "$work/root.sqfs" -tar -comp zstd -Xcompression-level 3 -b 128K -noappend -quiet \
    -root-mode 0755 -root-uid 0 -root-gid 0 \
    -no-progress <"$work/root.tar" || die "mksquashfs failed: is there room beside $out?"
mv "$work/root.sqfs" "$out"
echo "$out: $(stat -c %s "$out") bytes, sha256 $(sha256sum <"$out" | cut -d' ' -f1)"
