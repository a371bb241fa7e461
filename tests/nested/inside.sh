#!/bin/bash
# What a nested host runs: the suite that its kernel's command line names. The results go to the last
# disk as a tar.
#
#   host     Motte as the service that a user installs, then the core of the system tests
#   guests   of these, the tests that are about single VMs
#   mutants  each folder's programs and test, see tests/mutations/run.py
#   package  Motte as a Debian package, upgraded; then this host is restarted with a VM running
#   rebooted what is found afterwards
top=$(cd "$(dirname "$0")/../.." && pwd)
cd "$top" || exit 1
export PATH=$top/build/venv/bin:/usr/local/bin:$PATH HOME=/root
export MOTTE_BUILD=$top/build/dev MOTTE_GUEST=$top/build/guest MOTTE_BACKEND=firecracker-linux
export PYTHONDONTWRITEBYTECODE=1
test_seconds=300 # one that hangs says where, and leaves the others their time
results=/run/results
mkdir -p $results/junit
guests=(tests/system/test_{audit,exec,hostile_guest,isolation,restore_linux,snapshots_linux}.py)

# suite NAME ARGUMENT...
suite() {
    local name=$1
    shift
    pytest -c tests/pyproject.toml --color=no -p no:cacheprovider -m core --durations=10 \
        --timeout=$test_seconds --junit-xml="$results/junit/nested-$name.xml" "$@" || failed=yes
}

# mutant FOLDER: says whether its test passes.
mutant() {
    local test
    test=$(cat "$1/test")
    if MOTTE_BUILD=$1 pytest -c tests/pyproject.toml --color=no -p no:cacheprovider -x -k "$test" \
        "$(grep -lw "$test" tests/system/test_*.py)" >&2; then
        echo passed
    else
        echo failed
    fi
}

echo "inside: the tests begin after $(cut -d' ' -f1 /proc/uptime) s"
modprobe -a kvm_amd ip_tables ip6_tables iptable_security ip6table_security xt_owner xt_physdev
motted doctor
failed=
chosen=$(sed -n 's/.*motte\.suite=\([a-z]*\).*/\1/p' /proc/cmdline)
case $chosen in
mutants)
    mkdir $results/mutants
    for folder in /mutants/*; do
        mutant "$folder" >"$results/mutants/${folder##*/}"
    done
    ;;
host)
    suite service tests/nested/system
    suite host tests/system "${guests[@]/#/--ignore=}"
    ;;
guests) suite guests "${guests[@]}" ;;
package | rebooted)
    mkdir -p /var/lib/motte
    mount /dev/vde /var/lib/motte || failed=yes
    suite "$chosen" "tests/nested/package/test_$chosen.py"
    ;;
esac
tar -C $results -cf /dev/vdd .
sync
echo "inside: the tests end: ${failed:+not }ok"
# At once, with no process stopped and nothing unmounted: as a host is reset.
[ "$chosen" != package ] || systemctl reboot --force --force
