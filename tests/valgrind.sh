#!/bin/bash
# valgrind.sh [PATTERN...]: the unit programs that have one of these words in their names, under
# valgrind's memcheck; and `front`: some system tests on real Firecracker with the front under it.
# Without a word all of them. As root; tests/run.sh has made all it needs.
#
# Wrong are: what memcheck calls an error, memory definitely lost, a descriptor that code of ours has
# opened (a test's own may stay) and that is open at the end, a test that fails. The reports of what is
# wrong are shown; all lie in build/valgrind/logs.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
top=$PWD
build=$top/build/valgrind
logs=$build/logs
jobs=${MOTTE_JOBS-$(nproc)}
export PATH=$top/build/venv/bin:$top/build/tools:$PATH

# valgrind 3.19 knows neither clone3(2), with which the root half launches, nor pidfd_open(2), with which
# it and tests hold processes, nor landlock, nor seccomp(2).
declare -A skipped=(
    [priv/test_priv_server_*]="launches with clone3"
    [priv/test_priv_hostile_*]="launches with clone3"
    [priv/test_priv_motted]="the root half and its front are confined"
    [priv/test_priv_seccomp*]="libseccomp does not start without seccomp(2)"
    [priv/test_priv_firewall*]="opens a server, which compiles its filters"
    [vmm/test_vmm_*threads]="holds its scripted VMMs with pidfd_open"
    [vsock/test_vsock_exec]="the agent holds its commands with pidfd_open"
    [vsock/test_vsock_guest]="the agent holds its commands with pidfd_open"
    [netfilter/test_netfilter_interfaces]="enters namespaces with pidfd_open"
    [api/test_api_confine]="confines itself with landlock and seccomp(2)"
)
# Single tests, as patterns for Criterion.
declare -A without=(
    [api/test_api_server_crowd]="without_*" # descriptors: valgrind has some of its own
    [base/test_base_fs]="opening_beneath_*" # see valgrind/openat2.c
    [image/test_image_catalogue]="R21_links_*" # likewise
    [image/test_image_open]="R21_links_*"
    [netfilter/test_netfilter_failures]="R15_a_host_without_*" # its child ends with what it opened
    [store/test_store_audit]="R25_a_flood_*" # outlasts its limit
    [store/test_store_list]="R37_a_vm_that_lives_*"
    [store/test_store_ends]="R31_certificates_*" # likewise
)

# They look for a process by the front's name, which is valgrind's there.
front_without="not ten_at_once and not output_without_end and not outlive_restarts \
    and not only_an_administrator and not drain_that_is_lifted"

# Criterion executes a program anew for each of its tests. What a test forks only to end it again has
# its parent's memory and descriptors; what it executes from elsewhere is not ours.
memcheck=(valgrind --tool=memcheck --error-exitcode=99 --vgdb=no --fair-sched=yes
    --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite --track-fds=yes
    --trace-children=yes --child-silent-after-fork=yes '--trace-children-skip=/usr/*,/bin/*,*/tools/*'
    "--fullpath-after=$top/" --num-callers=20)

failed=()
processes=0

# Descriptors that a line of ours opened, and which reports tell of them or of errors.
wrong_in() {
    awk -v top="$top/" '
        FNR == 1 { block = "" }
        { sub(/^==[0-9]+== ?/, "") }
        /^ERROR SUMMARY: [1-9]/ { bad[FILENAME] = 1 }
        /^Open / { block = $0; ours = 0; next }
        block != "" && /^   / { block = block "\n" $0; ours = ours || /\((base|json|image|store|netfilter|vsock|priv|vmm|api|server|motted|admin)\/[^ ]*:[0-9]+\)/; next }
        block != "" { if (ours) { print FILENAME ": " block; bad[FILENAME] = 1 } block = "" }
        END { for (name in bad) print "see " name }
    ' "$1"/*.log
}

# judge NAME COMMAND...: runs it, with its reports in a folder of that name.
judge() {
    local name=$1 folder=$logs/$1 began=$SECONDS status wrong
    shift
    printf '%-36s' "$name"
    "$@" >"$folder/output" 2>&1 </dev/null
    status=$?
    wrong=$(wrong_in "$folder")
    local count
    count=$(find "$folder" -name '*.log' | wc -l)
    processes=$((processes + count))
    if [ $status = 0 ] && [ -z "$wrong" ] && [ "$count" -gt 0 ]; then
        printf 'ok     %4d s, %d processes\n' $((SECONDS - began)) "$count"
        return
    fi
    failed+=("$name")
    printf 'WRONG  %4d s, exit %d\n' $((SECONDS - began)) $status
    {
        tail -n 30 "$folder/output"
        echo "$wrong"
        sed -n 's/^see //p' <<<"$wrong" | head -n 3 | xargs -r tail -n 60
    } | sed 's/^/    | /'
}

prepare() {
    if ! command -v valgrind >/dev/null; then
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
            --no-install-recommends valgrind || return
    fi
    cmake --preset dev -DMOTTE_WERROR=ON && ninja -C build/dev -j "$jobs" &&
        cmake --preset dev -B build/valgrind -DMOTTE_VALGRIND=ON &&
        ninja -C build/valgrind -j "$jobs" motte-front
}

chosen() {
    local word
    [ ${#patterns[@]} -gt 0 ] || return 0
    for word in "${patterns[@]}"; do
        [[ $1 != *"$word"* ]] || return 0
    done
    return 1
}

reason_to_skip() {
    local pattern
    for pattern in "${!skipped[@]}"; do
        # shellcheck disable=SC2053 # it is a pattern
        [[ $1 != $pattern ]] || { echo "${skipped[$pattern]}"; return; }
    done
}

new_folder() {
    rm -rf "${logs:?}/$1" && mkdir -p "$logs/$1" && chmod 1777 "$logs/$1"
}

unit() {
    local name=$1 filter=() reason
    reason=$(reason_to_skip "$name")
    if [ -n "$reason" ]; then
        printf '%-36snot run: %s\n' "$name" "$reason"
        return
    fi
    [ -z "${without[$name]-}" ] || filter=(--filter "*/!(${without[$name]})")
    new_folder "$name"
    LD_PRELOAD=$top/build/dev/tests/valgrind/libvalgrind_calls.so judge "$name" \
        timeout 1200 "${memcheck[@]}" "--log-file=$logs/$name/%p.log" \
        "$top/build/dev/tests/unit/$name" "${filter[@]}"
}

# The root half as it is, with a front that executes the true one under valgrind, unfiltered.
front() {
    local stage=$build/stage
    new_folder front
    rm -rf "$stage" && mkdir -p "$stage/bin" "$stage/tests/guest" || return
    ln -s "$top"/build/dev/bin/motted "$top"/build/dev/bin/motte-admin "$stage/bin/"
    ln -s "$top"/build/dev/tests/guest/testguest.elf "$stage/tests/guest/"
    {
        echo '#!/bin/sh'
        echo "export LD_PRELOAD=$top/build/dev/tests/valgrind/libvalgrind_calls.so"
        printf 'exec'
        printf ' %q' "${memcheck[@]}" "--log-file=$logs/front/%p.log" "$build/bin/motte-front"
        echo ' "$@"'
    } >"$stage/bin/motte-front"
    chmod 755 "$stage/bin/motte-front"
    MOTTE_BUILD=$stage MOTTE_BACKEND=firecracker judge front timeout 600 pytest \
        -c tests/pyproject.toml -p no:cacheprovider -k "$front_without" \
        tests/system/test_{lifecycle,exec,async_and_list,refusals,cordon}.py
}

[ "$(id -u)" = 0 ] || {
    echo "valgrind.sh: run this as root: the tests make namespaces and mounts (of their own)" >&2
    exit 1
}
patterns=("$@")
mkdir -p "$logs"
if ! prepare >"$build/prepare.log" 2>&1; then
    tail -n 40 "$build/prepare.log"
    exit 1
fi
for program in build/dev/tests/unit/*/test_*; do
    name=${program#build/dev/tests/unit/}
    [ ! -f "$program" ] || [ ! -x "$program" ] || ! chosen "$name" || unit "$name"
done
! chosen front || front
echo "$processes processes under valgrind"
[ ${#failed[@]} -eq 0 ] || echo "Wrong: ${failed[*]}"
[ ${#failed[@]} -eq 0 ]
