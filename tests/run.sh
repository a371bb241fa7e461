#!/bin/bash
# run.sh [STAGE...]: everything that says whether Motte holds its promises. As root, on Debian 12.
#
#   checks       formatting, lint, sizes, symbols, CI files, decisions
#   unit         unit tests; again under AddressSanitizer and UBSan; thread tests under TSan; whether
#                they run every branch of the spawn driver, the undos and the recovery
#   firecracker  system tests on real Firecracker and KVM with the test guest, then the client
#                package's; again under
#                AddressSanitizer and UBSan; random sequences against a model, a soak; a kill -9 at
#                every point of a spawn, a delete and a recovery; each call of a spawn, an exec, a
#                delete and a start fails (MOTTE_NTH_CALL=thorough: in every way, which takes hours)
#   qemu         system tests on emulated QEMU with Linux, the client package's
#   nested       system tests in an emulated host: hardware-style KVM, Firecracker, Linux, cgroup v2
#   all          all of them (the default)
#
# Everything lies in build/. Results: build/results, and at the end what holds of R01 to R41.
#   MOTTE_KERNEL_DEB   Debian's linux-image-…-cloud-amd64 package, instead of downloading it
#   MOTTE_NESTED_DEB   Debian's linux-image-…-amd64 package, instead of downloading it
#   MOTTE_JOBS         how many compilers at once, and half as many as tests (the number of processors)
set -uo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top" || exit 1
build=$top/build
results=$build/results
jobs=${MOTTE_JOBS-$(nproc)}
tests_at_once=$((2 * jobs)) # they wait more than they work
export PATH=$build/venv/bin:$build/tools:$PATH
export MOTTE_BUILD=$build/dev MOTTE_GUEST=$build/guest

packages=(build-essential cmake ninja-build pkg-config nettle-dev libcjson-dev libsqlite3-dev
    libiptc-dev libseccomp-dev libcurl4-gnutls-dev libmicrohttpd-dev libgnutls28-dev libjansson-dev
    libcriterion-dev clang-format-14 clang-tidy-14 pmccabe shellcheck prometheus curl
    iptables iproute2 kmod libcap2-bin util-linux file binutils busybox-static
    dpkg-dev systemd qemu-system-x86 mmdebstrap squashfs-tools cpio lz4 e2fsprogs python3-venv
    mandoc tmux)

failed=()
slow=()

# stage NAME BUDGET_SECONDS COMMAND...: runs it, shows its last words if it fails, and its time.
stage() {
    local name=$1 budget=$2 log=$results/$1.log began took
    shift 2
    printf '%-28s' "$name"
    began=$(date +%s%N)
    if "$@" >"$log" 2>&1; then
        printf 'ok    '
    else
        printf 'FAILED'
        failed+=("$name")
    fi
    took=$((($(date +%s%N) - began) / 1000000))
    printf ' %4d.%01d s of %d s' $((took / 1000)) $((took % 1000 / 100)) "$budget"
    if [ $took -gt $((budget * 1000)) ]; then
        printf '  OVER BUDGET'
        slow+=("$name")
    fi
    printf '\n'
    case " ${failed[*]-} " in
    *" $name "*)
        tail -n 60 "$log" | sed 's/^/    | /'
        return 1
        ;;
    esac
}

install_packages() {
    local name missing=()
    for name in "${packages[@]}"; do
        dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed ||
            missing+=("$name")
    done
    [ ${#missing[@]} -eq 0 ] && return
    echo "installing ${missing[*]}"
    apt-get update -qq || return
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends \
        "${missing[@]}"
}

make_venv() {
    # Debian's Python, by its path: the nested host has the same one at the same place.
    [ -x "$build/venv/bin/python" ] || /usr/bin/python3 -m venv "$build/venv" || return
    cmp -s tests/requirements.txt "$build/venv/requirements.txt" && return
    "$build/venv/bin/pip" install --quiet --disable-pip-version-check -r tests/requirements.txt &&
        cp tests/requirements.txt "$build/venv/requirements.txt"
}

# What tests/package.json names, by the node of requirements.txt; the copy comes last, as a stamp.
make_npm() {
    cmp -s tests/package.json "$build/npm/stamp" && return
    rm -rf "$build/npm" && mkdir -p "$build/npm" && cp tests/package.json "$build/npm/" &&
        npm install --prefix "$build/npm" --no-audit --no-fund --no-package-lock --ignore-scripts &&
        cp tests/package.json "$build/npm/stamp"
}

compile() {
    cmake --preset "$1" -DMOTTE_WERROR=ON && ninja -C "$build/$1" -j "$jobs" || return
    # -Werror covers C; this covers the rest (linker, CMake).
    ! grep -E '(^|[^-])warning: ' "$results/build-$1.log"
}

# unit PRESET [CTEST ARGUMENT...]
unit() {
    local preset=$1
    shift
    rm -rf "$build/$preset/junit" && mkdir -p "$build/$preset/junit" || return
    ctest --test-dir "$build/$preset" --output-on-failure -j $tests_at_once --no-tests=error \
        --output-junit "$results/junit/ctest-$preset.xml" "$@"
    local status=$?
    # Criterion's own reports have the tests' names; TSan's programs have none.
    local file
    for file in "$build/$preset"/junit/*.xml; do
        [ ! -e "$file" ] || cp "$file" "$results/junit/$preset-$(basename "$file")"
    done
    return $status
}

pytests() {
    local name=$1
    shift
    pytest -c tests/pyproject.toml -p no:cacheprovider --junit-xml="$results/junit/$name.xml" "$@"
}

checks() {
    pytests checks tests/checks
}

# system_tests BACKEND [PYTEST ARGUMENT...]: those that have no stage of their own. Most of their time
# is waiting: as many files at once as there are processors, each worker with a host of its own.
system_tests() {
    local backend=$1
    shift
    MOTTE_BACKEND=$backend pytests "system-$backend" -n "$jobs" --dist loadfile tests/system \
        --ignore=tests/system/test_kill_matrix.py --ignore=tests/system/test_model.py \
        --ignore=tests/system/test_soak.py --ignore=tests/system/test_nth_call.py \
        --durations=10 "$@"
}

# A sanitizer's build has no filter of the front's own, needs more memory, is slower than what it is
# attacked with, and shows nothing by its speed.
system_asan() {
    MOTTE_BUILD=$build/asan system_tests firecracker \
        --junit-xml="$results/junit/system-asan.xml" --ignore=tests/system/test_hostile_agent.py \
        --ignore=tests/system/test_bench.py --ignore=tests/system/test_contract.py \
        -k "not every_thread_of_the_front_is_confined and not ten_thousand_idle and not a_gibibyte and not a_minute_later"
}

# Long tests that measure no time: as many at once as there are processors, each with a host of its
# own; who has no more takes what waits for another. Random sequences against the model, and many
# lives with kills between.
sequences() {
    MOTTE_BACKEND=firecracker pytests sequences -n "$jobs" tests/system/test_model.py \
        tests/system/test_soak.py --durations=0
}

kill_matrix() {
    MOTTE_BACKEND=firecracker pytests kill-matrix -n "$jobs" --dist worksteal tests/system/test_kill_matrix.py \
        --durations=0
}

nth_call() {
    MOTTE_BACKEND=firecracker pytests nth-call -n "$jobs" --dist worksteal \
        tests/system/test_nth_call.py --durations=0
}

# python_tests BACKEND: the client package against a real motted
python_tests() {
    MOTTE_BACKEND=$1 pytests "python-$1" python/tests --durations=5
}

make_guest() {
    deploy/make-guest.sh "$build/dev/bin/motte-agent" "$build/guest" ${MOTTE_KERNEL_DEB:+"$MOTTE_KERNEL_DEB"}
}

prepare() {
    stage packages 300 install_packages || exit 1
    stage venv 300 make_venv || exit 1
    stage npm 60 make_npm || exit 1
    stage fetch-firecracker 120 deploy/fetch-firecracker.sh "$build/tools" || exit 1
    stage build-dev 300 compile dev || exit 1
}

stage_checks() {
    stage build-release 120 compile release # its optimiser sees more than the others
    stage checks 180 checks
}

stage_unit() {
    stage unit-dev 180 unit dev
    stage build-asan 300 compile asan && stage unit-asan 240 unit asan
    stage build-tsan 300 compile tsan && stage unit-tsan 180 unit tsan
    stage coverage 180 tests/coverage.sh && grep -E '^[a-z]+/[a-z_]+\.c  ' "$results/coverage.log"
}

stage_firecracker() {
    stage system-firecracker 540 system_tests firecracker
    stage python-firecracker 90 python_tests firecracker
    stage build-asan 300 compile asan && stage system-asan 420 system_asan
    stage sequences 120 sequences
    stage kill-matrix 600 kill_matrix
    stage nth-call 600 nth_call
}

stage_qemu() {
    stage guest 300 make_guest && {
        stage system-qemu 720 system_tests qemu
        stage python-qemu 180 python_tests qemu
    }
}

stage_nested() {
    stage guest 300 make_guest && stage build-release 300 compile release &&
        stage nested-host 240 tests/nested/build.sh "$build/nested" &&
        stage system-nested 900 tests/nested/run.sh "$build/nested" "$results"
}

[ "$(id -u)" = 0 ] || {
    echo "run.sh: run this as root: it makes namespaces, jails and firewall rules (of its own)" >&2
    exit 1
}
[ $# -gt 0 ] || set -- all
everything=
[ "$*" != all ] || { set -- checks unit firecracker qemu nested; everything=--all; }
for name in "$@"; do
    declare -F "stage_$name" >/dev/null || {
        echo "run.sh: no stage $name: checks, unit, firecracker, qemu, nested or all" >&2
        exit 2
    }
done
rm -rf "$results" && mkdir -p "$results/junit" || exit 1
prepare
for name in "$@"; do
    "stage_$name"
done
echo
python3 tests/requirements_report.py "$results/junit" $everything
reported=$?
[ ${#slow[@]} -eq 0 ] || echo "Over budget: ${slow[*]}"
[ ${#failed[@]} -eq 0 ] || echo "Failed: ${failed[*]}"
[ ${#failed[@]} -eq 0 ] && [ $reported -eq 0 ]
