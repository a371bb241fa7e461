/* KILL and what gives an instance back (R04, R20), where the kernel refuses: nothing is forgotten
 * that was not taken away, and the next KILL goes on. */
#include "bench.h"
#include "priv/snapshot_internal.h"
#include "tests/unit/base/refuse.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { UIDS = 2 };

/* No VMM, no firewall, no cgroups: what is left is the table and the records. */
static void open_bare(struct bench *bench)
{
    struct error err = {0};
    bench_init(bench);
    bench->config.hypervisor = 0;
    bench->config.without = PRIV_GUARD_FIREWALL | PRIV_GUARD_CGROUP;
    bench->config.uid_count = UIDS;
    cr_assert_eq(priv_server_open(&bench->config, &bench->server, &err), 0, "%s", err.msg);
}

static void close_bare(struct bench *bench)
{
    priv_server_free(bench->server);
    bench->server = NULL;
    bench_close(bench);
}

static struct priv_instance_slot *reserve(struct bench *bench)
{
    struct error err = {0};
    struct priv_instance_slot *slot = priv_slot_reserve(bench->server, NULL, &err);
    cr_assert_not_null(slot, "%s", err.msg);
    return slot;
}

/* A launched instance whose VMM sleeps. */
static struct priv_instance_slot *launch(struct bench *bench)
{
    struct priv_instance_slot *slot = reserve(bench);
    struct error err = {0};
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    slot->record.pid = pid;
    slot->record.state = PRIV_LAUNCHED;
    slot->child = true;
    slot->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    cr_assert_geq(slot->pidfd, 0);
    cr_assert_eq(priv_record_write(bench->server->records, &slot->record, &err), 0);
    return slot;
}

static int kill_it(struct bench *bench, struct priv_instance_slot *slot, struct priv_answer *answer,
                   struct error *err)
{
    struct priv_request request = bench_request(PRIV_KILL, slot->record.instance);
    *answer = (struct priv_answer){0};
    return priv_op_kill(bench->server, slot, &request, answer, err);
}

static void assert_gone(struct bench *bench, const char *instance)
{
    cr_assert_null(priv_slot_find(bench->server, instance));
    cr_assert_eq(faccessat(bench->server->records, instance, F_OK, 0), -1);
}

/* ---- the table ---- */

static void assert_refused(struct bench *bench, const struct netfilter_vm *vm, enum error_code code)
{
    struct error err = {0};
    size_t before = bench->server->slot_count;
    cr_assert_null(priv_slot_reserve(bench->server, vm, &err));
    cr_assert_eq(err.code, code, "%s", err.msg);
    cr_assert_eq(bench->server->slot_count, before);
}

static void assert_refused_without(struct bench *bench, enum refusable call, enum error_code code)
{
    refuse(call, (struct refusal){.times = 1, .sys = ENOMEM});
    assert_refused(bench, NULL, code);
    cr_assert_eq(refused(call), 1);
    refuse_nothing();
}

Test(priv_undo, R04_what_cannot_be_reserved_takes_no_uid, .timeout = 60)
{
    struct bench bench;
    struct priv_limits limits;
    open_bare(&bench);
    limits = priv_limits_now(bench.server);
    assert_refused_without(&bench, REFUSE_GETRANDOM, ERR_SYSTEM);
    assert_refused_without(&bench, REFUSE_REALLOCARRAY, ERR_NO_MEMORY);
    assert_refused_without(&bench, REFUSE_CALLOC, ERR_NO_MEMORY);
    priv_server_limit(bench.server, &(struct priv_limits){.max_vms = 0});
    assert_refused(&bench, NULL, ERR_CAPACITY);
    assert_refused(&bench, &(struct netfilter_vm){.uid = bench.config.uid_base}, ERR_CAPACITY);
    priv_server_limit(bench.server, &limits);
    struct priv_instance_slot *first = reserve(&bench);
    (void)reserve(&bench); /* every uid is free again, and these are all */
    assert_refused(&bench, NULL, ERR_CAPACITY);
    priv_slot_forget(bench.server, first);
    cr_assert_eq(reserve(&bench)->record.uid, bench.config.uid_base + (UIDS - 1));
    close_bare(&bench);
}

Test(priv_undo, R02_a_record_whose_uid_is_not_ours_to_give_stops_the_start, .timeout = 60)
{
    struct bench bench;
    struct priv_record record = {.state = PRIV_DEAD};
    open_bare(&bench);
    const uint32_t base = bench.config.uid_base, wrong[] = {base - 1, base + UIDS, base};
    record.uid = base;
    struct error err = {0};
    cr_assert_not_null(priv_slot_adopt(bench.server, &record, &err));
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        err = (struct error){0};
        record.uid = wrong[i];
        cr_assert_null(priv_slot_adopt(bench.server, &record, &err));
        cr_assert_eq(err.code, ERR_CONFIG);
        cr_assert_not_null(strstr(err.msg, "--purge"));
    }
    record.uid = base + 1;
    refuse(REFUSE_CALLOC, (struct refusal){.times = 1, .sys = ENOMEM});
    err = (struct error){0};
    cr_assert_null(priv_slot_adopt(bench.server, &record, &err));
    cr_assert_eq(err.code, ERR_NO_MEMORY);
    refuse_nothing();
    cr_assert_not_null(priv_slot_adopt(bench.server, &record, &err), "its uid is still free");
    close_bare(&bench);
}

/* ---- KILL ---- */

Test(priv_undo, R04_a_vmm_that_does_not_end_is_not_forgotten, .timeout = 60)
{
    static const int sys[] = {0, ENOMEM};
    struct bench bench;
    struct priv_answer answer;
    struct error err = {0};
    char instance[ID_INSTANCE_SIZE];
    open_bare(&bench);
    struct priv_instance_slot *slot = launch(&bench);
    memcpy(instance, slot->record.instance, sizeof(instance));
    for (size_t i = 0; i < COUNT_OF(sys); i++) {
        /* The first asks whether it runs; then it does not end in time, or that cannot be seen. */
        refuse(REFUSE_POLL, (struct refusal){.after = i == 0, .times = 1, .sys = sys[i]});
        err = (struct error){0};
        cr_assert_eq(kill_it(&bench, slot, &answer, &err), -1);
        cr_assert_eq(refused(REFUSE_POLL), 1);
        cr_assert_eq(err.code, ERR_HYPERVISOR);
        cr_assert_not_null(strstr(err.msg, "does not end after SIGKILL"));
        cr_assert_eq(priv_slot_find(bench.server, instance), slot);
        priv_slot_hurry(bench.server, instance); /* from now on it is known that it ran */
    }
    /* A signal of ours in the middle of the wait changes nothing. */
    refuse(REFUSE_POLL, (struct refusal){.times = 1, .sys = EINTR});
    err = (struct error){0};
    cr_assert_eq(kill_it(&bench, slot, &answer, &err), 0, "%s", err.msg);
    cr_assert_eq(refused(REFUSE_POLL), 1);
    refuse_nothing();
    cr_assert(answer.reply.u.kill.has_status && WIFSIGNALED(answer.reply.u.kill.status));
    assert_gone(&bench, instance);
    close_bare(&bench);
}

/* As when KILL comes while another request waits for the VMM. */
Test(priv_undo, R04_a_kill_that_was_hurried_tells_how_it_was_then, .timeout = 60)
{
    struct bench bench;
    struct priv_answer answer;
    struct error err = {0};
    char instance[ID_INSTANCE_SIZE];
    open_bare(&bench);
    (void)reserve(&bench); /* the first in the table is another */
    struct priv_instance_slot *slot = launch(&bench);
    memcpy(instance, slot->record.instance, sizeof(instance));
    priv_slot_hurry(bench.server, instance);
    siginfo_t info;
    cr_assert_eq(waitid(P_PID, (id_t)slot->record.pid, &info, WEXITED | WNOWAIT), 0);
    priv_slot_hurry(bench.server, instance); /* it has ended by now: that is not what is told */
    cr_assert_eq(kill_it(&bench, slot, &answer, &err), 0, "%s", err.msg);
    cr_assert(answer.reply.u.kill.was_running);
    assert_gone(&bench, instance);
    close_bare(&bench);
}

Test(priv_undo, R04_killing_what_was_never_guarded_or_never_was_is_success, .timeout = 60)
{
    struct bench bench;
    struct priv_answer answer;
    struct error err = {0};
    char instance[ID_INSTANCE_SIZE];
    open_bare(&bench);
    struct priv_instance_slot *slot = reserve(&bench);
    memcpy(instance, slot->record.instance, sizeof(instance));
    cr_assert(priv_pidfd_ended(slot->pidfd), "what has no VMM has none that runs");
    priv_slot_hurry(bench.server, instance);
    cr_assert_eq(kill_it(&bench, slot, &answer, &err), 0, "%s", err.msg);
    assert_gone(&bench, instance);
    struct priv_request request = bench_request(PRIV_KILL, instance);
    priv_slot_hurry(bench.server, instance);
    cr_assert_eq(priv_op_kill(bench.server, NULL, &request, &answer, &err), 0, "%s", err.msg);
    cr_assert_not(answer.reply.u.kill.was_running);
    close_bare(&bench);
}

/* What a snapshot had written when its VM was deleted. */
Test(priv_undo, R04_a_half_made_snapshot_that_stays_keeps_the_record, .timeout = 60)
{
    struct bench bench;
    struct priv_answer answer;
    struct error err = {0};
    char instance[ID_INSTANCE_SIZE], building[ID_INSTANCE_SIZE + 1];
    open_bare(&bench);
    struct priv_instance_slot *slot = launch(&bench);
    memcpy(instance, slot->record.instance, sizeof(instance));
    slot->phase = PRIV_PHASE_CAPTURED;
    priv_building_name(building, instance);
    cr_assert_eq(mkdirat(bench.server->snapshots, building, 0700), 0);
    refuse(REFUSE_FDOPENDIR, (struct refusal){.times = 1, .sys = ENOMEM});
    cr_assert_eq(kill_it(&bench, slot, &answer, &err), -1);
    cr_assert_eq(refused(REFUSE_FDOPENDIR), 1);
    refuse_nothing();
    cr_assert_eq(err.sys, ENOMEM, "%s", err.msg);
    cr_assert_eq(faccessat(bench.server->records, instance, F_OK, 0), 0);
    err = (struct error){0};
    cr_assert_eq(kill_it(&bench, slot, &answer, &err), 0, "%s", err.msg);
    cr_assert_eq(faccessat(bench.server->snapshots, building, F_OK, 0), -1);
    assert_gone(&bench, instance);
    close_bare(&bench);
}

/* In the place of a hierarchy: a directory whose entry is not empty. */
Test(priv_undo, R04_a_cgroup_that_stays_keeps_the_record_and_what_is_known, .timeout = 60)
{
    struct bench bench;
    struct priv_answer answer;
    struct error err = {0};
    char instance[ID_INSTANCE_SIZE], path[160];
    open_bare(&bench);
    struct priv_instance_slot *slot = launch(&bench);
    memcpy(instance, slot->record.instance, sizeof(instance));
    snprintf(path, sizeof(path), "%s/hierarchy/%s/more", bench.directory, instance);
    cr_assert_eq(fs_mkdir_p(path, 0700), 0);
    snprintf(path, sizeof(path), "%s/hierarchy", bench.directory);
    bench.server->cgroups.root[0] = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bench.server->cgroups.version = 1;
    bench.server->cgroups.count = 1;
    cr_assert_eq(kill_it(&bench, slot, &answer, &err), -1);
    cr_assert_eq(err.code, ERR_CGROUP, "%s", err.msg);
    cr_assert_eq(faccessat(bench.server->records, instance, F_OK, 0), 0);
    snprintf(path, sizeof(path), "%s/hierarchy/%s/more", bench.directory, instance);
    cr_assert_eq(rmdir(path), 0);
    err = (struct error){0};
    cr_assert_eq(kill_it(&bench, slot, &answer, &err), 0, "%s", err.msg);
    cr_assert(answer.reply.u.kill.was_running, "when the first KILL came");
    cr_assert(answer.reply.u.kill.has_status && WTERMSIG(answer.reply.u.kill.status) == SIGKILL);
    assert_gone(&bench, instance);
    bench.server->cgroups.count = 0;
    close_bare(&bench);
}

Test(priv_undo, R04_a_record_that_stays_keeps_the_instance, .timeout = 60)
{
    struct bench bench;
    struct priv_answer answer;
    struct error err = {0};
    char instance[ID_INSTANCE_SIZE];
    open_bare(&bench);
    struct priv_instance_slot *slot = reserve(&bench);
    memcpy(instance, slot->record.instance, sizeof(instance));
    priv_slot_state(bench.server, slot, PRIV_GUARDED);
    cr_assert_eq(mkdirat(bench.server->records, instance, 0700), 0);
    cr_assert_eq(kill_it(&bench, slot, &answer, &err), -1);
    cr_assert_eq(err.sys, EISDIR);
    cr_assert_eq(priv_slot_find(bench.server, instance), slot);
    cr_assert_eq(unlinkat(bench.server->records, instance, AT_REMOVEDIR), 0);
    cr_assert_eq(kill_it(&bench, slot, &answer, &err), 0, "%s", err.msg);
    cr_assert(!answer.reply.u.kill.was_running && !answer.reply.u.kill.has_status);
    assert_gone(&bench, instance);
    close_bare(&bench);
}
