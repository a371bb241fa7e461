#!/bin/sh
# build.sh AGENT OUT [MODULE_DIR KVER]: an initramfs with the agent as /init. The same input gives the
# same bytes.
#
# A distribution kernel has drivers as modules: MODULE_DIR is the root its package was unpacked to
# (dpkg -x linux-image-….deb MODULE_DIR), KVER its version. The list serves QEMU and Firecracker: the
# agent loads only what the machine has a device for.
set -eu

usage() {
	echo "usage: build.sh AGENT OUT [MODULE_DIR KVER]" >&2
	exit 2
}
[ $# -eq 2 ] || [ $# -eq 4 ] || usage
agent=$1 out=$2 modules=${3-} kver=${4-}
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH-1700000000}"
umask 022

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
root=$dir/root
mkdir "$root" "$root/dev" "$root/proc" "$root/sys" "$root/root"
strip -s -o "$root/init" "$agent"
chmod 0755 "$root/init"

# In load order: virtio.ko uses virtio_ring's symbols. The number is the virtio device without which
# the module is of no use (3 console, 4 entropy, 19 vsock).
order="virtio_ring
virtio
virtio_mmio
virtio_blk
virtio_console 3
rng-core 4
virtio-rng 4
vsock 19
vmw_vsock_virtio_transport_common 19
vmw_vsock_virtio_transport 19
squashfs
overlay"

add_module() {
	name=$1 device=$2
	file=$(find "$tree/kernel" -name "$name.ko" -print -quit)
	if [ -n "$file" ]; then
		cp "$file" "$root/modules/"
		echo "$name.ko${device:+ $device}" >>"$root/modules/order"
	elif ! grep -q "/$name\.ko$" "$tree/modules.builtin"; then
		echo "build.sh: kernel $kver has no $name, neither as a module (uncompressed .ko) nor built in" >&2
		exit 1
	fi
}

if [ -n "$modules" ]; then
	tree=$modules/lib/modules/$kver
	[ -d "$tree/kernel" ] || {
		echo "build.sh: $tree/kernel is missing: unpack the kernel's package to $modules" >&2
		exit 1
	}
	mkdir "$root/modules"
	echo "$order" >"$dir/order"
	while read -r name device; do
		add_module "$name" "$device"
	done <"$dir/order"
fi

find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
(cd "$root" && find . -mindepth 1 | LC_ALL=C sort |
	cpio -o -H newc --reproducible -R 0:0 --quiet) >"$dir/out"
mv "$dir/out" "$out"
