/*
 * Snapshots (R04, R20, R21): whatever fails while one is made, its VM is what it was, and nothing of
 * the attempt is left: no intent, nothing staged, nothing published that has no row. A plain program,
 * so that ThreadSanitizer can run it.
 */
#include "tests/unit/vmm/snapshots.h"

#include <poll.h>

static void it_is_as_it_was_before(struct engine *engine)
{
    struct store_vm vm = vm_run(engine, "vm", (struct plan){0}), row;
    struct error err = {0};
    struct store_snapshot first = snapshot_take(engine, "vm");
    vm_is_whole(engine, &vm, false, 1);
    CHECK(strcmp(first.vm, "vm") == 0 && strcmp(first.instance, vm.instance) == 0);
    CHECK(strcmp(first.owner, "owner") == 0 && first.bytes == 4096 && first.generation == 0);
    CHECK(first.memory_mib == vm.memory_mib && strcmp(first.image, vm.image) == 0);
    CHECK(vmm_pause(engine->vmm, "owner", "vm", &row, &err) == 0);
    struct store_snapshot second = snapshot_take(engine, "vm");
    CHECK(strcmp(first.id, second.id) != 0);
    vm_is_whole(engine, &vm, true, 2);
    CHECK(vmm_resume(engine->vmm, "owner", "vm", &row, &err) == 0);
    vm_is_whole(engine, &vm, false, 2); /* the first command finds its connection */
    CHECK(vmm_pause(engine->vmm, "owner", "vm", &row, &err) == 0);
    snapshot_take(engine, "vm");
    engine_stop(engine);
    CHECK(engine_restart(engine).adopted == 1);
    CHECK(vmm_resume(engine->vmm, "owner", "vm", &row, &err) == 0);
    vm_is_whole(engine, &vm, false, 3); /* likewise */
    snapshot_take(engine, "vm");
    CHECK(vmm_snapshot_delete(engine->vmm, "owner", first.id, &err) == 0);
    vm_is_whole(engine, &vm, false, 3);
    vm_remove(engine, "vm");
}

struct look {
    struct engine *engine;
    unsigned times;
    bool intended;
};

static void look_for_the_intent(void *context, const char *instance)
{
    struct look *look = context;
    if (look->times++ == 0)
        look->intended = engine_intended(look->engine, instance);
}

static void the_intent_comes_before_anything_stands(struct engine *engine)
{
    struct look look = {.engine = engine};
    vm_run(engine, "vm",
           (struct plan){.call = AT_PAUSE, .action = look_for_the_intent, .context = &look});
    snapshot_take(engine, "vm");
    CHECK(look.times == 1 && look.intended);
    vm_remove(engine, "vm");
}

static void look_whether_it_stands(void *context, const char *instance)
{
    struct look *look = context;
    look->times += root_paused(&look->engine->root, instance);
}

/* Its memory is read where it is. Others run on by then. */
static void a_template_stands_until_it_is_published(struct engine *engine)
{
    struct look look = {.engine = engine};
    const struct plan plan = {
        .call = AT_PUBLISH, .action = look_whether_it_stands, .context = &look};
    vm_run(engine, "vm", plan);
    snapshot_take(engine, "vm");
    CHECK(look.times == 0);
    vm_remove(engine, "vm");
    struct store_vm vm = vm_run(engine, "vm", plan);
    struct vmm_machine *machine = vmm_machine_find(engine->vmm, vm.instance);
    CHECK(machine != NULL);
    machine->apart = true;
    snapshot_take(engine, "vm");
    CHECK(look.times == 1);
    vm_is_whole(engine, &vm, false, 2);
    machine->generation = 1; /* one that was restored writes all of it */
    snapshot_take(engine, "vm");
    CHECK(look.times == 1);
    vmm_machine_unref(engine->vmm, machine);
    vm_remove(engine, "vm");
}

/* ---- what fails ---- */

static const struct {
    enum moment moment;
    enum error_code code;
    const char *step;
} steps[] = {{AT_PAUSE, ERR_HYPERVISOR, "freeze: "}, {AT_STAGE, ERR_DISK_FULL, "stage: "},
             {AT_SAVE, ERR_HYPERVISOR, "save: "},    {AT_CAPTURE, ERR_DISK_FULL, "capture: "},
             {AT_RESUME, ERR_HYPERVISOR, "thaw: "},  {AT_PUBLISH, ERR_DISK_FULL, "publish: "}};

static void a_step_that_fails_leaves_it_running(struct engine *engine)
{
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        struct store_vm vm =
            vm_run(engine, "vm", (struct plan){.fail = steps[i].moment, .spare = 2});
        snapshot_fails(engine, "vm", steps[i].code, steps[i].step);
        vm_is_whole(engine, &vm, false, 0);
        if (steps[i].moment != AT_RESUME) { /* whose second is for the undo */
            struct error err = {0};
            struct store_snapshot snapshot = snapshot_take(engine, "vm");
            vm_is_whole(engine, &vm, false, 1);
            CHECK(vmm_snapshot_delete(engine->vmm, "owner", snapshot.id, &err) == 0);
        }
        vm_remove(engine, "vm");
    }
}

static void and_one_that_was_paused_paused(struct engine *engine)
{
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        struct store_vm row, vm = vm_run(engine, "vm", (struct plan){.fail = steps[i].moment});
        struct error err = {0};
        if (steps[i].moment != AT_PAUSE && steps[i].moment != AT_RESUME) {
            CHECK(vmm_pause(engine->vmm, "owner", "vm", &row, &err) == 0);
            snapshot_fails(engine, "vm", steps[i].code, steps[i].step);
            vm_is_whole(engine, &vm, true, 0);
        }
        vm_remove(engine, "vm");
    }
}

/* It does what it was told, and does not say so. */
static void a_vmm_that_does_not_answer_is_let_go_on(struct engine *engine)
{
    static const enum moment moments[] = {AT_PAUSE, AT_SAVE, AT_RESUME};
    for (size_t i = 0; i < COUNT_OF(moments); i++) {
        struct store_vm vm = vm_run(engine, "vm", (struct plan){.mute = moments[i]});
        engine->vmm->pause_timeout_ms = engine->vmm->snapshot_timeout_ms = ANSWER_MS;
        snapshot_fails(engine, "vm", ERR_HYPERVISOR_TIMEOUT, "did not answer");
        vm_is_whole(engine, &vm, false, 0);
        vm_remove(engine, "vm");
    }
}

/* Never frozen, and called running. */
static void one_that_cannot_go_on_is_called_paused(struct engine *engine)
{
    struct store_vm vm = vm_run(engine, "vm", (struct plan){.fail = AT_RESUME});
    struct error err = {0};
    snapshot_fails(engine, "vm", ERR_HYPERVISOR, "thaw: ");
    vm_is_whole(engine, &vm, true, 0);
    CHECK(engine_exec(engine, "vm", &err) < 0 && err.code == ERR_VM_PAUSED);
    vm_remove(engine, "vm");
}

static void a_vmm_that_dies_of_it_leaves_nothing(struct engine *engine)
{
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        struct store_vm vm = vm_run(engine, "vm", (struct plan){.die = steps[i].moment}), row;
        struct error err = {0};
        snapshot_fails(engine, "vm", ERR_VM_GONE, "ended while a snapshot");
        engine_empty(engine);
        CHECK(store_vm_get(engine->fixture.store, "owner", "vm", &row, &err) < 0);
        CHECK(!engine_intended(engine, vm.instance));
        CHECK(root_snapshots(&engine->root) == 0 && snapshot_rows(engine) == 0);
    }
}

static void lock_inventory(void *context, const char *instance)
{
    (void)instance;
    CHECK(sqlite3_exec(context, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK);
}

/* The row cannot be written, and then the intent not be taken back: until the next. */
static void what_the_inventory_cannot_hold_is_forgotten(struct engine *engine)
{
    sqlite3 *other = engine_connect(engine);
    struct store_vm vm =
        vm_run(engine, "vm",
               (struct plan){.call = AT_PUBLISH, .action = lock_inventory, .context = other});
    snapshot_fails(engine, "vm", ERR_STORE_BUSY, "commit: ");
    CHECK(root_snapshots(&engine->root) == 0 && !root_paused(&engine->root, vm.instance));
    CHECK(engine_intended(engine, vm.instance));
    CHECK(sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL) == SQLITE_OK);
    vm_exec_works(engine, "vm"); /* takes it back */
    vm_is_whole(engine, &vm, false, 0);
    snapshot_fails(engine, "vm", ERR_STORE_BUSY, "commit: ");
    CHECK(sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL) == SQLITE_OK);
    CHECK(engine_intended(engine, vm.instance));
    for (int64_t end = clock_mono_ms() + PATIENCE_MS; engine_intended(engine, vm.instance);) {
        CHECK(clock_mono_ms() < end); /* so does the watchdog */
        poll(NULL, 0, LOOK_MS);
    }
    vm_is_whole(engine, &vm, false, 0);
    sqlite3_close(other);
    vm_remove(engine, "vm");
}

static void what_is_not_forgotten_now_is_by_the_reaper(struct engine *engine)
{
    struct error err = {0};
    vm_run(engine, "vm", (struct plan){0});
    struct store_snapshot snapshot = snapshot_take(engine, "vm");
    engine->root.no_forget = true;
    CHECK(vmm_snapshot_delete(engine->vmm, "owner", snapshot.id, &err) < 0);
    vmm_forget_again(engine->vmm);
    CHECK(root_snapshots(&engine->root) == 1);
    engine->root.no_forget = false;
    for (int64_t end = clock_mono_ms() + 3 * VMM_SWEEP_MS; root_snapshots(&engine->root) > 0;) {
        CHECK(clock_mono_ms() < end);
        poll(NULL, 0, LOOK_MS);
    }
    vm_remove(engine, "vm");
}

static void what_is_not_forgotten_now_is_by_the_next_start(struct engine *engine)
{
    struct error err = {0};
    vm_run(engine, "vm", (struct plan){0});
    struct store_snapshot snapshot = snapshot_take(engine, "vm"),
                          kept = snapshot_take(engine, "vm"), row;
    engine->root.no_forget = true;
    CHECK(vmm_snapshot_delete(engine->vmm, "owner", snapshot.id, &err) < 0);
    CHECK(root_snapshots(&engine->root) == 2 && snapshot_rows(engine) == 1);
    err = (struct error){0};
    CHECK(vmm_snapshot_delete(engine->vmm, "owner", snapshot.id, &err) < 0);
    CHECK(err.code == ERR_SNAPSHOT_UNKNOWN);
    engine_stop(engine);
    struct vmm_recovered recovered;
    for (int i = 0; i < 2; i++) {
        engine_resume(engine);
        err = (struct error){0};
        CHECK(vmm_recover(engine->vmm, &recovered, &err) < 0 && err.code == ERR_SYSTEM);
        engine_stop(engine);
        engine->root.no_snapshots = i == 0;
        engine->root.no_forget = false;
    }
    engine->root.no_snapshots = false;
    CHECK(engine_restart(engine).adopted == 1);
    CHECK(root_snapshots(&engine->root) == 1);
    err = (struct error){0};
    CHECK(store_snapshot_get(engine->fixture.store, "owner", kept.id, &row, &err) == 0);
    vm_remove(engine, "vm");
}

int main(void)
{
    static engine_test *const tests[] = {
        it_is_as_it_was_before,
        the_intent_comes_before_anything_stands,
        a_template_stands_until_it_is_published,
        a_step_that_fails_leaves_it_running,
        and_one_that_was_paused_paused,
        a_vmm_that_does_not_answer_is_let_go_on,
        one_that_cannot_go_on_is_called_paused,
        a_vmm_that_dies_of_it_leaves_nothing,
        what_the_inventory_cannot_hold_is_forgotten,
        what_is_not_forgotten_now_is_by_the_reaper,
        what_is_not_forgotten_now_is_by_the_next_start,
    };
    return engine_run(tests, COUNT_OF(tests));
}
