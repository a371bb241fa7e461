/*
 * Adoption (R02, R20), one process at a time: what is found of it, what it lacks, and what cannot be
 * read. A process that sleeps stands for the VMM, in a network namespace and a cgroup of its own.
 */
#include "bench.h"
#include "tests/unit/base/refuse.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static void open_server(struct bench *bench)
{
    struct error err = {0};
    cr_assert_eq(priv_server_open(&bench->config, &bench->server, &err), 0, "%s", err.msg);
}

static void close_server(struct bench *bench)
{
    priv_server_free(bench->server);
    bench->server = NULL;
}

static void open_bench(struct bench *bench, uint32_t without)
{
    bench_init(bench);
    bench->config.hypervisor = 0;
    bench->config.without = without;
    open_server(bench);
}

/* A server that starts now refuses to. */
static void assert_no_start(struct bench *bench, int sys, const char *words)
{
    struct error err = {0};
    cr_assert_eq(priv_server_open(&bench->config, &bench->server, &err), -1);
    cr_assert_eq(err.sys, sys, "%s", err.msg);
    cr_assert_not_null(strstr(err.msg, words), "%s", err.msg);
    bench->server = NULL;
}

static pid_t sleep_as(char *name, uint32_t uid)
{
    char *const argv[] = {name, (char[]){"300"}, NULL};
    int ends[2];
    char byte;
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        if (unshare(CLONE_NEWNET) == 0 && setgid(uid) == 0 && setuid(uid) == 0 &&
            prctl(PR_SET_PDEATHSIG, SIGKILL) == 0)
            execve("/bin/sleep", argv, NULL);
        _exit(1);
    }
    close(ends[1]);
    cr_assert_eq(read(ends[0], &byte, 1), 0); /* until it is another program */
    close(ends[0]);
    return pid;
}

static void put_into_cgroup(const struct priv_cgroups *cgroups, const struct priv_record *record)
{
    char pid[16];
    snprintf(pid, sizeof(pid), "%d", record->pid);
    for (size_t at = 0; at < cgroups->count; at++) {
        cleanup_close int directory = priv_cgroup_directory(cgroups, at, record->instance);
        cr_assert_eq(fs_write_at(directory, "cgroup.procs", pid), 0);
    }
}

/* Everything about it agrees; `bench` has a server, which is closed afterwards. */
static struct priv_record launched(struct bench *bench)
{
    struct priv_server *server = bench->server;
    struct priv_record record = {.state = PRIV_LAUNCHED,
                                 .uid = bench->config.uid_base,
                                 .hypervisor = PRIV_FIRECRACKER,
                                 .without = bench->config.without,
                                 .shape = BENCH_SHAPE};
    struct error err = {0};
    cr_assert_eq(id_instance_make(record.instance, &err), 0);
    record.pid = sleep_as(record.instance, record.uid);
    memcpy(record.boot_id, server->boot_id, sizeof(server->boot_id));
    cr_assert_eq(priv_proc_start(record.pid, &record.start_time, &err), 0, "%s", err.msg);
    cr_assert_eq(priv_proc_namespace(record.pid, "net", &record.netns, &err), 0, "%s", err.msg);
    if (server->cgroups.count > 0) {
        cr_assert_eq(priv_cgroup_make(&server->cgroups, record.instance, &record.shape, 0, &err), 0,
                     "%s", err.msg);
        put_into_cgroup(&server->cgroups, &record);
    }
    cr_assert_eq(priv_record_write(server->records, &record, &err), 0, "%s", err.msg);
    close_server(bench);
    return record;
}

/* Opened beside the server, as an earlier one would have written it. */
static void rewrite(struct bench *bench, struct priv_record record)
{
    struct error err = {0};
    char path[128];
    snprintf(path, sizeof(path), "%s/priv", bench->run);
    cleanup_close int records = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_eq(priv_record_write(records, &record, &err), 0, "%s", err.msg);
}

enum found { NOT_IT, KILLABLE, ADOPTED };

/* What a server that starts now makes of the only record there is. */
static void assert_found(struct bench *bench, enum found wanted, const char *what)
{
    open_server(bench);
    cr_assert_eq(bench->server->slot_count, 1);
    const struct priv_instance_slot *slot = bench->server->slots[0];
    cr_assert_eq(slot->pidfd >= 0, wanted != NOT_IT, "%s", what);
    cr_assert_eq(slot->matches, wanted == ADOPTED, "%s", what);
    cr_assert_eq(slot->record.state, wanted == ADOPTED ? PRIV_LAUNCHED : PRIV_DEAD, "%s", what);
    close_server(bench);
}

static void reap(pid_t pid)
{
    kill(pid, SIGKILL);
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
}

static bool lives(pid_t pid)
{
    siginfo_t info = {0};
    cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT), 0);
    return info.si_pid == 0;
}

/* ---- what it is ---- */

static void *wait_for_end(void *context)
{
    pid_t *tid = context;
    char byte;
    __atomic_store_n(tid, gettid(), __ATOMIC_SEQ_CST);
    cr_assert_eq(read(tid[1], &byte, 1), 0);
    return NULL;
}

/* Its number went to a thread of somebody else's: here of ours. */
static void assert_thread_is_not_it(struct bench *bench, struct priv_record record)
{
    int ends[2];
    pthread_t thread;
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    pid_t shared[2] = {0, ends[0]};
    cr_assert_eq(pthread_create(&thread, NULL, wait_for_end, shared), 0);
    while ((record.pid = __atomic_load_n(&shared[0], __ATOMIC_SEQ_CST)) == 0)
        sched_yield();
    rewrite(bench, record);
    assert_found(bench, NOT_IT, "a thread");
    close(ends[1]);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    close(ends[0]);
}

Test(priv_adopt, R02_only_the_process_that_was_launched_is_adopted, .timeout = 60)
{
    static const int gone[] = {ESRCH, EINVAL, ENOENT};
    struct bench bench;
    open_bench(&bench, PRIV_GUARD_FIREWALL);
    const struct priv_record record = launched(&bench);
    assert_found(&bench, ADOPTED, "as it was launched");
    struct priv_record other = record;
    other.start_time++;
    rewrite(&bench, other);
    assert_found(&bench, NOT_IT, "a later process");
    other = record;
    other.boot_id[0] ^= 1;
    rewrite(&bench, other);
    assert_found(&bench, NOT_IT, "an earlier boot's");
    other = record;
    other.pid = 0;
    rewrite(&bench, other);
    assert_found(&bench, NOT_IT, "never launched");
    other = record;
    other.state = PRIV_GUARDED;
    rewrite(&bench, other);
    open_server(&bench);
    cr_assert_eq(bench.server->slots[0]->record.state, PRIV_DEAD, "half made");
    close_server(&bench);
    assert_thread_is_not_it(&bench, record);
    rewrite(&bench, record);
    for (size_t i = 0; i < COUNT_OF(gone); i++) {
        refuse(REFUSE_SYSCALL,
               (struct refusal){.number = SYS_pidfd_open, .times = 1, .sys = gone[i]});
        assert_found(&bench, NOT_IT, strerror(gone[i]));
    }
    refuse_nothing();
    assert_found(&bench, ADOPTED, "still there");
    kill(record.pid, SIGKILL);
    siginfo_t info;
    cr_assert_eq(waitid(P_PID, (id_t)record.pid, &info, WEXITED | WNOWAIT), 0);
    assert_found(&bench, NOT_IT, "ended, nobody has asked for its status");
    reap(record.pid);
    assert_found(&bench, NOT_IT, "gone");
    bench_close(&bench);
}

/* ---- where it is ---- */

static void move_out(const struct bench *bench, const struct priv_record *record)
{
    static const char *const places[] = {"", "memory/", "cpu/", "pids/", "blkio/"};
    char path[160], pid[16];
    snprintf(pid, sizeof(pid), "%d", record->pid);
    for (size_t i = 0; i < COUNT_OF(places); i++) {
        snprintf(path, sizeof(path), "/sys/fs/cgroup/%s%s/%s", places[i], bench->cgroup,
                 record->instance);
        if (access(path, F_OK) < 0)
            continue;
        snprintf(path, sizeof(path), "/sys/fs/cgroup/%s", places[i]);
        cleanup_close int top = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        cr_assert_eq(fs_write_at(top, "cgroup.procs", pid), 0, "%s: %m", path);
    }
}

Test(priv_adopt, R02_one_that_lacks_a_guard_may_only_be_killed, .timeout = 60)
{
    struct bench bench;
    open_bench(&bench, PRIV_GUARD_FIREWALL);
    const struct priv_record record = launched(&bench);
    struct priv_record other = record;
    other.uid++;
    rewrite(&bench, other);
    assert_found(&bench, KILLABLE, "another uid");
    other = record;
    other.netns++;
    rewrite(&bench, other);
    assert_found(&bench, KILLABLE, "another namespace, in its cgroup");
    rewrite(&bench, record);
    move_out(&bench, &record);
    assert_found(&bench, KILLABLE, "out of its cgroup, in its namespace");
    rewrite(&bench, other);
    assert_found(&bench, NOT_IT, "neither");
    reap(record.pid);
    bench_close(&bench);
}

/* Where nobody has a cgroup, to be in none is no sign. */
Test(priv_adopt, R02_without_cgroups_the_namespace_alone_tells, .timeout = 60)
{
    struct bench bench;
    open_bench(&bench, PRIV_GUARD_FIREWALL | PRIV_GUARD_CGROUP);
    const struct priv_record record = launched(&bench);
    assert_found(&bench, ADOPTED, "as it was launched");
    struct priv_record other = record;
    other.netns++;
    rewrite(&bench, other);
    assert_found(&bench, NOT_IT, "another namespace");
    cr_assert(lives(record.pid));
    reap(record.pid);
    bench_close(&bench);
}

/* ---- what cannot be read ---- */

static const struct {
    enum refusable call;
    struct refusal refusal;
    const char *words; /* of the error when the start fails of it */
} looks[] = {
    {REFUSE_OPENAT, {.path = "/stat"}, "reading /proc/"},
    {REFUSE_OPENAT, {.path = "/status"}, "instance "},
    {REFUSE_OPENAT, {.path = "/cmdline"}, "instance "},
    {REFUSE_STAT, {.path = "/ns/net"}, "instance "},
    {REFUSE_OPENAT, {.path = "cgroup.procs"}, "instance "},
};

static void refuse_look(size_t i, int sys)
{
    struct refusal refusal = looks[i].refusal;
    refusal.sys = sys;
    refusal.times = 1;
    refuse(looks[i].call, refusal);
}

Test(priv_adopt, R02_R20_a_vm_is_not_given_up_for_our_want, .timeout = 60)
{
    struct bench bench;
    open_bench(&bench, PRIV_GUARD_FIREWALL);
    const struct priv_record record = launched(&bench);
    refuse(REFUSE_SYSCALL, (struct refusal){.number = SYS_pidfd_open, .times = 1, .sys = EMFILE});
    assert_no_start(&bench, EMFILE, "looking for the VMM of");
    for (size_t i = 0; i < COUNT_OF(looks); i++) {
        refuse_look(i, EMFILE);
        assert_no_start(&bench, EMFILE, looks[i].words);
        cr_assert_eq(refused(looks[i].call), 1);
    }
    refuse_nothing();
    cr_assert(lives(record.pid));
    assert_found(&bench, ADOPTED, "when nothing is wanting");
    reap(record.pid);
    bench_close(&bench);
}

/* What is no want of ours is the process's: it gets no signal, and is not adopted. */
Test(priv_adopt, R02_one_that_cannot_be_read_is_not_adopted, .timeout = 60)
{
    struct bench bench;
    open_bench(&bench, PRIV_GUARD_FIREWALL);
    const struct priv_record record = launched(&bench);
    for (size_t i = 0; i < COUNT_OF(looks); i++) {
        refuse_look(i, EACCES);
        assert_found(&bench, NOT_IT, looks[i].refusal.path);
        cr_assert_eq(refused(looks[i].call), 1);
    }
    refuse_nothing();
    cr_assert(lives(record.pid));
    reap(record.pid);
    bench_close(&bench);
}

static void end_it(void *context)
{
    const struct priv_record *record = context;
    siginfo_t info;
    kill(record->pid, SIGKILL);
    cr_assert_eq(waitid(P_PID, (id_t)record->pid, &info, WEXITED | WNOWAIT), 0);
}

Test(priv_adopt, R02_one_that_ends_while_it_is_looked_at_is_gone, .timeout = 60)
{
    struct bench bench;
    open_bench(&bench, PRIV_GUARD_FIREWALL);
    struct priv_record record = launched(&bench);
    /* And it cannot be read for our want: that does not matter any more. */
    refuse(REFUSE_OPENAT, (struct refusal){.path = "/cmdline",
                                           .times = 1,
                                           .sys = EMFILE,
                                           .meanwhile = end_it,
                                           .context = &record});
    assert_found(&bench, NOT_IT, "ended meanwhile");
    refuse_nothing();
    reap(record.pid);
    bench_close(&bench);
}

/* ---- records ---- */

Test(priv_adopt, R20_what_a_record_is_not_is_undone, .timeout = 60)
{
    struct bench bench;
    struct error err = {0};
    char path[160];
    open_bench(&bench, PRIV_GUARD_FIREWALL | PRIV_GUARD_CGROUP);
    const struct priv_record record = launched(&bench);
    snprintf(path, sizeof(path), "%s/priv/%s", bench.run, record.instance);
    cr_assert_eq(truncate(path, 20), 0); /* damaged */
    open_server(&bench);
    cr_assert(bench.server->slot_count == 0 && access(path, F_OK) < 0);
    cr_assert_eq(priv_adopt(bench.server, record.instance, &err), 0, "gone meanwhile: %s", err.msg);
    cr_assert_eq(bench.server->slot_count, 0);
    close_server(&bench);
    cr_assert_eq(symlink("/etc/passwd", path), 0);
    open_server(&bench);
    cr_assert(bench.server->slot_count == 0 &&
              faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) < 0);
    close_server(&bench);
    cr_assert_eq(access("/etc/passwd", F_OK), 0);
    reap(record.pid);
    bench_close(&bench);
}

Test(priv_adopt, R02_R20_a_record_that_cannot_be_taken_stops_the_start, .timeout = 60)
{
    struct bench bench;
    struct priv_record other;
    open_bench(&bench, PRIV_GUARD_FIREWALL | PRIV_GUARD_CGROUP);
    const struct priv_record record = launched(&bench);
    refuse(REFUSE_OPENAT, (struct refusal){.path = record.instance, .times = 1, .sys = EMFILE});
    assert_no_start(&bench, EMFILE, "opening the record of instance");
    refuse_nothing();
    other = record;
    other.uid = bench.config.uid_base - 1;
    rewrite(&bench, other);
    assert_no_start(&bench, 0, "has uid");
    rewrite(&bench, record);
    assert_found(&bench, ADOPTED, "as it was");
    reap(record.pid);
    bench_close(&bench);
}

/* The n-th of these calls fails, for each n that there is; with all guards. */
static void start_short_of(struct bench *bench, enum refusable call)
{
    for (unsigned n = 0, more = 1; more > 0; n++) {
        struct error err = {0};
        refuse(call, (struct refusal){.after = n, .times = 1, .sys = ENOMEM});
        int result = priv_server_open(&bench->config, &bench->server, &err);
        more = refused(call);
        refuse_nothing();
        cr_assert_eq(result == 0, more == 0, "%u: %s", n, err.msg);
        cr_assert(result == 0 || error_is_shortage(&err), "%s", err.msg);
    }
    cr_assert(bench->server->slot_count == 1 && bench->server->slots[0]->matches);
    close_server(bench);
}

Test(priv_adopt, R02_R20_a_start_survives_every_want_of_memory, .timeout = 60)
{
    struct bench bench;
    open_bench(&bench, 0);
    const struct priv_record record = launched(&bench);
    start_short_of(&bench, REFUSE_CALLOC);
    start_short_of(&bench, REFUSE_REALLOCARRAY);
    reap(record.pid);
    bench_close(&bench);
}
