/*
 * Restoring (R04, R20, R21): a VM of a snapshot is one of its own, and whatever fails on the way,
 * nothing is left of it and its snapshot can go. A plain program, so that ThreadSanitizer can run it.
 */
#include "tests/unit/vmm/engine.h"

#include <limits.h>

static struct store_snapshot prepare(struct engine *engine)
{
    struct store_vm vm;
    struct store_snapshot snapshot;
    struct error err = {0};
    CHECK(engine_spawn(engine, "origin", 600, &vm, &err) == 0);
    CHECK(engine_snapshot(engine, "origin", false, &snapshot, &err) == 0);
    return snapshot;
}

static void remove_vm(struct engine *engine, const char *id)
{
    struct error err = {0};
    CHECK(vmm_delete(engine->vmm, "owner", id, &err) == 0);
}

static struct store_vm restore(struct engine *engine, const char *id, const char *snapshot)
{
    struct store_vm vm;
    struct error err = {0};
    if (engine_restore(engine, id, snapshot, "owner", &vm, &err) < 0) {
        fprintf(stderr, "not restored: %s: %s\n", error_code_name(err.code), err.msg);
        abort();
    }
    return vm;
}

/* With a VMM that behaves so; and then nothing of it is left. */
static void restore_fails(struct engine *engine, const struct store_snapshot *snapshot,
                          struct plan plan, enum error_code code, const char *step)
{
    struct store_vm vm;
    struct error err = {0};
    char words[64];
    root_plan(&engine->root, plan);
    CHECK(engine_restore(engine, "clone", snapshot->id, "owner", &vm, &err) < 0);
    snprintf(words, sizeof(words), "step %s: ", step);
    if (err.code != code || strstr(err.msg, words) == NULL) {
        fprintf(stderr, "wanted `%s%s`, have %s: %s\n", words, error_code_name(code),
                error_code_name(err.code), err.msg);
        abort();
    }
    root_plan(&engine->root, (struct plan){0});
    CHECK(root_live(&engine->root) == 1 && root_snapshots(&engine->root) == 1);
    snprintf(words, sizeof(words), "spawn_%s", step);
    if (strcmp(step, "admit") != 0)
        engine_ended(engine, "clone", STORE_FAILED, words);
}

static void a_clone_is_of_the_next_generation(struct engine *engine)
{
    struct store_snapshot first = prepare(engine), second;
    struct error err = {0};
    struct store_vm clone = restore(engine, "clone", first.id);
    CHECK(strcmp(clone.snapshot, first.id) == 0);
    CHECK(strstr(clone.guest, "\"generation\":1") != NULL);
    CHECK(strstr(clone.guest, "\"clock_skew_ms\":1") != NULL);
    CHECK(engine_exec(engine, "clone", &err) == 0 && engine_exec(engine, "origin", &err) == 0);
    CHECK(vmm_snapshot_delete(engine->vmm, "owner", first.id, &err) < 0);
    CHECK(err.code == ERR_SNAPSHOT_IN_USE && root_snapshots(&engine->root) == 1);
    err = (struct error){0};
    CHECK(engine_snapshot(engine, "clone", false, &second, &err) == 0 && second.generation == 1);
    engine_stop(engine);
    CHECK(engine_restart(engine).adopted == 2);
    CHECK(engine_exec(engine, "clone", &err) == 0);
    CHECK(engine_snapshot(engine, "clone", false, &second, &err) == 0 && second.generation == 1);
    struct store_vm grandchild = restore(engine, "grandchild", second.id);
    CHECK(strstr(grandchild.guest, "\"generation\":2") != NULL);
    remove_vm(engine, "clone");
    CHECK(vmm_snapshot_delete(engine->vmm, "owner", first.id, &err) == 0);
    remove_vm(engine, "grandchild");
    remove_vm(engine, "origin");
}

static void only_its_owner_restores_one(struct engine *engine)
{
    struct store_snapshot snapshot = prepare(engine);
    struct store_vm vm;
    struct error err = {0};
    CHECK(engine_restore(engine, "clone", snapshot.id, "another", &vm, &err) < 0);
    CHECK(err.code == ERR_SNAPSHOT_UNKNOWN && root_live(&engine->root) == 1);
    err = (struct error){0};
    CHECK(vmm_snapshot_delete(engine->vmm, "another", snapshot.id, &err) < 0);
    CHECK(err.code == ERR_SNAPSHOT_UNKNOWN && root_snapshots(&engine->root) == 1);
    remove_vm(engine, "origin");
}

static void a_step_that_fails_leaves_nothing(struct engine *engine)
{
    static const struct {
        enum moment moment;
        enum error_code code;
        const char *step;
    } cases[] = {
        {AT_RESERVE, ERR_CAPACITY, "admit"},
        {AT_GUARD, ERR_FIREWALL_COMMIT, "guard"},
        {AT_LAUNCH, ERR_LAUNCH, "launch"},
        {AT_OPEN_API, ERR_HYPERVISOR, "configure"},
        {AT_LOAD, ERR_HYPERVISOR, "configure"},
        {AT_PAUSE, ERR_HYPERVISOR, "configure"},
        {AT_OPEN_VSOCK, ERR_HYPERVISOR, "configure"},
        {AT_CHECK, ERR_GUARD, "start"},
        {AT_RESUME, ERR_HYPERVISOR, "start"},
        {AT_RESTORE, ERR_GUEST_PROTOCOL, "hello"},
        {AT_HELLO, ERR_BOOT_TIMEOUT, "hello"},
    };
    struct store_snapshot snapshot = prepare(engine);
    struct error err = {0};
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        restore_fails(engine, &snapshot, (struct plan){.fail = cases[i].moment}, cases[i].code,
                      cases[i].step);
    CHECK(engine_exec(engine, "origin", &err) == 0);
    remove_vm(engine, "origin");
    CHECK(vmm_snapshot_delete(engine->vmm, "owner", snapshot.id, &err) == 0);
}

static void a_vmm_that_dies_leaves_nothing(struct engine *engine)
{
    static const struct {
        enum moment moment;
        const char *step;
    } cases[] = {{AT_LAUNCH, "configure"}, {AT_LOAD, "configure"}, {AT_CHECK, "start"},
                 {AT_RESUME, "start"},     {AT_RESTORE, "hello"},  {AT_HELLO, "hello"}};
    struct store_snapshot snapshot = prepare(engine);
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        restore_fails(engine, &snapshot, (struct plan){.die = cases[i].moment}, ERR_VMM_EXITED,
                      cases[i].step);
    remove_vm(engine, "origin");
}

static void a_guest_that_does_not_become_another_is_no_vm(struct engine *engine)
{
    struct store_snapshot snapshot = prepare(engine);
    restore_fails(engine, &snapshot, (struct plan){.stays = true}, ERR_GUEST_PROTOCOL, "hello");
    restore_fails(engine, &snapshot, (struct plan){.mute = AT_RESTORE}, ERR_BOOT_TIMEOUT, "hello");
    restore_fails(engine, &snapshot, (struct plan){.lie = AT_RESTORE}, ERR_GUEST_PROTOCOL, "hello");
    restore_fails(engine, &snapshot, (struct plan){.lie = AT_HELLO}, ERR_GUEST_PROTOCOL, "hello");
    remove_vm(engine, "origin");
}

struct call {
    struct engine *engine;
    pthread_t thread;
    bool done;
    struct error err;
};

static void *delete_main(void *context)
{
    struct call *call = context;
    call->done = vmm_delete(call->engine->vmm, "owner", "clone", &call->err) == 0;
    return NULL;
}

static void start_delete(void *context, const char *instance)
{
    struct call *call = context;
    (void)instance;
    CHECK(pthread_create(&call->thread, NULL, delete_main, call) == 0);
}

/* Whenever it comes; and at once where the guest is waited for. */
static void a_delete_stops_it(struct engine *engine)
{
    static const enum moment moments[] = {AT_LOAD, AT_RESUME, AT_RESTORE};
    struct store_snapshot snapshot = prepare(engine);
    for (size_t i = 0; i < COUNT_OF(moments); i++) {
        struct call call = {.engine = engine};
        struct store_vm vm;
        struct error err = {0};
        bool waits = moments[i] == AT_RESTORE;
        root_plan(&engine->root, (struct plan){.call = moments[i],
                                               .mute = waits ? AT_RESTORE : NEVER,
                                               .action = start_delete,
                                               .context = &call});
        int result = engine_restore(engine, "clone", snapshot.id, "owner", &vm, &err);
        CHECK(result == 0 ? !waits : err.code == ERR_CANCELLED);
        CHECK(pthread_join(call.thread, NULL) == 0 && call.done);
        engine_ended(engine, "clone", STORE_EXITED, "deleted");
        CHECK(root_live(&engine->root) == 1);
    }
    root_plan(&engine->root, (struct plan){0});
    remove_vm(engine, "origin");
}

/* ---- the service dies ---- */

/* While their snapshot is there, forks are not all there: then they are none. */
static void half_of_a_fork_does_not_outlive_the_service(struct engine *engine)
{
    struct store_snapshot kept = prepare(engine), passing;
    struct error err = {0};
    struct vmm_recovered recovered;
    CHECK(engine_snapshot(engine, "origin", true, &passing, &err) == 0);
    restore(engine, "fork", passing.id);
    restore(engine, "clone", kept.id);
    engine_stop(engine);
    engine_sql(engine, "ALTER TABLE snapshots RENAME TO elsewhere");
    engine_resume(engine);
    CHECK(vmm_recover(engine->vmm, &recovered, &err) < 0);
    CHECK(strstr(err.msg, "cannot be adopted now") != NULL && root_live(&engine->root) == 3);
    engine_stop(engine);
    engine_sql(engine, "ALTER TABLE elsewhere RENAME TO snapshots");
    recovered = engine_restart(engine);
    CHECK(recovered.adopted == 2 && recovered.undone == 1);
    engine_ended(engine, "fork", STORE_FAILED, "daemon_restart");
    CHECK(root_snapshots(&engine->root) == 1 && root_live(&engine->root) == 2);
    err = (struct error){0};
    CHECK(engine_exec(engine, "clone", &err) == 0);
    CHECK(engine_snapshot(engine, "origin", true, &passing, &err) == 0);
    restore(engine, "fork", passing.id);
    CHECK(vmm_snapshot_delete(engine->vmm, "owner", passing.id, &err) == 0);
    engine_stop(engine);
    CHECK(engine_restart(engine).adopted == 3); /* it was all there */
    remove_vm(engine, "fork");
    remove_vm(engine, "clone");
    remove_vm(engine, "origin");
}

/* Those that could not be ended either: while the snapshot's row is there, a start ends them. */
static void forks_that_are_undone_do_not_outlive_the_service(struct engine *engine)
{
    struct store_snapshot kept = prepare(engine), passing;
    struct error err = {0};
    CHECK(engine_snapshot(engine, "origin", true, &passing, &err) == 0);
    const struct store_vm forks[] = {restore(engine, "one", passing.id),
                                     restore(engine, "two", passing.id)};
    for (size_t i = 0; i < COUNT_OF(forks); i++)
        root_kill_failures(&engine->root, forks[i].instance, INT_MAX);
    vmm_fork_undo(engine->vmm, &passing, forks, COUNT_OF(forks));
    CHECK(root_live(&engine->root) == 3);
    engine_stop(engine);
    for (size_t i = 0; i < COUNT_OF(forks); i++)
        root_kill_failures(&engine->root, forks[i].instance, 0);
    CHECK(engine_restart(engine).adopted == 1);
    CHECK(root_live(&engine->root) == 1 && root_snapshots(&engine->root) == 1);
    CHECK(vmm_snapshot_delete(engine->vmm, "owner", kept.id, &err) == 0);
    remove_vm(engine, "origin");
}

static void an_undo_that_the_inventory_refuses_is_made_up_for(struct engine *engine)
{
    struct store_snapshot kept = prepare(engine), passing;
    struct error err = {0};
    bool forking = true;
    CHECK(engine_snapshot(engine, "origin", true, &passing, &err) == 0);
    const struct store_vm fork = restore(engine, "fork", passing.id);
    engine_sql(engine, "ALTER TABLE snapshots RENAME TO elsewhere");
    vmm_fork_undo(engine->vmm, &passing, &fork, 1);
    CHECK(root_live(&engine->root) == 1 && root_snapshots(&engine->root) == 2);
    engine_sql(engine, "ALTER TABLE elsewhere RENAME TO snapshots");
    vmm_sweep(engine->vmm);
    CHECK(root_snapshots(&engine->root) == 1);
    CHECK(store_snapshot_forking(engine->fixture.store, passing.id, &forking, &err) == 0);
    CHECK(!forking);
    CHECK(vmm_snapshot_delete(engine->vmm, "owner", kept.id, &err) == 0);
    remove_vm(engine, "origin");
}

int main(void)
{
    static engine_test *const tests[] = {
        a_clone_is_of_the_next_generation,
        only_its_owner_restores_one,
        a_step_that_fails_leaves_nothing,
        a_vmm_that_dies_leaves_nothing,
        a_guest_that_does_not_become_another_is_no_vm,
        a_delete_stops_it,
        half_of_a_fork_does_not_outlive_the_service,
        forks_that_are_undone_do_not_outlive_the_service,
        an_undo_that_the_inventory_refuses_is_made_up_for,
    };
    return engine_run(tests, COUNT_OF(tests));
}
