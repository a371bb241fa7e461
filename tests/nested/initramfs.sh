#!/bin/busybox sh
# shellcheck shell=dash
#
# /init of the nested host: the disks' file systems over each other, the first on top, with a
# writable one over all; then systemd. Says what failed and powers off, so that nobody waits.
fail() {
    echo "nested host: $*"
    /bin/busybox poweroff -f
}

/bin/busybox --install -s /bin
mount -t proc proc /proc || fail "cannot mount /proc"
mount -t sysfs sysfs /sys || fail "cannot mount /sys"
mount -t devtmpfs devtmpfs /dev || fail "cannot mount /dev"
while read -r module; do
    insmod "/modules/$module" || fail "cannot load $module"
done </modules/order

layers=
for disk in vda vdb vdc; do
    waited=0
    until [ -b /dev/$disk ]; do
        [ $waited -lt 300 ] || fail "no /dev/$disk"
        waited=$((waited + 1))
        sleep 0.1
    done
    mkdir /layers/$disk
    mount -t squashfs -o ro /dev/$disk /layers/$disk || fail "cannot mount /dev/$disk"
    layers=$layers${layers:+:}/layers/$disk
done
mkdir /layers/top
mount -t tmpfs -o mode=0755,size=3G tmpfs /layers/top || fail "cannot mount a tmpfs"
mkdir /layers/top/upper /layers/top/work
mount -t overlay -o "lowerdir=$layers,upperdir=/layers/top/upper,workdir=/layers/top/work" \
    overlay /new || fail "cannot lay the file systems over each other"
umount /sys /proc
exec switch_root /new /sbin/init
