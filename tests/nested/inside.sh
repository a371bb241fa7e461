#!/bin/bash
# What the nested host runs: Motte as the service that a user installs, then the core of the system
# tests beside it. The results go to the last disk as a tar.
top=$(cd "$(dirname "$0")/../.." && pwd)
cd "$top" || exit 1
export PATH=$top/build/venv/bin:$top/build/tools:/usr/local/bin:$PATH HOME=/root
export MOTTE_BUILD=$top/build/dev MOTTE_GUEST=$top/build/guest MOTTE_BACKEND=firecracker-linux
export PYTHONDONTWRITEBYTECODE=1
results=/run/results
mkdir -p $results/junit

echo "inside: the tests begin after $(cut -d' ' -f1 /proc/uptime) s"
modprobe -a kvm_amd ip_tables ip6_tables iptable_security ip6table_security xt_owner xt_physdev
motted doctor
failed=
for suite in service:tests/nested/system core:tests/system; do
    pytest -c tests/pyproject.toml --color=no -p no:cacheprovider -m core --durations=10 \
        --junit-xml="$results/junit/nested-${suite%%:*}.xml" "${suite#*:}" || failed=yes
done
tar -C $results -cf /dev/vdd .
sync
echo "inside: the tests end: ${failed:+not }ok"
