#!/bin/sh
# make-kernel-dir.sh KERNEL_DIR AGENT OUTDIR
#
# All that a VM boots besides its image, ready for `motted kernel add OUTDIR --name NAME`:
#   vmlinux   the kernel of KERNEL_DIR, which fetch-kernel.sh or build-minimal.sh made
#   initrd    initramfs with AGENT (the built motte-agent) as /init, and the kernel's modules
#   scratch   the empty ext4 that scratch disks start as
#   boot_args that of KERNEL_DIR, if it has one
# OUTDIR must not exist. The same KERNEL_DIR and AGENT give the same bytes.
set -eu

die() {
    echo "make-kernel-dir.sh: $*" >&2
    exit 1
}

[ $# -eq 3 ] || die "usage: make-kernel-dir.sh KERNEL_DIR AGENT OUTDIR"
kernel=$1 agent=$2 out=$3
here=$(cd "$(dirname "$0")" && pwd)
[ ! -e "$out" ] || die "$out is there already: remove it or name another"
{ [ -r "$kernel/vmlinux" ] && [ -r "$kernel/kver" ]; } ||
    die "$kernel has no vmlinux and kver: make it with fetch-kernel.sh or build-minimal.sh"
[ -r "$agent" ] || die "cannot read $agent: give the built agent (build target motte-agent)"
command -v cpio >/dev/null || die "cpio is missing: apt-get install cpio"

work=$(mktemp -d "$out.XXXXXX") || die "cannot make a directory beside $out"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
umask 022
set -- "$agent" "$work/initrd"
if [ -d "$kernel/lib/modules" ]; then
    set -- "$@" "$kernel" "$(cat "$kernel/kver")"
fi
"$here/../initramfs/build.sh" "$@" || die "cannot make the initramfs: see above"
"$here/../image/make-scratch.sh" "$work/scratch" >/dev/null
cp "$kernel/vmlinux" "$work/vmlinux"
if [ -e "$kernel/boot_args" ]; then
    cp "$kernel/boot_args" "$work/boot_args"
    chmod 0444 "$work/boot_args"
fi
chmod 0444 "$work/vmlinux" "$work/initrd" "$work/scratch"
chmod 0755 "$work"
mv "$work" "$out"
for file in vmlinux initrd scratch; do
    echo "$out/$file: $(stat -c %s "$out/$file") bytes," \
        "sha256 $(sha256sum <"$out/$file" | cut -d' ' -f1)"
done
