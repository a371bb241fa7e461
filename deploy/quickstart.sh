#!/bin/bash
# quickstart.sh [--stop]
#
# From a fresh Debian 12 to a command that ran in a microVM: installs what is missing, builds Motte,
# makes the default image, starts motted, creates a VM, runs Python in it and deletes it again. Run it
# as root. A second run skips what is up to date.
#
#   --stop   stops the motted that this script started; VMs run on until `motted --purge`
#
#   MOTTE_PREFIX   where to install (/usr/local)
set -euo pipefail

source=$(cd "$(dirname "$0")/.." && pwd)
prefix=${MOTTE_PREFIX-/usr/local}
build=$source/build/quickstart
guest=$source/build/guest
run_dir=/run/motte
socket=$run_dir/motte.sock
pid_file=$run_dir/quickstart.pid
log=/var/log/motted.log
config=/etc/motte/motted.conf
vm=quickstart

packages=(build-essential cmake ninja-build pkg-config nettle-dev libcjson-dev libsqlite3-dev
    libiptc-dev libseccomp-dev libcurl4-gnutls-dev libmicrohttpd-dev libgnutls28-dev libjansson-dev
    iptables kmod mmdebstrap squashfs-tools cpio lz4 e2fsprogs curl python3 python3-venv)

die() {
    echo "quickstart.sh: $*" >&2
    exit 1
}

now() {
    date +%s%N
}

# step TITLE COMMAND...: says what it does, and how long it took. Not `|| die`: that would make the
# shell go on after a failed line inside the command's function.
current=
trap '[ -z "$current" ] || echo "quickstart.sh: failed: $current. Its last words stand above" >&2' EXIT
step() {
    local began
    current=$1
    shift
    echo "==> $current"
    began=$(now)
    "$@"
    current=
    printf '    %s s\n' "$(awk "BEGIN { printf \"%.1f\", ($(now) - $began) / 1e9 }")"
}

has_systemd() {
    [ -d /run/systemd/system ]
}

# The motted that an earlier run of this script left in the background, if it still runs.
background_pid() {
    local pid
    pid=$(cat "$pid_file" 2>/dev/null) || return 1
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = motted ] && echo "$pid"
}

stop_background() {
    local pid
    pid=$(background_pid) || return 0
    kill -TERM "$pid"
    for _ in $(seq 300); do
        [ -d "/proc/$pid" ] || break
        sleep 0.1
    done
    [ ! -d "/proc/$pid" ] || die "motted ($pid) does not stop: see $log"
    rm -f "$pid_file"
}

stop() {
    if has_systemd; then
        systemctl stop motted
    else
        stop_background
    fi
    echo "motted is stopped. VMs run on: \`$prefix/bin/motted --purge\` ends them and removes the" \
        "firewall's chains."
}

missing_packages() {
    local name
    for name in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed ||
            echo "$name"
    done
}

install_packages() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    if [ ${#missing[@]} -eq 0 ]; then
        echo "    nothing missing"
        return
    fi
    echo "    ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        "${missing[@]}" >/dev/null
}

make_user() {
    getent passwd motte >/dev/null ||
        useradd --system --user-group --no-create-home --shell /usr/sbin/nologin motte
}

build_and_install() {
    # Warnings of another compiler than the pinned one shall not stop a user.
    cmake --preset release -S "$source" -B "$build" -DMOTTE_TESTS=OFF -DMOTTE_WERROR=OFF \
        -DCMAKE_INSTALL_PREFIX="$prefix" -DCMAKE_INSTALL_MESSAGE=NEVER >/dev/null
    cmake --build "$build" -- --quiet
    cmake --install "$build" >/dev/null
}

make_guest() {
    mkdir -p "$source/build"
    "$source/deploy/make-guest.sh" "$build/bin/motte-agent" "$guest" | sed 's/^/    /'
}

register() {
    "$admin" kernel add "$guest/kernel" --name debian --replace | head -n 1 | sed 's/^/    /'
    "$admin" image add "$guest/python.sqfs" --name python --kernel debian --replace |
        sed 's/^/    /'
}

# Sets `mode` to firecracker or dev.
choose() {
    local found
    found=$("$admin" doctor --json) || true
    if grep -q '"firecracker":true' <<<"$found"; then
        mode=firecracker
        echo "    KVM runs Linux guests: Firecracker"
        return
    fi
    install_packages qemu-system-x86
    "$admin" doctor --json | grep -q '"emulation":true' || {
        "$admin" doctor || true
        return 1
    }
    mode=dev
    "$admin" doctor | grep -A1 '^lacking' | sed 's/^/    /' || true
    echo "    WARNING: QEMU emulates the VMs (motted --dev). That is to try Motte; it keeps no"
    echo "    stranger's code in. Everything is also some 20 times slower than with KVM."
}

# set_key KEY VALUE: unless the operator has set it.
set_key() {
    grep -q "^$1 *=" "$config" || printf '%s = %s\n' "$1" "$2" >>"$config"
}

write_config() {
    mkdir -p "$(dirname "$config")"
    [ -e "$config" ] || {
        install -m 0644 "$source/deploy/systemd/motted.conf" "$config"
        printf '\n# Added by deploy/quickstart.sh\n' >>"$config"
    }
    set_key firecracker "$(command -v firecracker)"
    set_key jailer "$(command -v jailer)"
    [ "$mode" = firecracker ] || set_key dev true
}

ask() {
    curl --silent --show-error --fail-with-body --max-time 120 --unix-socket $socket \
        -H 'Content-Type: application/json' "$@"
}

wait_ready() {
    for _ in $(seq 600); do
        if ask -o /dev/null http://motte/readyz 2>/dev/null; then
            return 0
        fi
        background_pid >/dev/null || break
        sleep 0.1
    done
    tail -n 20 $log >&2
    return 1
}

start_background() {
    stop_background
    mkdir -p $run_dir
    setsid "$prefix/bin/motted" --config=$config </dev/null >>$log 2>&1 &
    echo $! >$pid_file
    wait_ready
    echo "    in the background, pid $(cat $pid_file), log $log"
}

start() {
    write_config
    if has_systemd; then
        systemctl daemon-reload
        systemctl restart motted
        echo "    as motted.service; \`systemctl enable motted\` starts it with the host"
    else
        start_background
    fi
}

create() {
    ask -o /dev/null -X DELETE http://motte/vms/$vm 2>/dev/null || true # of an interrupted run
    ask -d "{\"id\": \"$vm\", \"memory_mib\": 256}" http://motte/vms |
        python3 -c 'import json, sys
vm = json.load(sys.stdin)
print("    {id}: {state}, {hypervisor}, isolation {isolation}".format(**vm))'
}

run_python() {
    local code='import platform; print("Hello from Python", platform.python_version(), "in a microVM:", sum(range(101)))'
    python3 -c 'import json, sys; print(json.dumps({"argv": ["python3", "-c", sys.argv[1]]}))' \
        "$code" | ask -d @- http://motte/vms/$vm/exec |
        python3 -c 'import json, sys
done = json.load(sys.stdin)
print("   ", done["stdout"], end="")
sys.exit(done["exit_code"] or 0)'
}

delete() {
    ask -X DELETE http://motte/vms/$vm
    "$prefix/bin/motted" leftovers | sed 's/^/    /'
    echo "    (one that runs still is Motte's own: the next VM starts from a snapshot of it)"
}

[ "$(id -u)" = 0 ] || die "run this as root"
case ${1-} in
--stop)
    stop
    exit 0
    ;;
'') ;;
*) die "usage: quickstart.sh [--stop]" ;;
esac
[ -r /etc/debian_version ] || die "this installs Debian packages; elsewhere follow its steps by hand"

began=$(now)
admin=$prefix/libexec/motte/motte-admin
mode=
step "Packages" install_packages "${packages[@]}"
step "Firecracker and its jailer" "$source/deploy/fetch-firecracker.sh" /usr/local/bin
step "User motte" make_user
step "Build and install to $prefix" build_and_install
step "Guest: kernel, agent, Debian with Python" make_guest
step "Register image python" register
step "What can this host do" choose
step "Start motted" start
step "Create a VM" create
step "Run Python in it" run_python
step "Delete it, and look for leftovers" delete
printf 'All of it: %s s\n\n' "$(awk "BEGIN { printf \"%.0f\", ($(now) - $began) / 1e9 }")"
cat <<EOF
Go on with:
  curl --unix-socket $socket http://motte/vms -H 'Content-Type: application/json' -d '{"id": "mine"}'
  curl --unix-socket $socket http://motte/vms/mine/exec -H 'Content-Type: application/json' -d '{"shell": "echo hello; uname -a"}'
  curl --unix-socket $socket -X DELETE http://motte/vms/mine
EOF
