#!/bin/bash
# build.sh DIR: what the nested host boots, or nothing if it is there and made from the same.
#
#   DIR/linux         Debian's stock kernel, unpacked (nothing is installed on this machine)
#   DIR/modules.sqfs  its modules
#   DIR/host.sqfs     Debian with systemd and the libraries that Motte needs
#   DIR/initramfs     finds the file systems, lays them over each other and starts systemd
#
#   MOTTE_NESTED_DEB  Debian's linux-image-…-amd64 package, instead of downloading it
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
die() {
    echo "build.sh: $*" >&2
    exit 1
}
[ $# -eq 1 ] || die "usage: build.sh DIR"
mkdir -p "$1"
dir=$(cd "$1" && pwd)

# made NAME FILE...: DIR/NAME is there and was made from these files; else notes what it will be from.
made() {
    local name=$1 stamp
    shift
    stamp=$(cat "$@" | sha256sum)
    [ ! -e "$dir/$name" ] || [ "$(cat "$dir/$name.stamp" 2>/dev/null)" != "$stamp" ] || return 0
    rm -rf "${dir:?}/$name"
    echo "$stamp" >"$dir/$name.stamp"
    return 1
}

fetch_kernel() {
    local deb=${MOTTE_NESTED_DEB-} name
    rm -rf "$dir/download" "$dir/linux.part"
    mkdir "$dir/download"
    if [ -z "$deb" ]; then
        name=$(apt-cache depends --no-recommends --no-suggests linux-image-amd64 |
            sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*-amd64\)$/\1/p' | head -n 1)
        [ -n "$name" ] || die "apt knows no linux-image-amd64: run apt-get update"
        (cd "$dir/download" && apt-get -o APT::Sandbox::User=root download -qq "$name")
        deb=$(find "$dir/download" -name '*.deb')
    fi
    dpkg-deb -x "$deb" "$dir/linux.part"
    depmod -b "$dir/linux.part" "$(basename "$dir"/linux.part/lib/modules/*)"
    mv "$dir/linux.part" "$dir/linux"
    rm -rf "$dir/download"
}

# Under /usr: a /lib of their own would hide Debian's, which is a link.
make_modules() {
    tar -C "$dir/linux" --transform 's,^,usr/,' -c lib/modules |
        mksquashfs - "$dir/modules.sqfs" -tar -comp zstd -Xcompression-level 1 -noappend -quiet \
            -no-progress
}

# busybox, and in load order the modules it takes to mount the file systems.
make_initramfs() {
    local root=$dir/initramfs.root kver module
    kver=$(basename "$dir"/linux/lib/modules/*)
    rm -rf "$root"
    mkdir -p "$root"/{bin,dev,proc,sys,modules,layers,new}
    cp /usr/bin/busybox "$root/bin/busybox"
    install -m 0755 "$here/initramfs.sh" "$root/init"
    for module in virtio_pci virtio_blk squashfs loop overlay; do
        modprobe -d "$dir/linux" -S "$kver" --show-depends "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' |
        while read -r module; do
            cp "$module" "$root/modules/"
            basename "$module"
        done >"$root/modules/order"
    (cd "$root" && find . -mindepth 1 | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet) >"$dir/initramfs.part"
    mv "$dir/initramfs.part" "$dir/initramfs"
    rm -rf "$root"
}

[ -d "$dir/linux" ] || fetch_kernel
made modules.sqfs "$dir"/linux/boot/config-* "$here/build.sh" || make_modules
made initramfs "$dir"/linux/boot/config-* "$here/build.sh" "$here/initramfs.sh" /usr/bin/busybox || make_initramfs
made host.sqfs "$here/host.packages" "$top/deploy/image/build-image.sh" ||
    "$top/deploy/image/build-image.sh" "$here/host.packages" "$dir/host.sqfs"
