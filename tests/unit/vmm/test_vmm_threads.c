/*
 * The engine's own threads against everything that can go wrong at one known moment: R04's undo at
 * each step, a DELETE at each step, ends by themselves, ends that fail, restarts. A plain program,
 * so that ThreadSanitizer can run it.
 */
#include "tests/unit/vmm/engine.h"

/* ---- a fault at each step ---- */

static const struct {
    enum moment moment;
    const char *fails, *dies; /* reasons; NULL: nothing to see there */
} moments[] = {
    {AT_GUARD, "spawn_guard", NULL},
    {AT_LAUNCH, "spawn_launch", "spawn_configure"},
    {AT_OPEN_API, "spawn_configure", "spawn_configure"},
    {AT_PUT, "spawn_configure", "spawn_configure"},
    {AT_OPEN_VSOCK, "spawn_configure", "spawn_configure"},
    {AT_START, "spawn_start", "spawn_start"},
    {AT_CHECK, "spawn_start", "spawn_start"},
    {AT_HELLO, "spawn_hello", "spawn_hello"},
};

static void spawn_fails(struct engine *engine, struct plan plan, const char *reason)
{
    struct store_vm row;
    struct error err = {0};
    root_plan(&engine->root, plan);
    CHECK(engine_spawn(engine, "vm", 60, &row, &err) < 0);
    CHECK(err.code != ERR_NONE);
    CHECK(plan.die == NEVER || err.code == ERR_VMM_EXITED);
    CHECK(plan.fail != AT_HELLO || err.code == ERR_BOOT_TIMEOUT);
    engine_empty(engine);
    engine_ended(engine, "vm", STORE_FAILED, reason);
}

static void every_fault_is_undone(struct engine *engine)
{
    struct store_vm row;
    struct error err = {0};
    root_plan(&engine->root, (struct plan){.fail = AT_RESERVE});
    CHECK(engine_spawn(engine, "vm", 60, &row, &err) < 0 && err.code == ERR_CAPACITY);
    for (size_t i = 0; i < COUNT_OF(moments); i++) {
        spawn_fails(engine, (struct plan){.fail = moments[i].moment}, moments[i].fails);
        if (moments[i].dies != NULL)
            spawn_fails(engine, (struct plan){.die = moments[i].moment}, moments[i].dies);
    }
    /* More refusals than one undo has KILLs: the reaper goes on, and the reason stays. */
    spawn_fails(engine, (struct plan){.fail = AT_CHECK, .kill_failures = 4}, "spawn_start");
}

/* ---- a delete at each step ---- */

struct deleter {
    struct engine *engine;
    const char *id;
    pthread_t thread;
};

static void *delete_main(void *context)
{
    struct deleter *deleter = context;
    struct error err = {0};
    CHECK(vmm_delete(deleter->engine->vmm, "owner", deleter->id, &err) == 0);
    return NULL;
}

/* Returns when the spawn can see that it is not wanted. */
static void start_delete(void *context, const char *instance)
{
    struct deleter *deleter = context;
    struct vmm_machine *machine = vmm_machine_find(deleter->engine->vmm, instance);
    struct error err = {.code = ERR_GUEST_CLOSED}; /* worth a wait */
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    CHECK(machine != NULL);
    CHECK(pthread_create(&deleter->thread, NULL, delete_main, deleter) == 0);
    while (!vmm_machine_gone_after(machine, &err))
        CHECK(clock_mono_ms() < deadline);
    CHECK(vmm_machine_cancelled(machine));
    vmm_machine_unref(deleter->engine->vmm, machine);
}

static void a_delete_at_every_step_wins(struct engine *engine)
{
    for (size_t i = 0; i < COUNT_OF(moments); i++) {
        struct deleter deleter = {.engine = engine, .id = "unwanted"};
        struct store_vm row;
        struct error err = {0};
        root_plan(
            &engine->root,
            (struct plan){.call = moments[i].moment, .action = start_delete, .context = &deleter});
        CHECK(engine_spawn(engine, "unwanted", 60, &row, &err) < 0);
        CHECK(err.code == ERR_CANCELLED);
        CHECK(strstr(err.msg, "deleted") != NULL);
        CHECK(pthread_join(deleter.thread, NULL) == 0);
        engine_empty(engine);
        engine_ended(engine, "unwanted", STORE_EXITED, "deleted");
    }
}

/* What failed is told, and the certificate says that nobody wanted it any more. */
static void a_step_that_fails_beside_a_delete_tells_its_own_error(struct engine *engine)
{
    struct deleter deleter = {.engine = engine, .id = "unwanted"};
    struct store_vm row;
    struct error err = {0};
    root_plan(&engine->root,
              (struct plan){
                  .fail = AT_GUARD, .call = AT_GUARD, .action = start_delete, .context = &deleter});
    CHECK(engine_spawn(engine, "unwanted", 60, &row, &err) < 0);
    CHECK(err.code == ERR_FIREWALL_COMMIT);
    CHECK(pthread_join(deleter.thread, NULL) == 0);
    engine_empty(engine);
    engine_ended(engine, "unwanted", STORE_EXITED, "deleted");
    err = (struct error){0};
    CHECK(vmm_delete(engine->vmm, "owner", "nobody", &err) < 0 && err.code == ERR_VM_UNKNOWN);
}

/* The store says it before the machine does. */
static void take_row(void *context, const char *instance)
{
    struct engine *engine = context;
    struct store_vm row;
    struct error err = {0};
    CHECK(store_vm_deleting(engine->fixture.store, "owner", "late", &row, &err) == 0);
    CHECK(strcmp(row.instance, instance) == 0);
}

static void a_delete_seen_by_commit_only_is_a_delete(struct engine *engine)
{
    struct store_vm row;
    struct error err = {0};
    root_plan(&engine->root,
              (struct plan){.call = AT_HELLO, .action = take_row, .context = engine});
    CHECK(engine_spawn(engine, "late", 60, &row, &err) < 0 && err.code == ERR_CANCELLED);
    engine_empty(engine);
    engine_ended(engine, "late", STORE_EXITED, "deleted");
}

/* ---- the end of what runs ---- */

static void run(struct engine *engine, const char *id, int64_t ttl_s, struct plan plan,
                struct store_vm *ret)
{
    struct error err = {0};
    root_plan(&engine->root, plan);
    if (engine_spawn(engine, id, ttl_s, ret, &err) < 0) {
        fprintf(stderr, "%s: %s\n", id, err.msg);
        abort();
    }
}

static void ends_are_certified(struct engine *engine)
{
    struct store_vm row;
    struct error err = {0};
    run(engine, "timed", 1, (struct plan){0}, &row);
    run(engine, "crashed", 60, (struct plan){0}, &row);
    CHECK(engine_exec(engine, "crashed", &err) == 0);
    root_crash(&engine->root, row.instance);
    run(engine, "gone", 60, (struct plan){.die = AT_EXEC}, &row);
    CHECK(engine_exec(engine, "gone", &err) < 0 && err.code == ERR_VM_GONE);
    engine_empty(engine);
    engine_ended(engine, "timed", STORE_EXITED, "ttl");
    engine_ended(engine, "crashed", STORE_EXITED, "vmm_crash");
    engine_ended(engine, "gone", STORE_EXITED, "vmm_crash");
}

static void delete_it(void *context, const char *instance)
{
    (void)instance;
    struct deleter *deleter = context;
    CHECK(pthread_create(&deleter->thread, NULL, delete_main, deleter) == 0);
}

static void a_delete_ends_a_running_command(struct engine *engine)
{
    struct deleter deleter = {.engine = engine, .id = "busy"};
    struct store_vm row;
    struct error err = {0};
    run(engine, "busy", 60,
        (struct plan){.fail = AT_EXEC, .call = AT_EXEC, .action = delete_it, .context = &deleter},
        &row);
    CHECK(engine_exec(engine, "busy", &err) < 0 && err.code == ERR_VM_GONE);
    CHECK(pthread_join(deleter.thread, NULL) == 0);
    engine_empty(engine);
}

static void a_failed_delete_is_tried_again(struct engine *engine)
{
    struct store_vm row;
    struct error err = {0};
    run(engine, "stubborn", 60, (struct plan){.kill_failures = 2}, &row);
    CHECK(vmm_delete(engine->vmm, "owner", "stubborn", &err) < 0 && err.code == ERR_FIREWALL_LOCK);
    engine_empty(engine);
    engine_ended(engine, "stubborn", STORE_EXITED, "deleted");
}

/* The newest comes first in the table. */
static void one_that_cannot_end_keeps_nobody_waiting(struct engine *engine)
{
    struct store_vm row, stuck;
    struct error err = {0};
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    run(engine, "patient", 1, (struct plan){0}, &row);
    run(engine, "stuck", 60, (struct plan){.kill_failures = 1 << 30}, &stuck);
    root_crash(&engine->root, stuck.instance);
    struct vmm_machine *machine = vmm_machine_find(engine->vmm, row.instance);
    for (struct vmm_machine *found = machine; found != NULL;) {
        vmm_machine_unref(engine->vmm, found);
        CHECK(clock_mono_ms() < deadline);
        sched_yield();
        found = vmm_machine_find(engine->vmm, row.instance);
    }
    engine_ended(engine, "patient", STORE_EXITED, "ttl");
    CHECK(store_vm_get(engine->fixture.store, "owner", "stuck", &row, &err) == 0);
    root_kill_failures(&engine->root, stuck.instance, 0);
    engine_empty(engine);
    engine_ended(engine, "stuck", STORE_EXITED, "vmm_crash");
}

/* Only the first KILL tells why a VMM ended. */
static void a_reason_outlives_a_locked_store(struct engine *engine)
{
    struct store_vm row;
    run(engine, "forgotten", 60, (struct plan){0}, &row);
    sqlite3 *other = engine_connect(engine);
    CHECK(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK);
    root_crash(&engine->root, row.instance);
    struct vmm_machine *machine = vmm_machine_find(engine->vmm, row.instance);
    CHECK(machine != NULL);
    pthread_mutex_lock(&engine->vmm->lock);
    while (!machine->doomed)
        pthread_cond_wait(&engine->vmm->changed, &engine->vmm->lock);
    pthread_mutex_unlock(&engine->vmm->lock);
    vmm_machine_unref(engine->vmm, machine);
    CHECK(root_live(&engine->root) == 0);
    CHECK(sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL) == SQLITE_OK);
    sqlite3_close(other);
    engine_empty(engine);
    engine_ended(engine, "forgotten", STORE_EXITED, "vmm_crash");
}

/* ---- restart ---- */

static void a_restart_keeps_what_agrees(struct engine *engine)
{
    struct store_vm kept, crashed, row;
    struct error err = {0};
    char instance[ID_INSTANCE_SIZE], chain[PRIV_CHAIN_SIZE];
    uint32_t uid;
    run(engine, "kept", 60, (struct plan){0}, &kept);
    run(engine, "second", 60, (struct plan){0}, &row);
    run(engine, "lost", 60, (struct plan){0}, &crashed);
    run(engine, "leaving", 60, (struct plan){0}, &row);
    run(engine, "dying", 60, (struct plan){.die = AT_ASK}, &row);
    CHECK(priv_reserve(engine->client, instance, chain, &uid, &err) == 0);
    CHECK(store_vm_deleting(engine->fixture.store, "owner", "leaving", &row, &err) == 0);
    engine_stop(engine);
    root_crash(&engine->root, crashed.instance);
    struct vmm_recovered recovered = engine_restart(engine);
    CHECK(recovered.adopted == 3 && recovered.lost == 1 && recovered.undone == 2);
    engine_ended(engine, "lost", STORE_LOST, "vmm_crash");
    engine_ended(engine, "leaving", STORE_EXITED, "deleted");
    CHECK(engine_exec(engine, "kept", &err) == 0);
    CHECK(engine_exec(engine, "second", &err) == 0);
    root_crash(&engine->root, kept.instance);
    CHECK(vmm_delete(engine->vmm, "owner", "second", &err) == 0);
    engine_empty(engine);
    engine_ended(engine, "kept", STORE_EXITED, "vmm_crash");
    engine_ended(engine, "dying", STORE_EXITED, "vmm_crash");
}

int main(void)
{
    static engine_test *const tests[] = {
        every_fault_is_undone,
        a_delete_at_every_step_wins,
        a_step_that_fails_beside_a_delete_tells_its_own_error,
        a_delete_seen_by_commit_only_is_a_delete,
        ends_are_certified,
        a_delete_ends_a_running_command,
        a_failed_delete_is_tried_again,
        one_that_cannot_end_keeps_nobody_waiting,
        a_reason_outlives_a_locked_store,
        a_restart_keeps_what_agrees,
    };
    return engine_run(tests, COUNT_OF(tests));
}
