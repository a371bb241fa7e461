/* What the compiled filters decide, call by call, and the bytes of Firecracker's filter file. */
#include "bpf.h"
#include "priv/seccomp_internal.h"
#include "tools.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/audit.h>
#include <sched.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>

static struct priv_bpf firecracker(enum priv_seccomp level, enum priv_seccomp_thread thread)
{
    struct error err = {0};
    struct priv_bpf bpf = {0};
    cr_assert_eq(priv_seccomp_firecracker(level, thread, &bpf, &err), 0, "%s", err.msg);
    return bpf;
}

static struct priv_bpf qemu(enum priv_seccomp level)
{
    struct error err = {0};
    struct priv_bpf bpf = {0};
    cr_assert_eq(priv_seccomp_qemu(level, &bpf, &err), 0, "%s", err.msg);
    return bpf;
}

static bool is_x32(const struct seccomp_data *data)
{
    return (data->nr & BPF_X32) != 0;
}

/* ---- R23: minimal is Firecracker's own default ---------------------------------------------- */

static void same_verdict(void *context, const struct seccomp_data *data, uint32_t theirs,
                         uint32_t ours)
{
    size_t *compared = context;
    (*compared)++;
    if (is_x32(data)) {
        /* Both kill; we take the whole process, so that no half-dead VMM stays behind. */
        cr_assert_eq(theirs, SECCOMP_RET_KILL_THREAD);
        cr_assert_eq(ours, SECCOMP_RET_KILL_PROCESS);
        return;
    }
    cr_assert_eq(theirs, ours, "call %d(%llx, %llx, %llx, %llx): theirs %#x, ours %#x", data->nr,
                 data->args[0], data->args[1], data->args[2], data->args[3], theirs, ours);
}

Test(priv_seccomp, R23_minimal_equals_the_filter_inside_the_real_firecracker)
{
    char path[PATH_MAX];
    if (!tools_find("firecracker", path)) {
        cr_skip_test("no firecracker: set MOTTE_FIRECRACKER");
    }
    struct priv_bpf theirs[PRIV_THREAD_COUNT];
    cr_assert(bpf_extract(path, theirs), "no filter map inside %s", path);
    size_t compared = 0;
    for (unsigned i = 0; i < PRIV_THREAD_COUNT; i++) {
        cleanup(priv_bpf_release) struct priv_bpf ours = firecracker(PRIV_SECCOMP_MINIMAL, i);
        bpf_compare(&(struct bpf_pair){&theirs[i], &ours, same_verdict, &compared});
        priv_bpf_release(&theirs[i]);
    }
    cr_assert_gt(compared, 20000, "the grid shrank to %zu calls", compared);
}

/* ---- R23: what the levels add --------------------------------------------------------------- */

struct difference {
    bool calls[512];
    bool narrower; /* the right one stops something the left one allows */
};

static void note_difference(void *context, const struct seccomp_data *data, uint32_t left,
                            uint32_t right)
{
    struct difference *difference = context;
    if (left == right) {
        return;
    }
    cr_assert(!is_x32(data));
    difference->calls[data->nr] = true;
    difference->narrower |= left == SECCOMP_RET_ALLOW;
}

static void assert_basic_adds(enum priv_seccomp_thread thread, const bool added[static 512])
{
    cleanup(priv_bpf_release) struct priv_bpf minimal = firecracker(PRIV_SECCOMP_MINIMAL, thread);
    cleanup(priv_bpf_release) struct priv_bpf basic = firecracker(PRIV_SECCOMP_BASIC, thread);
    struct difference difference = {0};
    bpf_compare(&(struct bpf_pair){&minimal, &basic, note_difference, &difference});
    cr_assert(!difference.narrower);
    for (int nr = 0; nr < 512; nr++) {
        cr_assert_eq(difference.calls[nr], added[nr], "call %d in thread %d", nr, (int)thread);
    }
}

Test(priv_seccomp, R23_basic_adds_exactly_bind_listen_accept_shutdown)
{
    static const bool four[512] = {
        [SYS_bind] = true, [SYS_listen] = true, [SYS_accept] = true, [SYS_shutdown] = true};
    static const bool none[512] = {0};
    assert_basic_adds(PRIV_THREAD_VMM, four);
    assert_basic_adds(PRIV_THREAD_API, four);
    assert_basic_adds(PRIV_THREAD_VCPU, none); /* it cannot make a socket */
}

static void permissive_only_logs(void *context, const struct seccomp_data *data, uint32_t basic,
                                 uint32_t permissive)
{
    (void)context;
    if (is_x32(data)) {
        cr_assert_eq(permissive, SECCOMP_RET_KILL_PROCESS);
    } else if (basic == SECCOMP_RET_ALLOW ||
               (basic & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO) {
        cr_assert_eq(permissive, basic, "call %d", data->nr);
    } else {
        cr_assert_eq(permissive, SECCOMP_RET_LOG, "call %d", data->nr);
    }
}

Test(priv_seccomp, R23_permissive_logs_exactly_what_basic_stops)
{
    for (unsigned i = 0; i < PRIV_THREAD_COUNT; i++) {
        cleanup(priv_bpf_release) struct priv_bpf basic = firecracker(PRIV_SECCOMP_BASIC, i);
        cleanup(priv_bpf_release) struct priv_bpf all = firecracker(PRIV_SECCOMP_PERMISSIVE, i);
        bpf_compare(&(struct bpf_pair){&basic, &all, permissive_only_logs, NULL});
    }
    cleanup(priv_bpf_release) struct priv_bpf basic = qemu(PRIV_SECCOMP_BASIC);
    cleanup(priv_bpf_release) struct priv_bpf all = qemu(PRIV_SECCOMP_PERMISSIVE);
    bpf_compare(&(struct bpf_pair){&basic, &all, permissive_only_logs, NULL});
}

Test(priv_seccomp, R23_qemu_basic_is_wider_than_minimal)
{
    cleanup(priv_bpf_release) struct priv_bpf minimal = qemu(PRIV_SECCOMP_MINIMAL);
    cleanup(priv_bpf_release) struct priv_bpf basic = qemu(PRIV_SECCOMP_BASIC);
    struct difference difference = {0};
    bpf_compare(&(struct bpf_pair){&minimal, &basic, note_difference, &difference});
    cr_assert(!difference.narrower);
    for (int nr = 0; nr < 512; nr++) {
        cr_assert_eq(difference.calls[nr], nr == SYS_accept || nr == SYS_shutdown, "call %d", nr);
    }
}

Test(priv_seccomp, R23_an_unknown_level_is_refused)
{
    for (unsigned level = 0; level < 6; level++) {
        struct error err = {0};
        struct priv_bpf bpf = {0};
        bool known = level >= PRIV_SECCOMP_MINIMAL && level <= PRIV_SECCOMP_PERMISSIVE;
        int r = priv_seccomp_firecracker((enum priv_seccomp)level, PRIV_THREAD_API, &bpf, &err);
        cr_assert_eq(r == 0, known);
        cr_assert_eq(err.code, known ? ERR_NONE : ERR_SECCOMP_LEVEL);
        priv_bpf_release(&bpf);
        err = (struct error){0};
        cr_assert_eq(priv_seccomp_qemu((enum priv_seccomp)level, &bpf, &err) == 0, known);
        priv_bpf_release(&bpf);
    }
}

/* ---- what no level may open ----------------------------------------------------------------- */

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static uint64_t seed(void)
{
    const char *told = getenv("MOTTE_SEED");
    uint64_t seed = 0;
    while (seed == 0) {
        if (told != NULL) {
            seed = strtoull(told, NULL, 10) | 1;
        } else {
            cr_assert_eq(getrandom(&seed, sizeof(seed), 0), (ssize_t)sizeof(seed));
        }
    }
    fprintf(stderr, "MOTTE_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

/* Random arguments, mostly small, so that near misses are met too. */
static struct seccomp_data random_call(int nr, uint64_t *state)
{
    struct seccomp_data data = {.arch = AUDIT_ARCH_X86_64, .nr = nr};
    for (size_t i = 0; i < COUNT_OF(data.args); i++) {
        uint64_t value = next_random(state);
        data.args[i] = value >> (next_random(state) % 64);
    }
    return data;
}

static bool runs(uint32_t verdict)
{
    return verdict == SECCOMP_RET_ALLOW || verdict == SECCOMP_RET_LOG;
}

Test(priv_seccomp, R12_no_stopping_level_opens_a_socket_of_another_family)
{
    uint64_t state = seed();
    for (unsigned level = PRIV_SECCOMP_MINIMAL; level <= PRIV_SECCOMP_BASIC; level++) {
        for (unsigned i = 0; i <= PRIV_THREAD_COUNT; i++) {
            cleanup(priv_bpf_release) struct priv_bpf bpf =
                i < PRIV_THREAD_COUNT ? firecracker(level, i) : qemu(level);
            for (int n = 0; n < 20000; n++) {
                struct seccomp_data data = random_call(SYS_socket, &state);
                bool local = (uint32_t)data.args[0] == AF_UNIX;
                cr_assert(local || !runs(bpf_run(&bpf, &data, NULL)), "family %llu", data.args[0]);
            }
        }
    }
}

Test(priv_seccomp, qemu_may_start_threads_but_no_process)
{
    uint64_t state = seed();
    cleanup(priv_bpf_release) struct priv_bpf bpf = qemu(PRIV_SECCOMP_MINIMAL);
    for (int n = 0; n < 20000; n++) {
        struct seccomp_data data = random_call(SYS_clone, &state);
        cr_assert_eq(runs(bpf_run(&bpf, &data, NULL)), (data.args[0] & CLONE_THREAD) != 0,
                     "flags %llx", data.args[0]);
    }
    static const int never[] = {SYS_fork,    SYS_vfork, SYS_execveat, SYS_ptrace,  SYS_setns,
                                SYS_unshare, SYS_mount, SYS_setuid,   SYS_connect, SYS_sendto};
    for (size_t i = 0; i < COUNT_OF(never); i++) {
        struct seccomp_data data = random_call(never[i], &state);
        cr_assert_eq(bpf_run(&bpf, &data, NULL), SECCOMP_RET_KILL_PROCESS, "call %d", never[i]);
    }
}

Test(priv_seccomp, another_abi_is_killed_by_every_program)
{
    static const uint32_t others[] = {AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64, 0};
    struct error err = {0};
    struct priv_bpf programs[5] = {0};
    programs[0] = firecracker(PRIV_SECCOMP_PERMISSIVE, PRIV_THREAD_VMM);
    programs[1] = firecracker(PRIV_SECCOMP_MINIMAL, PRIV_THREAD_VCPU);
    programs[2] = qemu(PRIV_SECCOMP_MINIMAL);
    programs[3] = qemu(PRIV_SECCOMP_PERMISSIVE);
    cr_assert_eq(priv_seccomp_launcher(&programs[4], &err), 0, "%s", err.msg);
    for (size_t p = 0; p < COUNT_OF(programs); p++) {
        for (int nr = 0; nr < 512; nr++) {
            for (size_t i = 0; i < COUNT_OF(others); i++) {
                struct seccomp_data data = {.arch = others[i], .nr = nr};
                cr_assert_eq(bpf_run(&programs[p], &data, NULL), SECCOMP_RET_KILL_PROCESS);
            }
            struct seccomp_data x32 = {.arch = AUDIT_ARCH_X86_64, .nr = BPF_X32 | nr};
            cr_assert_eq(bpf_run(&programs[p], &x32, NULL), SECCOMP_RET_KILL_PROCESS);
        }
        priv_bpf_release(&programs[p]);
    }
}

Test(priv_seccomp, the_launcher_denies_its_list_and_nothing_else)
{
    struct error err = {0};
    cleanup(priv_bpf_release) struct priv_bpf bpf = {0};
    cr_assert_eq(priv_seccomp_launcher(&bpf, &err), 0, "%s", err.msg);
    bool denied[512] = {0};
    for (size_t i = 0; i < priv_seccomp_launcher_rule_count; i++) {
        denied[priv_seccomp_launcher_rules[i].nr] = true;
    }
    static const int must[] = {SYS_bpf,
                               SYS_ptrace,
                               SYS_kexec_load,
                               SYS_kexec_file_load,
                               SYS_init_module,
                               SYS_finit_module,
                               SYS_delete_module,
                               SYS_keyctl,
                               SYS_add_key,
                               SYS_request_key,
                               SYS_perf_event_open,
                               SYS_userfaultfd,
                               SYS_open_by_handle_at};
    for (size_t i = 0; i < COUNT_OF(must); i++) {
        cr_assert(denied[must[i]], "call %d", must[i]);
    }
    for (int nr = 0; nr < 512; nr++) {
        struct seccomp_data data = {.arch = AUDIT_ARCH_X86_64, .nr = nr};
        uint32_t wanted = denied[nr] ? SECCOMP_RET_ERRNO | EPERM : SECCOMP_RET_ALLOW;
        cr_assert_eq(bpf_run(&bpf, &data, NULL), wanted, "call %d", nr);
    }
}

/* ---- R22: the file -------------------------------------------------------------------------- */

static uint64_t u64_at(const uint8_t *bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < 8; i++) {
        value |= (uint64_t)bytes[i] << (8 * i);
    }
    return value;
}

static void assert_layout(enum priv_seccomp level)
{
    static const char *const names[] = {"vmm", "api", "vcpu"};
    struct error err = {0};
    cleanup_free uint8_t *file = NULL;
    size_t len = 0;
    cr_assert_eq(priv_seccomp_firecracker_file(level, "1.12.1", &file, &len, &err), 0, "%s",
                 err.msg);
    cr_assert_eq(u64_at(file), 3);
    size_t at = 8;
    for (unsigned i = 0; i < PRIV_THREAD_COUNT; i++) {
        cleanup(priv_bpf_release) struct priv_bpf bpf = firecracker(level, i);
        size_t name_len = strlen(names[i]), size = bpf.count * 8;
        cr_assert_leq(at + 16 + name_len + size, len);
        cr_assert_eq(u64_at(file + at), name_len);
        cr_assert_eq(memcmp(file + at + 8, names[i], name_len), 0);
        cr_assert_eq(u64_at(file + at + 8 + name_len), bpf.count);
        cr_assert_eq(memcmp(file + at + 16 + name_len, bpf.code, size), 0);
        at += 16 + name_len + size;
    }
    cr_assert_eq(at, len, "%zu bytes too many", len - at);
}

Test(priv_seccomp, R22_file_has_firecrackers_layout_to_the_byte)
{
    assert_layout(PRIV_SECCOMP_MINIMAL);
    assert_layout(PRIV_SECCOMP_BASIC);
    assert_layout(PRIV_SECCOMP_PERMISSIVE);
}

Test(priv_seccomp, R22_an_empty_or_oversized_program_is_refused)
{
    static const size_t bad[] = {0, BPF_MAXINSNS + 1};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        for (unsigned thread = 0; thread < PRIV_THREAD_COUNT; thread++) {
            static struct sock_filter code[BPF_MAXINSNS + 1];
            struct priv_bpf programs[PRIV_THREAD_COUNT] = {{code, 1}, {code, 1}, {code, 1}};
            programs[thread].count = bad[i];
            struct error err = {0};
            uint8_t *file = NULL;
            size_t len = 0;
            cr_assert_neq(priv_seccomp_encode(programs, &file, &len, &err), 0);
            cr_assert_eq(err.code, ERR_INTERNAL);
            cr_assert_null(file);
        }
    }
}

Test(priv_seccomp, R22_a_version_of_another_format_is_refused)
{
    static const struct {
        const char *version;
        bool known;
    } cases[] = {{"1.12.1", true},   {"1.13.1", true},   {"1.14.10", true},  {"1.15.1", false},
                 {"1.11.0", false},  {"1.16.0", false},  {"2.12.1", false},  {"1.12", false},
                 {"1.12.", false},   {"", false},        {"1.12.1x", false}, {"1.12.1 ", false},
                 {"11.12.1", false}, {"1.120.1", false}, {"v1.12.1", false}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct error err = {0};
        cleanup_free uint8_t *file = NULL;
        size_t len = 0;
        int r = priv_seccomp_firecracker_file(PRIV_SECCOMP_MINIMAL, cases[i].version, &file, &len,
                                              &err);
        cr_assert_eq(r == 0, cases[i].known, "%s", cases[i].version);
        cr_assert_eq(err.code, cases[i].known ? ERR_NONE : ERR_SECCOMP_LEVEL);
    }
}
