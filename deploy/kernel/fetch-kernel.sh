#!/bin/sh
# fetch-kernel.sh OUTDIR [PACKAGE.deb]
#
# Debian's stock cloud kernel, unpacked and ready for a microVM; nothing is installed on this host.
# Makes OUTDIR (which must not exist) with
#   vmlinux       the ELF out of the package's bzImage
#   lib/modules/  its modules, for deploy/initramfs/build.sh
#   kver, config  the kernel's release and configuration
#   package       name, version and SHA-256 of the package
#   boot_args     leaves out what a microVM has no use for: a fifth of the boot time under emulation
# apt finds the newest package and checks it against the archive's signatures. A PACKAGE.deb given
# by name is taken as it is.
set -eu

die() {
    echo "fetch-kernel.sh: $*" >&2
    exit 1
}

[ $# -eq 1 ] || [ $# -eq 2 ] || die "usage: fetch-kernel.sh OUTDIR [PACKAGE.deb]"
out=$1 deb=${2-}
here=$(cd "$(dirname "$0")" && pwd)
[ ! -e "$out" ] || die "$out is there already: remove it or name another"
for tool in dpkg-deb python3 lz4; do
    command -v "$tool" >/dev/null || die "$tool is missing: apt-get install dpkg python3 lz4"
done
work=$(mktemp -d "$out.XXXXXX") || die "cannot make a directory beside $out"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
umask 022

if [ -z "$deb" ]; then
    command -v apt-get >/dev/null ||
        die "this needs apt-get; elsewhere give Debian's linux-image-…-cloud-amd64 package by name"
    name=$(apt-cache depends --no-recommends --no-suggests linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*-cloud-amd64\)$/\1/p' | head -n 1)
    [ -n "$name" ] ||
        die "apt knows no linux-image-cloud-amd64: run apt-get update, or this is not Debian"
    (cd "$work" && apt-get -o APT::Sandbox::User=root download -qq "$name") ||
        die "cannot download $name: run apt-get update and try again"
    deb=$(find "$work" -maxdepth 1 -name '*.deb')
fi
[ -r "$deb" ] || die "cannot read $deb"

mkdir "$work/tree" "$work/out" "$work/out/lib" "$work/out/lib/modules"
dpkg-deb -x "$deb" "$work/tree" || die "$deb is no Debian package"
image=$(find "$work/tree/boot" -name 'vmlinuz-*' 2>/dev/null)
[ -f "$image" ] || die "$deb holds no kernel: it should be a linux-image-…-amd64 package"
kver=${image##*/vmlinuz-}
python3 "$here/unpack-kernel.py" "$image" "$work/out/vmlinux"
mv "$work/tree/lib/modules/$kver" "$work/out/lib/modules/$kver"
mv "$work/tree/boot/config-$kver" "$work/out/config"
echo "$kver" >"$work/out/kver"
echo 'lsm=landlock audit=0 cryptomgr.notests' >"$work/out/boot_args"
echo "$(dpkg-deb -W "$deb") $(sha256sum <"$deb" | cut -d' ' -f1)" >"$work/out/package"
chmod 0755 "$work/out"
mv "$work/out" "$out"
echo "$out: Linux $kver, vmlinux $(stat -c %s "$out/vmlinux") bytes," \
    "sha256 $(sha256sum <"$out/vmlinux" | cut -d' ' -f1)"
