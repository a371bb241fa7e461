#!/bin/sh
# make-scratch.sh OUT
#
# The empty ext4 that every scratch disk starts as: 16 MiB, sparse, the same bytes each time. A VM
# gets a copy lengthened to its disk_mib, and the agent grows the mounted file system to the disk
# with EXT4_IOC_RESIZE_FS. Chosen for that:
#   resize=   group descriptor blocks reserved for growth to 1 TiB (0.5 MiB of the file);
#   -N 8192   inodes of the one group there is, hence of each later group: one per 16 KiB;
#   no journal: a scratch disk does not outlive its VM, so there is nothing to replay, and a journal
#             sized for 16 MiB would only slow a larger disk down;
#   prezeroed: the file is all holes, so inode tables need no writing.
set -eu

die() {
    echo "make-scratch.sh: $*" >&2
    exit 1
}

[ $# -eq 1 ] || die "usage: make-scratch.sh OUT"
out=$1
PATH=$PATH:/usr/sbin:/sbin
command -v mkfs.ext4 >/dev/null || die "mkfs.ext4 is missing: apt-get install e2fsprogs"

# All that mkfs.ext4 would else take from the clock, a random source or this host's mke2fs.conf.
export E2FSPROGS_FAKE_TIME="${SOURCE_DATE_EPOCH-1735689600}"
uuid=6d6f7474-6520-4000-8000-736372617463
features=none,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super
features=$features,large_file,huge_file,dir_nlink,extra_isize,metadata_csum

work=$(mktemp "$out.XXXXXX") || die "cannot make a file beside $out"
trap 'rm -f "$work" "$work.conf"' EXIT
trap 'exit 1' HUP INT TERM
printf "[fs_types]\next4 = {\nblocksize = 4096\n}\nsmall = {\nblocksize = 4096\n}\n" >"$work.conf"
export MKE2FS_CONFIG="$work.conf"
truncate -s 16M "$work"
mkfs.ext4 -q -F -O $features -b 4096 -I 256 -N 8192 -m 0 -L scratch -U $uuid -o Linux \
    -E "resize=268435456,hash_seed=$uuid,root_owner=0:0,lazy_itable_init=1,assume_storage_prezeroed=1,nodiscard" \
    "$work" || die "mkfs.ext4 failed: version 1.47 (Debian 12) or later is needed"
chmod 0644 "$work"
mv "$work" "$out"
echo "$out: $(stat -c '%s bytes, %b blocks of %B on disk' "$out")," \
    "sha256 $(sha256sum <"$out" | cut -d' ' -f1)"
