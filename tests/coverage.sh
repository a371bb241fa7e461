#!/bin/sh
# coverage.sh [FILE...]: which branches of the spawn driver, the undos and the recovery (or of these
# files) the unit tests run; needs build/venv, which tests/run.sh makes. As root, like all tests. A page
# for each file lies in build/coverage/html afterwards.
set -eu
cd "$(dirname "$0")/.."
gcovr=build/venv/bin/gcovr
[ -x $gcovr ] || build/venv/bin/pip install --quiet --disable-pip-version-check gcovr==8.8
cmake --preset coverage && ninja -C build/coverage
find build/coverage -name '*.gcda' -delete
ctest --test-dir build/coverage -j "$(nproc)" --no-tests=error --output-on-failure
[ $# -gt 0 ] || set -- vmm/spawn.c vmm/steps.c vmm/end.c vmm/recover.c priv/kill.c priv/adopt.c
for file; do
    filters="${filters-} --filter $file"
done
mkdir -p build/coverage/html
# shellcheck disable=SC2086 # words on purpose
$gcovr --root . --object-directory build/coverage $filters --txt-metric branch --txt - \
    --exclude-throw-branches --html-details build/coverage/html/index.html
