#!/bin/bash
# run.sh DIR RESULTS: the core of the system tests, and Motte as a service, in a host of its own.
#
# A whole machine in emulation: QEMU emulates AMD's SVM, so its KVM is like hardware's and Firecracker
# boots an unmodified Linux. Debian with systemd, cgroup v2, xtables as modules; Motte is installed
# as `cmake --install` does it. Some 20 times slower than a real host: for truth, not for timing.
# DIR is what build.sh made; JUnit files land in RESULTS, all that the host said in DIR/console.log.
set -euo pipefail

readonly boot_seconds=180 run_seconds=840
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
die() {
    echo "run.sh: $*" >&2
    exit 1
}
[ $# -eq 2 ] || die "usage: run.sh DIR RESULTS"
[ -e "$1/host.sqfs" ] || die "$1 has no host: build.sh $1 makes it"
dir=$(cd "$1" && pwd)
results=$(cd "$2" && pwd)
build=$top/build

# What lies over Debian: this tree at its own place, Motte installed, and the service that tests it.
make_tree() {
    local stage=$dir/stage here_units=etc/systemd/system
    rm -rf "$stage"
    DESTDIR=$stage cmake --install "$build/release" >/dev/null
    install -t "$stage/usr/local/bin" "$build/tools/firecracker" "$build/tools/jailer"
    install -d "$stage/$here_units"
    sed "s,@TOP@,$top,g" "$here/tests.service" >"$stage/$here_units/motte-tests.service"
    tar -C "$stage" -c etc usr -C / "${top#/}"/{tests,openapi.yaml,build/dev/bin,build/venv,build/tools} \
        "${top#/}"/build/guest/{kernel,python.sqfs} |
        mksquashfs - "$dir/tree.sqfs" -tar -comp zstd -Xcompression-level 1 -noappend -quiet \
            -no-progress -root-mode 0755 -root-uid 0 -root-gid 0
}

# Starts the machine in the background. Without the TSC's true rate a third of all boots hang in the
# calibration that a kernel does against an emulated timer.
start() {
    : >"$dir/console.log"
    truncate -s 0 "$dir/results.tar" && truncate -s 64M "$dir/results.tar"
    timeout -k 5 $((boot_seconds + run_seconds)) qemu-system-x86_64 -M q35 -cpu max \
        -accel tcg,thread=multi,tb-size=512 -smp "$(nproc)" -m 6G -nodefaults -no-reboot \
        -display none -serial "file:$dir/console.log" \
        -kernel "$dir"/linux/boot/vmlinuz-* -initrd "$dir/initramfs" \
        -append "console=ttyS0 quiet loglevel=3 panic=-1 tsc=reliable tsc_early_khz=$("$build/dev/tests/nested/tsc_khz") systemd.wants=motte-tests.service systemd.mask=serial-getty@ttyS0.service systemd.mask=e2scrub_reap.service" \
        -drive "if=virtio,format=raw,readonly=on,file=$dir/tree.sqfs" \
        -drive "if=virtio,format=raw,readonly=on,file=$dir/modules.sqfs" \
        -drive "if=virtio,format=raw,readonly=on,file=$dir/host.sqfs" \
        -drive "if=virtio,format=raw,file=$dir/results.tar" </dev/null &
    qemu=$!
}

# Waits until the console shows a line or the machine ends; false after so many seconds.
wait_for() {
    local line=$1 deadline=$((SECONDS + $2))
    until grep -q "$line" "$dir/console.log"; do
        if [ $SECONDS -ge $deadline ] || ! kill -0 $qemu 2>/dev/null; then
            return 1
        fi
        sleep 0.5
    done
}

qemu=
trap '[ -z "$qemu" ] || kill $qemu 2>/dev/null' EXIT
make_tree
start
wait_for 'inside: the tests begin' $boot_seconds || {
    tail -n 40 "$dir/console.log"
    die "the nested host did not get as far as the tests within $boot_seconds s: see above"
}
wait_for 'inside: the tests end' $run_seconds || echo "run.sh: the tests did not come to their end" >&2
wait_for 'reboot: Power down' 30 || true
cat "$dir/console.log"
tar -C "$results" -xf "$dir/results.tar"
grep -q 'inside: the tests end: ok' "$dir/console.log"
