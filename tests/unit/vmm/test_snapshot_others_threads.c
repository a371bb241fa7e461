/*
 * Snapshots (R04, R20, R21): whoever else is at the VM, it and the snapshot are whole afterwards. A
 * plain program, so that ThreadSanitizer can run it.
 */
#include "tests/unit/vmm/snapshots.h"

#include <poll.h>

/* ---- others at the same time ---- */

struct call {
    struct engine *engine;
    pthread_t thread;
    int result;
    struct error err;
    unsigned made;
    atomic_bool begun, over;
};

static void *delete_main(void *context)
{
    struct call *call = context;
    call->result = vmm_delete(call->engine->vmm, "owner", "vm", &call->err);
    return NULL;
}

static void *exec_main(void *context)
{
    struct call *call = context;
    call->begun = true;
    call->result = engine_exec(call->engine, "vm", &call->err);
    call->over = true;
    return NULL;
}

static void *pause_main(void *context)
{
    struct call *call = context;
    struct store_vm row;
    call->result = vmm_pause(call->engine->vmm, "owner", "vm", &row, &call->err);
    return NULL;
}

static void start(struct call *call, void *(*body)(void *))
{
    if (call->made++ == 0)
        CHECK(pthread_create(&call->thread, NULL, body, call) == 0);
}

static void start_delete(void *context, const char *instance)
{
    (void)instance;
    start(context, delete_main);
}

/* The VM stands still until the command has had time to begin. */
static void start_exec(void *context, const char *instance)
{
    enum { LOOKS = 10 };
    struct call *call = context;
    (void)instance;
    start(call, exec_main);
    while (!call->begun)
        poll(NULL, 0, LOOK_MS);
    for (int i = 0; i < LOOKS; i++, poll(NULL, 0, LOOK_MS))
        CHECK(!call->over);
}

static void start_pause(void *context, const char *instance)
{
    (void)instance;
    start(context, pause_main);
}

static void a_delete_waits_for_no_vmm(struct engine *engine)
{
    static const enum moment moments[] = {AT_PAUSE, AT_SAVE, AT_RESUME};
    for (size_t i = 0; i < COUNT_OF(moments); i++) {
        struct call call = {.engine = engine};
        int64_t begin = clock_mono_ms();
        struct store_vm vm = vm_run(
            engine, "vm",
            (struct plan){
                .mute = moments[i], .call = moments[i], .action = start_delete, .context = &call});
        snapshot_fails(engine, "vm", ERR_VM_GONE, "ended while a snapshot");
        CHECK(pthread_join(call.thread, NULL) == 0 && call.result == 0);
        CHECK(clock_mono_ms() - begin < VMM_PAUSE_TIMEOUT_MS / 2);
        CHECK(!engine_intended(engine, vm.instance) && root_snapshots(&engine->root) == 0);
        engine_ended(engine, "vm", STORE_EXITED, "deleted");
    }
}

/* Between the root half's steps: then there is a whole one, or none. */
static void a_delete_in_the_middle_leaves_all_or_nothing(struct engine *engine)
{
    static const enum moment moments[] = {AT_STAGE, AT_CAPTURE, AT_PUBLISH};
    for (size_t i = 0; i < COUNT_OF(moments); i++) {
        struct call call = {.engine = engine};
        struct store_snapshot snapshot;
        struct error err = {0};
        struct store_vm vm =
            vm_run(engine, "vm",
                   (struct plan){.call = moments[i], .action = start_delete, .context = &call});
        int result = engine_snapshot(engine, "vm", false, &snapshot, &err);
        CHECK(pthread_join(call.thread, NULL) == 0 && call.result == 0);
        CHECK(result == 0 || err.code == ERR_VM_GONE);
        CHECK(!engine_intended(engine, vm.instance));
        CHECK(root_snapshots(&engine->root) == (result == 0) &&
              snapshot_rows(engine) == (result == 0));
        err = (struct error){0};
        CHECK(result < 0 || vmm_snapshot_delete(engine->vmm, "owner", snapshot.id, &err) == 0);
    }
}

static void a_command_that_comes_meanwhile_waits(struct engine *engine)
{
    struct call call = {.engine = engine};
    struct store_vm vm = vm_run(
        engine, "vm", (struct plan){.call = AT_SAVE, .action = start_exec, .context = &call});
    snapshot_take(engine, "vm");
    CHECK(pthread_join(call.thread, NULL) == 0 && call.result == 0);
    vm_is_whole(engine, &vm, false, 1);
    vm_remove(engine, "vm");
}

struct keepalive {
    struct engine *engine;
    unsigned tried;
    int result;
    struct error err;
};

/* On the thread that serves the VMM's API: it waits for nothing that waits for that. */
static void keep_alive(void *context, const char *instance)
{
    struct keepalive *keepalive = context;
    struct store_vm row;
    (void)instance;
    if (keepalive->tried++ == 0)
        keepalive->result =
            vmm_keepalive(keepalive->engine->vmm, "owner", "vm", 9000, &row, &keepalive->err);
}

static void a_keepalive_does_not_wait(struct engine *engine)
{
    struct keepalive keepalive = {.engine = engine, .result = -1};
    vm_run(engine, "vm",
           (struct plan){.call = AT_SAVE, .action = keep_alive, .context = &keepalive});
    snapshot_take(engine, "vm");
    CHECK(keepalive.tried == 1 && keepalive.result == 0);
    vm_remove(engine, "vm");
}

static void a_pause_that_comes_meanwhile_is_made_after(struct engine *engine)
{
    struct call call = {.engine = engine};
    struct store_vm vm = vm_run(
        engine, "vm", (struct plan){.call = AT_SAVE, .action = start_pause, .context = &call});
    snapshot_take(engine, "vm");
    CHECK(pthread_join(call.thread, NULL) == 0 && call.result == 0);
    vm_is_whole(engine, &vm, true, 1);
    vm_remove(engine, "vm");
}

struct second {
    struct engine *engine;
    unsigned tried;
    struct error err;
};

static void try_second(void *context, const char *instance)
{
    struct second *second = context;
    struct store_snapshot snapshot;
    (void)instance;
    if (second->tried++ == 0)
        (void)engine_snapshot(second->engine, "vm", false, &snapshot, &second->err);
}

static void one_at_a_time(struct engine *engine)
{
    struct second second = {.engine = engine};
    struct store_vm vm = vm_run(
        engine, "vm", (struct plan){.call = AT_SAVE, .action = try_second, .context = &second});
    snapshot_take(engine, "vm");
    CHECK(second.err.code == ERR_SNAPSHOT_BUSY);
    vm_is_whole(engine, &vm, false, 1);
    vm_remove(engine, "vm");
}

/* The command has begun, and does not end. */
static void none_is_made_while_a_command_runs(struct engine *engine)
{
    enum { TIMEOUT_MS = 300 };
    struct second second = {.engine = engine};
    struct error err = {0};
    struct store_vm vm = vm_run(engine, "vm",
                                (struct plan){.fail = AT_EXEC,
                                              .spare = 2,
                                              .call = AT_EXEC,
                                              .action = try_second,
                                              .context = &second});
    cleanup_json cJSON *argv = cJSON_CreateArray();
    cJSON_AddItemToArray(argv, cJSON_CreateString("true"));
    const struct vsock_exec_request request = {
        .argv = argv, .timeout_ms = TIMEOUT_MS, .output_max = 100};
    struct vsock_exec_result result cleanup(vsock_exec_result_release) = {0};
    CHECK(vmm_exec(engine->vmm, "owner", "vm", &request, &result, &err) < 0);
    CHECK(strcmp(result.out.data, "out") == 0);
    CHECK(second.err.code == ERR_BUSY && strstr(second.err.msg, "1 commands run") != NULL);
    vm_is_whole(engine, &vm, false, 0);
    snapshot_take(engine, "vm");
    vm_remove(engine, "vm");
}

/* ---- all at once ---- */

static void one_call(struct engine_worker *worker, const char *id)
{
    static const enum error_code usual[] = {
        ERR_NONE,     ERR_VM_UNKNOWN, ERR_VM_GONE, ERR_VM_NOT_RUNNING, ERR_VM_PAUSED,
        ERR_ID_TAKEN, ERR_CANCELLED,  ERR_BUSY,    ERR_SNAPSHOT_BUSY,  ERR_SNAPSHOT_UNKNOWN};
    struct vmm *vmm = worker->engine->vmm;
    struct store_vm row;
    struct store_snapshot snapshot;
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
        (void)vmm_pause(vmm, "owner", id, &row, &err);
        break;
    case 5:
        (void)vmm_resume(vmm, "owner", id, &row, &err);
        break;
    default:
        if (engine_snapshot(worker->engine, id, false, &snapshot, &err) == 0)
            (void)vmm_snapshot_delete(vmm, "owner", snapshot.id, &err);
        break;
    }
    for (size_t i = 0; i < COUNT_OF(usual); i++)
        if (err.code == usual[i])
            return;
    fprintf(stderr, "unexpected %s: %s\n", error_code_name(err.code), err.msg);
    abort();
}

static void all_at_once_leaves_nothing_half(struct engine *engine)
{
    engine_all_at_once(engine, one_call);
    for (const char *id = "a"; id != NULL; id = id[0] == 'a' ? "b" : NULL) {
        struct store_vm vm;
        struct error err = {0};
        if (store_vm_get(engine->fixture.store, "owner", id, &vm, &err) < 0)
            continue;
        vm_is_whole(engine, &vm, vm.state == STORE_PAUSED, 0);
        vm_remove(engine, id);
    }
    engine_empty(engine);
}

int main(void)
{
    static engine_test *const tests[] = {
        a_delete_waits_for_no_vmm,
        a_delete_in_the_middle_leaves_all_or_nothing,
        a_command_that_comes_meanwhile_waits,
        a_keepalive_does_not_wait,
        a_pause_that_comes_meanwhile_is_made_after,
        one_at_a_time,
        none_is_made_while_a_command_runs,
        all_at_once_leaves_nothing_half,
    };
    return engine_run(tests, COUNT_OF(tests));
}
