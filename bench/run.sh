#!/bin/bash
# run.sh [--quick] [--only STAGE…] [--json FILE] [--svg FILE] [--record FILE]: what Motte costs above what the kernel
# and Firecracker cost by themselves, measured in one run; bench/README.md says how. As root, on a
# machine with /dev/kvm. Prints a table and writes build/bench/figures.json and timeline.svg.
#
#   --quick          some seconds in the place of six minutes: to see that it works
#   --only STAGE…    spawn, exec, get, at-once, restore, pool, emulated, snapshot: these alone; thousand: a
#                    thousand live VMs, which takes some minutes and is not done without
#   --record FILE    puts what was measured into FILE between its marks, as in docs/performance.md,
#                    and the picture beside it
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"
build=$top/build
[ "$(id -u)" = 0 ] || {
    echo "run.sh: run this as root: it makes namespaces, jails and firewall rules (of its own)" >&2
    exit 1
}
mkdir -p "$build/bench"
{
    cmake --preset release &&
        ninja -C "$build/release" motted motte-front motte-admin testguest bench_floor \
            bench_client bench_constant &&
        { [ -x "$build/tools/firecracker" ] || deploy/fetch-firecracker.sh "$build/tools"; }
} >"$build/bench/build.log" 2>&1 || {
    tail -n 30 "$build/bench/build.log" >&2
    exit 1
}
export PATH=$build/tools:$PATH MOTTE_BUILD=$build/release MOTTE_BACKEND=firecracker
export PYTHONPATH=$top:$top/tests/system PYTHONDONTWRITEBYTECODE=1
exec python3 -m bench.run "$@"
