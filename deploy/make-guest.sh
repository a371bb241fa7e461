#!/bin/sh
# make-guest.sh AGENT OUTDIR [KERNEL_PACKAGE.deb]
#
# The default guest, or nothing if it is there and made from the same:
#   OUTDIR/kernel       what `motted kernel add` takes: Debian's cloud kernel, initramfs with AGENT
#   OUTDIR/python.sqfs  what `motted image add` takes: Debian with Python
# OUTDIR/linux keeps the unpacked kernel package; remove it to fetch a newer one.
set -eu

die() {
    echo "make-guest.sh: $*" >&2
    exit 1
}

[ $# -eq 2 ] || [ $# -eq 3 ] || die "usage: make-guest.sh AGENT OUTDIR [KERNEL_PACKAGE.deb]"
agent=$1 out=$2 deb=${3-}
here=$(cd "$(dirname "$0")" && pwd)
[ -r "$agent" ] || die "cannot read $agent: build the target motte-agent first"
mkdir -p "$out"

# stamp FILE...: one digest of what something is made from.
stamp() {
    cat "$@" | sha256sum | cut -d' ' -f1
}

# is_made_from STAMP NAME: NAME is there and was made from this.
is_made_from() {
    [ -e "$out/$2" ] && [ -r "$out/$2.stamp" ] && [ "$(cat "$out/$2.stamp")" = "$1" ]
}

if [ ! -d "$out/linux" ]; then
    if [ -n "$deb" ]; then
        "$here/kernel/fetch-kernel.sh" "$out/linux" "$deb"
    else
        "$here/kernel/fetch-kernel.sh" "$out/linux"
    fi
fi

made_from=$(stamp "$agent" "$out/linux/package" "$here/kernel/make-kernel-dir.sh" \
    "$here/initramfs/build.sh" "$here/image/make-scratch.sh")
if is_made_from "$made_from" kernel; then
    echo "$out/kernel is up to date"
else
    rm -rf "$out/kernel"
    "$here/kernel/make-kernel-dir.sh" "$out/linux" "$agent" "$out/kernel"
    echo "$made_from" >"$out/kernel.stamp"
fi

made_from=$(stamp "$here/image/build-image.sh" "$here/image/python.packages")
if is_made_from "$made_from" python.sqfs; then
    echo "$out/python.sqfs is up to date"
else
    "$here/image/build-image.sh" "$here/image/python.packages" "$out/python.sqfs"
    echo "$made_from" >"$out/python.sqfs.stamp"
fi
