#!/bin/bash
# nested.sh prepare DIR | nested.sh run DIR JUNIT.xml
#
# A whole host in emulation, on this machine's own file system: QEMU emulates AMD's SVM, so its KVM is
# like hardware's, and Firecracker boots an unmodified Linux. cgroup v2, xtables as modules. Some 20
# times slower than a real host: for truth, not for timing.
#
#   prepare   unpacks Debian's kernel to DIR (nothing is installed)
#   run       the core of the system tests in there
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
die() {
    echo "nested.sh: $*" >&2
    exit 1
}

prepare() {
    local dir=$1 deb=${MOTTE_NESTED_DEB-} name
    if compgen -G "$dir/lib/modules/*/modules.dep" >/dev/null; then
        echo "$dir is there"
        return
    fi
    rm -rf "$dir"
    mkdir -p "$dir"
    if [ -z "$deb" ]; then
        name=$(apt-cache depends --no-recommends --no-suggests linux-image-amd64 |
            sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*-amd64\)$/\1/p' | head -n 1)
        [ -n "$name" ] || die "apt knows no linux-image-amd64: run apt-get update"
        (cd "$dir" && apt-get -o APT::Sandbox::User=root download -qq "$name")
        deb=$(find "$dir" -maxdepth 1 -name '*.deb')
    fi
    dpkg-deb -x "$deb" "$dir"
    name=$(basename "$dir"/lib/modules/*)
    depmod -b "$dir" "$name"
    echo "$dir: Linux $name"
}

# What the nested host runs as its only program.
write_inside() {
    local file=$1 junit=$2 output=$3
    # vng lays an overlay over /tmp, which is enough where the tree itself lies in there.
    local mount_tmp="mount -t tmpfs -o mode=1777 none /tmp"
    case $top in /tmp/*) mount_tmp=: ;; esac
    cat >"$file" <<EOF
#!/bin/bash
exec </dev/null >$output 2>&1
export PATH=$PATH HOME=/root
export MOTTE_BUILD=$MOTTE_BUILD MOTTE_GUEST=$MOTTE_GUEST MOTTE_BACKEND=firecracker-linux
cd $top
modprobe -a kvm_amd ip_tables ip6_tables iptable_security ip6table_security xt_owner xt_physdev
mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup
$mount_tmp
mount -t tmpfs -o mode=0755 none /run/lock
"$MOTTE_BUILD/bin/motte-admin" doctor
pytest -c tests/pyproject.toml -p no:cacheprovider -m core --junit-xml=$junit --durations=10 tests/system
echo "inside: pytest ended with \$?"
EOF
    chmod +x "$file"
}

run() {
    local dir=$1 junit=$2 kernel inside output
    kernel=$(echo "$dir"/boot/vmlinuz-*)
    [ -r "$kernel" ] || die "$dir has no kernel: nested.sh prepare $dir"
    inside=$dir/inside.sh
    output=$dir/output
    rm -f "$junit" "$output"
    write_inside "$inside" "$junit" "$output"
    # vng wants a terminal, which script gives it; its own status tells nothing.
    script -q -c "timeout 2000 vng --run $kernel --disable-kvm --user root --memory 4G \
        --cpus $(nproc) --rw --rwdir=$top=$top --qemu-opts='-cpu max' -- $inside" "$dir/console.log" </dev/null >/dev/null || true
    cat "$output" || die "the nested host did not start: see $dir/console.log"
    grep -q 'inside: pytest ended with 0' "$output"
}

[ $# -ge 2 ] || die "usage: nested.sh prepare DIR | nested.sh run DIR JUNIT.xml"
"$@"
