#!/bin/bash
# coverage.sh: the unit tests must run every branch of the files below; says which they do not.
# coverage.sh FILE...: which branches of these files all unit tests run, and nothing is demanded.
# Needs build/venv, which tests/run.sh makes. As root, like all tests. A page for each file lies in
# build/coverage/html afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."
build=build/coverage
report=$build/branches.csv

# The spawn driver; its steps with their undos, and the one way by which a VM that is up ends; what a
# restart and the sweeps after it do; the table of machines, which all of these change and in which
# what could not be undone waits. In the root half: KILL, which is the undo of everything; the
# adoption of what an earlier run left, and the records that it reads; the table of instances, from
# which adoption takes uids and to which KILL gives them back.
# What these call for one part of an undo (cgroup.c, the firewall, the store) has failures of its own,
# which nth-call and the kill matrix stage; the lists of what may fail are much longer there.
files=(vmm/spawn.c vmm/steps.c vmm/end.c vmm/recover.c vmm/reaper.c vmm/machine.c
    priv/kill.c priv/adopt.c priv/records.c priv/instances.c)
# Those that drive them. Where luck decides what one does (rollback), another does it for certain.
tests='^test_(vmm_|priv_(adopt|records|undo|server_))'
whole=yes
if [ $# -gt 0 ]; then
    files=("$@")
    tests=.
    whole=
fi

cmake --preset coverage
programs=(all)
[ -z "$whole" ] ||
    mapfile -t programs < <(ctest --test-dir $build -N -R "$tests" | sed -n 's/^ *Test *#[0-9]*: //p')
ninja -C $build -j "${MOTTE_JOBS-$(nproc)}" "${programs[@]}"
find $build -name '*.gcda' -delete
ctest --test-dir $build -R "$tests" -j $((2 * ${MOTTE_JOBS-$(nproc)})) --no-tests=error --output-on-failure

filters=()
for file in "${files[@]}"; do
    filters+=(--filter "$file\$")
done
mkdir -p $build/html
# No branch is left out: C built without optimisation has none that only the compiler knows.
build/venv/bin/gcovr --root . --object-directory $build "${filters[@]}" --txt-metric branch --txt - \
    --csv $report --html-details $build/html/index.html

[ -n "$whole" ] || exit 0
missing=
for file in "${files[@]}"; do
    # filename, lines, …, branches, of them run
    if ! awk -F, -v file="$file" '$1 == file && $5 > 0 && $5 == $6 { found = 1 } END { exit !found }' \
        $report; then
        echo "coverage.sh: $file has branches that no unit test runs: add the test that does, or" \
            "take away what nothing can reach; build/coverage/html shows them" >&2
        missing=yes
    fi
done
[ -z "$missing" ]
