/*
 * Snapshots (R02, R20): whenever the service dies while one is made, the VM runs on. A plain program,
 * so that ThreadSanitizer can run it.
 */
#include "tests/unit/vmm/snapshots.h"

#include <poll.h>

/* ---- the service dies in the middle ---- */

/* As far as `phase`, by hand: a thread that is at it cannot be killed alone. */
static void begin(struct engine *engine, const struct store_vm *vm, enum phase phase)
{
    struct error err = {0};
    struct vmm_machine *machine = vmm_machine_find(engine->vmm, vm->instance);
    CHECK(machine != NULL);
    CHECK(store_snapshot_begin(engine->fixture.store, vm->instance, &err) == 0);
    CHECK(engine->vmm->hypervisor->pause(machine, ANSWER_MS, &err) == 0);
    CHECK(phase == PHASE_NONE || priv_stage(engine->client, vm->instance, &err) == 0);
    CHECK(phase != PHASE_CAPTURED || priv_capture(engine->client, vm->instance, &err) == 0);
    vmm_machine_unref(engine->vmm, machine);
    engine_stop(engine);
}

static void await_running(struct engine *engine, const struct store_vm *vm)
{
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    while (root_paused(&engine->root, vm->instance) || engine_intended(engine, vm->instance)) {
        CHECK(clock_mono_ms() < deadline);
        poll(NULL, 0, LOOK_MS);
    }
}

static void after_a_restart_it_runs_on(struct engine *engine)
{
    struct store_vm vm = vm_run(engine, "vm", (struct plan){0});
    for (enum phase phase = PHASE_NONE; phase <= PHASE_CAPTURED; phase++) {
        begin(engine, &vm, phase);
        CHECK(engine_restart(engine).adopted == 1);
        if (phase == PHASE_STAGED)
            vm_exec_works(engine, "vm"); /* at once, whoever asked it first */
        await_running(engine, &vm);      /* without a request */
        vm_is_whole(engine, &vm, false, 0);
        CHECK(engine->hung_agents == 0);
    }
    snapshot_take(engine, "vm");
    vm_is_whole(engine, &vm, false, 1);
    vm_remove(engine, "vm");
}

static void what_was_published_without_a_row_goes(struct engine *engine)
{
    struct store_vm vm = vm_run(engine, "vm", (struct plan){0});
    struct priv_published published;
    struct error err = {0};
    struct vmm_machine *machine = vmm_machine_find(engine->vmm, vm.instance);
    struct store_snapshot kept = snapshot_take(engine, "vm"), row;
    CHECK(store_snapshot_begin(engine->fixture.store, vm.instance, &err) == 0);
    CHECK(engine->vmm->hypervisor->pause(machine, ANSWER_MS, &err) == 0);
    CHECK(priv_stage(engine->client, vm.instance, &err) == 0);
    CHECK(priv_capture(engine->client, vm.instance, &err) == 0);
    CHECK(engine->vmm->hypervisor->resume(machine, ANSWER_MS, &err) == 0);
    CHECK(priv_publish(engine->client, vm.instance, &published, &err) == 0);
    vmm_machine_unref(engine->vmm, machine);
    CHECK(root_snapshots(&engine->root) == 2);
    engine_stop(engine);
    CHECK(engine_restart(engine).adopted == 1);
    await_running(engine, &vm);
    vm_is_whole(engine, &vm, false, 1);
    CHECK(store_snapshot_get(engine->fixture.store, "owner", kept.id, &row, &err) == 0);
    vm_remove(engine, "vm");
}

static void one_that_was_paused_stays_paused(struct engine *engine)
{
    struct store_vm vm = vm_run(engine, "vm", (struct plan){0}), row;
    struct error err = {0};
    CHECK(vmm_pause(engine->vmm, "owner", "vm", &row, &err) == 0);
    begin(engine, &vm, PHASE_STAGED);
    CHECK(engine_restart(engine).adopted == 1);
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    while (engine_intended(engine, vm.instance)) {
        CHECK(clock_mono_ms() < deadline);
        poll(NULL, 0, LOOK_MS);
    }
    vm_is_whole(engine, &vm, true, 0);
    vm_remove(engine, "vm");
}

/* Its VMM still writes what the last front asked for, longer than one that hangs would be let live. */
static void one_that_is_still_written_is_waited_for(struct engine *engine)
{
    struct store_vm vm = vm_run(engine, "vm", (struct plan){.fail = AT_ALIVE, .times = 7});
    begin(engine, &vm, PHASE_STAGED);
    CHECK(engine_restart(engine).adopted == 1);
    struct vmm_machine *machine = vmm_machine_find(engine->vmm, vm.instance);
    CHECK(machine != NULL);
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    while (root_paused(&engine->root, vm.instance)) {
        CHECK(clock_mono_ms() < deadline && engine->hung_vmms == 0);
        vmm_pause_settle(engine->vmm, machine);
    }
    vmm_machine_unref(engine->vmm, machine);
    vm_is_whole(engine, &vm, false, 0);
    vm_remove(engine, "vm");
}

static void one_that_does_not_go_on_at_once_does_later(struct engine *engine)
{
    struct store_vm vm = vm_run(engine, "vm", (struct plan){.fail = AT_RESUME, .spare = 2});
    begin(engine, &vm, PHASE_NONE);
    CHECK(engine_restart(engine).adopted == 1);
    await_running(engine, &vm);
    vm_is_whole(engine, &vm, false, 0);
    vm_remove(engine, "vm");
}

int main(void)
{
    static engine_test *const tests[] = {
        after_a_restart_it_runs_on,
        what_was_published_without_a_row_goes,
        one_that_was_paused_stays_paused,
        one_that_is_still_written_is_waited_for,
        one_that_does_not_go_on_at_once_does_later,
    };
    return engine_run(tests, COUNT_OF(tests));
}
