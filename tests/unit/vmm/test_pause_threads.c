/* Pausing and going on: what a VMM's guest does, what its machine and its row say are one, whatever
 * goes wrong and whoever else is at it (R02, R04). A plain program, so that ThreadSanitizer can run
 * it. */
#include "tests/unit/vmm/engine.h"

#include <poll.h>
#include <sqlite3.h>

static void run(struct engine *engine, const char *id, struct plan plan, struct store_vm *ret)
{
    struct error err = {0};
    root_plan(&engine->root, plan);
    CHECK(engine_spawn(engine, id, 60, ret, &err) == 0);
}

static void remove_vm(struct engine *engine, const char *id)
{
    struct error err = {0};
    CHECK(vmm_delete(engine->vmm, "owner", id, &err) == 0);
}

static enum store_state state(struct engine *engine, const char *id)
{
    struct store_vm row;
    struct error err = {0};
    CHECK(store_vm_get(engine->fixture.store, "owner", id, &row, &err) == 0);
    return row.state;
}

static void is_paused(struct engine *engine, const struct store_vm *vm, bool paused)
{
    CHECK(root_paused(&engine->root, vm->instance) == paused);
    CHECK(state(engine, vm->id) == (paused ? STORE_PAUSED : STORE_RUNNING));
}

static void pause_vm(struct engine *engine, const char *id)
{
    struct store_vm row;
    struct error err = {0};
    CHECK(vmm_pause(engine->vmm, "owner", id, &row, &err) == 0 && row.state == STORE_PAUSED);
}

static void resume_vm(struct engine *engine, const char *id)
{
    struct store_vm row;
    struct error err = {0};
    CHECK(vmm_resume(engine->vmm, "owner", id, &row, &err) == 0 && row.state == STORE_RUNNING);
}

static void exec_works(struct engine *engine, const char *id, bool works)
{
    struct error err = {0};
    int result = engine_exec(engine, id, &err);
    CHECK(works ? result == 0 : err.code == ERR_VM_PAUSED);
}

static void await_asked(struct engine *engine, const struct store_vm *vm, unsigned times)
{
    unsigned before = root_asked(&engine->root, vm->instance);
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    while (root_asked(&engine->root, vm->instance) < before + times) {
        CHECK(clock_mono_ms() < deadline);
        poll(NULL, 0, LOOK_MS);
    }
}

static void each_twice_is_once(struct engine *engine)
{
    struct store_vm vm;
    run(engine, "vm", (struct plan){0}, &vm);
    resume_vm(engine, "vm");
    for (int i = 0; i < 2; i++) {
        pause_vm(engine, "vm");
        is_paused(engine, &vm, true);
        exec_works(engine, "vm", false);
    }
    for (int i = 0; i < 2; i++) {
        resume_vm(engine, "vm");
        is_paused(engine, &vm, false);
        exec_works(engine, "vm", true);
    }
    pause_vm(engine, "vm");
    remove_vm(engine, "vm");
    engine_ended(engine, "vm", STORE_EXITED, "deleted");
}

static void what_the_vmm_refuses_leaves_it_as_it_was(struct engine *engine)
{
    struct store_vm runs, stays, row;
    struct error refused = {0}, kept = {0};
    run(engine, "runs", (struct plan){.fail = AT_PAUSE}, &runs);
    run(engine, "stays", (struct plan){.fail = AT_RESUME}, &stays);
    CHECK(vmm_pause(engine->vmm, "owner", "runs", &row, &refused) < 0);
    CHECK(refused.code == ERR_HYPERVISOR && strstr(refused.msg, "PATCH /vm: scripted") != NULL);
    is_paused(engine, &runs, false);
    exec_works(engine, "runs", true);
    pause_vm(engine, "stays");
    CHECK(vmm_resume(engine->vmm, "owner", "stays", &row, &kept) < 0);
    CHECK(kept.code == ERR_HYPERVISOR);
    is_paused(engine, &stays, true);
    exec_works(engine, "stays", false);
    remove_vm(engine, "runs");
    remove_vm(engine, "stays");
}

/* It does what it was told, and does not say so; long enough for the watchdog to take it for hung. */
static void what_the_vmm_does_not_answer_is_undone(struct engine *engine)
{
    struct store_vm pauses, goes, row;
    struct error late = {0}, later = {0};
    run(engine, "pauses", (struct plan){.mute = AT_PAUSE}, &pauses);
    run(engine, "goes", (struct plan){.mute = AT_RESUME}, &goes);
    engine->vmm->pause_timeout_ms = 12 * ANSWER_MS;
    CHECK(vmm_pause(engine->vmm, "owner", "pauses", &row, &late) < 0);
    CHECK(late.code == ERR_HYPERVISOR_TIMEOUT && engine->hung_vmms == 0);
    is_paused(engine, &pauses, false);
    exec_works(engine, "pauses", true);
    engine->vmm->pause_timeout_ms = ANSWER_MS;
    pause_vm(engine, "goes");
    CHECK(vmm_resume(engine->vmm, "owner", "goes", &row, &later) < 0);
    CHECK(later.code == ERR_HYPERVISOR_TIMEOUT);
    is_paused(engine, &goes, true);
    resume_vm(engine, "pauses");
    remove_vm(engine, "pauses");
    remove_vm(engine, "goes");
}

/* Nothing is known of it but that it does not answer. */
static void a_vmm_that_hangs_of_it_is_killed(struct engine *engine)
{
    struct store_vm row;
    struct error err = {0}, again = {0};
    run(engine, "hangs", (struct plan){.mute = AT_PAUSE, .fail = AT_ALIVE}, &row);
    engine->vmm->pause_timeout_ms = ANSWER_MS;
    CHECK(vmm_pause(engine->vmm, "owner", "hangs", &row, &err) < 0);
    CHECK(err.code == ERR_HYPERVISOR_TIMEOUT);
    CHECK(vmm_pause(engine->vmm, "owner", "hangs", &row, &again) < 0);
    CHECK(again.code == ERR_HYPERVISOR_TIMEOUT || again.code == ERR_VM_GONE);
    engine_empty(engine);
    engine_ended(engine, "hangs", STORE_EXITED, "unresponsive");
    CHECK(engine->hung_vmms == 1);
}

static void what_the_row_cannot_hold_is_undone(struct engine *engine)
{
    struct store_vm vm, row;
    struct error err = {0};
    sqlite3 *other = NULL;
    char path[64];
    run(engine, "vm", (struct plan){0}, &vm);
    snprintf(path, sizeof(path), "%s/motte.db", engine->fixture.dir);
    CHECK(sqlite3_open(path, &other) == SQLITE_OK);
    CHECK(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK);
    CHECK(vmm_pause(engine->vmm, "owner", "vm", &row, &err) < 0 && err.code == ERR_STORE_BUSY);
    is_paused(engine, &vm, false);
    CHECK(sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL) == SQLITE_OK);
    sqlite3_close(other);
    exec_works(engine, "vm", true);
    pause_vm(engine, "vm");
    remove_vm(engine, "vm");
}

/* As when the service died between what the VMM did and what the row says of it. */
static void die_between(struct engine *engine, const struct store_vm *vm, bool row_paused)
{
    struct store_vm row;
    struct error err = {0};
    CHECK(store_vm_paused(engine->fixture.store, vm->instance, row_paused, clock_boot_ms(), &row,
                          &err) == 0);
    engine_stop(engine);
    CHECK(engine_restart(engine).adopted == 1);
}

static void await_state(struct engine *engine, const char *id, enum store_state wanted)
{
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    while (state(engine, id) != wanted) {
        CHECK(clock_mono_ms() < deadline);
        poll(NULL, 0, LOOK_MS);
    }
}

static void after_a_restart_the_vmm_is_believed(struct engine *engine)
{
    struct store_vm vm;
    run(engine, "vm", (struct plan){0}, &vm);
    pause_vm(engine, "vm");
    engine_stop(engine);
    CHECK(engine_restart(engine).adopted == 1);
    is_paused(engine, &vm, true);
    exec_works(engine, "vm", false);
    die_between(engine, &vm, false);
    exec_works(engine, "vm", false); /* at once, whoever asked it first */
    is_paused(engine, &vm, true);
    die_between(engine, &vm, false);
    await_state(engine, "vm", STORE_PAUSED); /* without a request */
    resume_vm(engine, "vm");
    die_between(engine, &vm, true);
    exec_works(engine, "vm", true);
    is_paused(engine, &vm, false);
    die_between(engine, &vm, true);
    await_state(engine, "vm", STORE_RUNNING);
    remove_vm(engine, "vm");
}

static void a_paused_guest_is_not_taken_for_hung(struct engine *engine)
{
    struct store_vm vm, row;
    struct error err = {0};
    engine->on_unresponsive = STORE_DELETE;
    run(engine, "vm", (struct plan){0}, &vm);
    pause_vm(engine, "vm");
    await_asked(engine, &vm, 5);
    is_paused(engine, &vm, true);
    CHECK(store_vm_get(engine->fixture.store, "owner", "vm", &row, &err) == 0);
    CHECK(row.agent == STORE_AGENT_RESPONSIVE);
    CHECK(engine->hung_agents == 0 && engine->hung_vmms == 0);
    resume_vm(engine, "vm");
    exec_works(engine, "vm", true);
    remove_vm(engine, "vm");
}

/* Its idle time begins when it goes on; its life ends when it must. */
static void a_paused_vm_is_not_idle_but_mortal(struct engine *engine)
{
    struct store_vm vm, row;
    struct error err = {0};
    engine->idle_s = 1;
    run(engine, "kept", (struct plan){0}, &vm);
    pause_vm(engine, "kept");
    run(engine, "idle", (struct plan){0}, &row);
    CHECK(engine_spawn(engine, "mortal", 2, &row, &err) == 0);
    pause_vm(engine, "mortal");
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    for (int ended = 0; ended < 2; poll(NULL, 0, LOOK_MS)) {
        struct error one = {0}, other = {0};
        ended = (store_vm_get(engine->fixture.store, "owner", "idle", &row, &one) < 0) +
                (store_vm_get(engine->fixture.store, "owner", "mortal", &row, &other) < 0);
        CHECK(clock_mono_ms() < deadline);
    }
    engine_ended(engine, "idle", STORE_EXITED, "idle");
    engine_ended(engine, "mortal", STORE_EXITED, "ttl");
    CHECK(vmm_keepalive(engine->vmm, "owner", "kept", 90, &row, &err) == 0);
    CHECK(row.state == STORE_PAUSED && row.expires_boot_ms > vm.expires_boot_ms);
    is_paused(engine, &vm, true);
    int64_t begin = clock_boot_ms();
    CHECK(vmm_resume(engine->vmm, "owner", "kept", &row, &err) == 0);
    CHECK(row.idle_since_boot_ms >= begin);
    engine_empty(engine);
    CHECK(clock_boot_ms() - begin >= 1000);
    engine_ended(engine, "kept", STORE_EXITED, "idle");
}

/* ---- others at the same time ---- */

struct call {
    struct engine *engine;
    pthread_t thread;
    atomic_bool over;
    bool done;
    struct error err;
};

static void *delete_main(void *context)
{
    struct call *call = context;
    call->done = vmm_delete(call->engine->vmm, "owner", "vm", &call->err) == 0;
    return NULL;
}

static void start_delete(void *context, const char *instance)
{
    struct call *call = context;
    (void)instance;
    CHECK(pthread_create(&call->thread, NULL, delete_main, call) == 0);
}

static void a_delete_does_not_wait_for_a_pause(struct engine *engine)
{
    struct call call = {.engine = engine};
    struct store_vm row;
    struct error err = {0};
    int64_t begin = clock_mono_ms();
    run(engine, "vm",
        (struct plan){.mute = AT_PAUSE, .call = AT_PAUSE, .action = start_delete, .context = &call},
        &row);
    CHECK(vmm_pause(engine->vmm, "owner", "vm", &row, &err) < 0 && err.code == ERR_VM_GONE);
    CHECK(pthread_join(call.thread, NULL) == 0 && call.done);
    CHECK(clock_mono_ms() - begin < VMM_PAUSE_TIMEOUT_MS / 2);
    engine_ended(engine, "vm", STORE_EXITED, "deleted");
}

static void *pause_main(void *context)
{
    struct call *call = context;
    struct store_vm row;
    call->done = vmm_pause(call->engine->vmm, "owner", "vm", &row, &call->err) == 0;
    return NULL;
}

static void start_pause(void *context, const char *instance)
{
    struct call *call = context;
    (void)instance;
    CHECK(pthread_create(&call->thread, NULL, pause_main, call) == 0);
}

/* The command has begun, and does not end. */
static void a_paused_command_ends_at_its_time(struct engine *engine)
{
    enum { TIMEOUT_MS = 100 };
    struct call call = {.engine = engine};
    struct store_vm vm;
    struct error err = {0};
    run(engine, "vm",
        (struct plan){.fail = AT_EXEC, .call = AT_EXEC, .action = start_pause, .context = &call},
        &vm);
    cleanup_json cJSON *argv = cJSON_CreateArray();
    cJSON_AddItemToArray(argv, cJSON_CreateString("true"));
    const struct vsock_exec_request request = {
        .argv = argv, .timeout_ms = TIMEOUT_MS, .output_max = 100};
    struct vsock_exec_result result cleanup(vsock_exec_result_release) = {0};
    CHECK(vmm_exec(engine->vmm, "owner", "vm", &request, &result, &err) < 0);
    CHECK(err.code == ERR_EXEC_TIMEOUT && strstr(err.msg, "paused") != NULL);
    CHECK(strcmp(result.out.data, "out") == 0);
    CHECK(result.duration_ms >= TIMEOUT_MS && result.duration_ms < VMM_PAUSE_TIMEOUT_MS);
    CHECK(pthread_join(call.thread, NULL) == 0 && call.done);
    is_paused(engine, &vm, true);
    CHECK(engine->hung_agents == 0);
    remove_vm(engine, "vm");
}

static void *resume_main(void *context)
{
    struct call *call = context;
    struct store_vm row;
    call->done = vmm_resume(call->engine->vmm, "owner", "vm", &row, &call->err) == 0;
    call->over = true;
    return NULL;
}

/* The first is held between what the VMM did and the row: nobody changes either meanwhile. */
static void one_at_a_time(struct engine *engine)
{
    struct call pausing = {.engine = engine}, resuming = {.engine = engine};
    struct store_vm vm;
    run(engine, "vm", (struct plan){0}, &vm);
    struct vmm_machine *machine = vmm_machine_find(engine->vmm, vm.instance);
    CHECK(machine != NULL);
    pthread_mutex_lock(&machine->use_lock);
    CHECK(pthread_create(&pausing.thread, NULL, pause_main, &pausing) == 0);
    while (!root_paused(&engine->root, vm.instance))
        poll(NULL, 0, LOOK_MS);
    CHECK(pthread_create(&resuming.thread, NULL, resume_main, &resuming) == 0);
    while (!resuming.over) {
        CHECK(root_paused(&engine->root, vm.instance));
        poll(NULL, 0, LOOK_MS);
    }
    pthread_mutex_unlock(&machine->use_lock);
    CHECK(pthread_join(pausing.thread, NULL) == 0 && pausing.done);
    CHECK(pthread_join(resuming.thread, NULL) == 0 && resuming.err.code == ERR_BUSY);
    vmm_machine_unref(engine->vmm, machine);
    is_paused(engine, &vm, true);
    remove_vm(engine, "vm");
}

static void one_call(struct engine_worker *worker, const char *id)
{
    struct vmm *vmm = worker->engine->vmm;
    struct store_vm row;
    struct error err = {0};
    switch (random_below(&worker->random, 8)) {
    case 0:
        (void)vmm_delete(vmm, "owner", id, &err);
        break;
    case 1:
    case 2:
        (void)engine_spawn(worker->engine, id, 60, &row, &err);
        break;
    case 3:
        (void)engine_exec(worker->engine, id, &err);
        break;
    case 4:
    case 5:
        (void)vmm_pause(vmm, "owner", id, &row, &err);
        break;
    default:
        (void)vmm_resume(vmm, "owner", id, &row, &err);
        break;
    }
    bool odd = err.code != ERR_NONE && err.code != ERR_VM_UNKNOWN && err.code != ERR_VM_GONE &&
               err.code != ERR_VM_NOT_RUNNING && err.code != ERR_VM_PAUSED &&
               err.code != ERR_ID_TAKEN && err.code != ERR_CANCELLED;
    if (odd)
        fprintf(stderr, "unexpected %s: %s\n", error_code_name(err.code), err.msg);
    CHECK(!odd);
}

/* Whatever met, in the end each is as its row says. */
static void all_at_once_loses_no_state(struct engine *engine)
{
    root_plan(&engine->root, (struct plan){0});
    engine_all_at_once(engine, one_call);
    for (const char *id = "a"; id != NULL; id = id[0] == 'a' ? "b" : NULL) {
        struct store_vm vm;
        struct error err = {0};
        if (store_vm_get(engine->fixture.store, "owner", id, &vm, &err) < 0)
            continue;
        is_paused(engine, &vm, vm.state == STORE_PAUSED);
        exec_works(engine, id, vm.state == STORE_RUNNING);
        remove_vm(engine, id);
    }
    engine_empty(engine);
}

int main(void)
{
    static engine_test *const tests[] = {
        each_twice_is_once,
        what_the_vmm_refuses_leaves_it_as_it_was,
        what_the_vmm_does_not_answer_is_undone,
        a_vmm_that_hangs_of_it_is_killed,
        what_the_row_cannot_hold_is_undone,
        after_a_restart_the_vmm_is_believed,
        a_paused_guest_is_not_taken_for_hung,
        a_paused_vm_is_not_idle_but_mortal,
        a_delete_does_not_wait_for_a_pause,
        a_paused_command_ends_at_its_time,
        one_at_a_time,
        all_at_once_loses_no_state,
    };
    return engine_run(tests, COUNT_OF(tests));
}
