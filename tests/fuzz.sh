#!/bin/bash
# fuzz.sh [SECONDS]: searches with libFuzzer (clang 14, libclang-rt-14-dev), every target for 60
# seconds or so many. What it learns lies in build/fuzz/tests/fuzz/found-TARGET, what fails there too.
set -eu
cd "$(dirname "$0")/.."
names=()
for corpus in tests/fuzz/corpus/*; do
    names+=("$(basename "$corpus")")
done
cmake --preset fuzz && ninja -C build/fuzz "${names[@]/#/fuzz_}"
failed=0
for name in "${names[@]}"; do
    found=build/fuzz/tests/fuzz/found-$name
    "build/fuzz/tests/fuzz/fuzz_$name" -max_total_time="${1-60}" -max_len=65536 \
        -print_final_stats=1 "-artifact_prefix=$found/" "$found" "tests/fuzz/corpus/$name" \
        >"$found.log" 2>&1 || failed=1
    echo "$name: $(grep -E 'number_of_executed|ERROR|SUMMARY|not so' "$found.log" | xargs)"
done
exit $failed
