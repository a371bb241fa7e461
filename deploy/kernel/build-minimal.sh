#!/bin/sh
# build-minimal.sh OUTDIR [LINUX_SOURCE.deb]
#
# A small kernel that boots twice as fast as the distribution's, made from Debian's linux-source-6.1
# and minimal.config. Takes some ten minutes and 3 GiB beside OUTDIR; optional, Debian's stock
# kernel (fetch-kernel.sh) serves as well. Makes OUTDIR (which must not exist) with vmlinux, kver,
# config and package. Time stamps come from SOURCE_DATE_EPOCH; no name of this host gets in.
set -eu

die() {
    echo "build-minimal.sh: $*" >&2
    exit 1
}

[ $# -eq 1 ] || [ $# -eq 2 ] || die "usage: build-minimal.sh OUTDIR [LINUX_SOURCE.deb]"
out=$1 deb=${2-}
here=$(cd "$(dirname "$0")" && pwd)
[ ! -e "$out" ] || die "$out is there already: remove it or name another"
for tool in gcc make flex bison bc xz dpkg-deb; do
    command -v $tool >/dev/null ||
        die "$tool is missing: apt-get install build-essential flex bison bc xz-utils libelf-dev"
done
[ -e /usr/include/gelf.h ] || die "gelf.h is missing: apt-get install libelf-dev"
work=$(mktemp -d "$out.XXXXXX") || die "cannot make a directory beside $out"
work=$(cd "$work" && pwd)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
umask 022

if [ -z "$deb" ]; then
    (cd "$work" && apt-get -o APT::Sandbox::User=root download -qq linux-source-6.1) ||
        die "cannot download linux-source-6.1: run apt-get update; is this Debian 12?"
    deb=$(find "$work" -maxdepth 1 -name '*.deb')
fi
[ -r "$deb" ] || die "cannot read $deb"
dpkg-deb -x "$deb" "$work/package" || die "$deb is no Debian package"
mkdir "$work/linux" "$work/out"
tar -xJf "$work/package/usr/src/linux-source-6.1.tar.xz" -C "$work/linux" --strip-components=1 ||
    die "$deb holds no Linux 6.1 source"
rm -rf "$work/package"

# Nothing of the building host in the kernel.
stamp=$(date -u -d "@${SOURCE_DATE_EPOCH-1735689600}" '+%a %b %e %H:%M:%S UTC %Y')
export KBUILD_BUILD_TIMESTAMP="$stamp" KBUILD_BUILD_USER=motte KBUILD_BUILD_HOST=motte
export LC_ALL=C
run_make() {
    make -C "$work/linux" -s "$@" >"$work/log" 2>&1 || {
        tail -n 30 "$work/log" >&2
        die "make $* failed: its last words stand above"
    }
}
run_make KBUILD_BUILD_VERSION=1 tinyconfig
cat "$here/minimal.config" >>"$work/linux/.config"
run_make olddefconfig

# olddefconfig drops silently what a missing dependency forbids. A symbol that is gone altogether
# is as good as "is not set".
while read -r line; do
    case $line in
    CONFIG_*)
        grep -qxF "$line" "$work/linux/.config" || die "minimal.config: the kernel refused $line" ;;
    '# CONFIG_'*' is not set')
        symbol=${line#\# }
        if grep -q "^${symbol%% *}=" "$work/linux/.config"; then
            die "minimal.config: the kernel turned ${symbol%% *} on again"
        fi ;;
    esac
done <"$here/minimal.config"

run_make -j"${MOTTE_JOBS-$(nproc)}" vmlinux
make -C "$work/linux" -s kernelrelease >"$work/out/kver"
strip -o "$work/out/vmlinux" "$work/linux/vmlinux"
cp "$work/linux/.config" "$work/out/config"
echo "$(dpkg-deb -W "$deb") $(sha256sum <"$deb" | cut -d' ' -f1)" >"$work/out/package"
chmod 0755 "$work/out"
mv "$work/out" "$out"
echo "$out: Linux $(cat "$out/kver"), vmlinux $(stat -c %s "$out/vmlinux") bytes," \
    "sha256 $(sha256sum <"$out/vmlinux" | cut -d' ' -f1)"
