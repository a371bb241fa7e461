/* The spawn saga's driver: steps forward, undo backward, the first error kept (R04). */
#include "vmm/steps.h"

static void undo(struct vmm_spawning *spawn, size_t done)
{
    while (done-- > 0)
        if (vmm_steps[done].undo != NULL)
            vmm_steps[done].undo(spawn);
}

static int cancelled(struct error *err)
{
    return error_set(err, ERR_CANCELLED, 0, "the VM was deleted while it was being created");
}

/* A wait inside a step ends with "cancelled" both when the VMM died and when a delete came: say
 * which. After this ERR_CANCELLED means a delete. */
static void explain(struct vmm_spawning *spawn, struct error *err)
{
    struct vmm_machine *machine = spawn->machine;
    if (machine == NULL || !vmm_machine_gone_after(machine, err))
        return;
    if (vmm_machine_cancelled(machine)) {
        if (err->code != ERR_CANCELLED)
            return;
        *err = (struct error){0};
        cancelled(err);
    } else if (err->code != ERR_VMM_EXITED) {
        char tail[160];
        vmm_machine_tail(machine, tail, sizeof(tail));
        *err = (struct error){0};
        error_set(err, ERR_VMM_EXITED, 0, "the VMM ended by itself; it last wrote: %s",
                  tail[0] == '\0' ? "nothing" : tail);
    }
}

static int run_step(struct vmm_spawning *spawn, size_t i, struct error *err)
{
    const struct vmm_observer *observer = &spawn->vmm->config.observer;
    int64_t begin = clock_mono_us();
    int result = 0;
    if (spawn->machine != NULL && vmm_machine_cancelled(spawn->machine))
        result = cancelled(err);
    else
        result = vmm_steps[i].run(spawn, err);
    spawn->step_us[i] = clock_mono_us() - begin;
    if (result < 0)
        explain(spawn, err);
    observer->step(observer->context, vmm_steps[i].name, result < 0 ? err : NULL,
                   spawn->step_us[i]);
    return result;
}

static int run(struct vmm_spawning *spawn, size_t from, size_t to, struct error *err)
{
    const struct vmm_observer *observer = &spawn->vmm->config.observer;
    for (size_t i = from; i < to; i++) {
        if (run_step(spawn, i, err) == 0)
            continue;
        spawn->failed_step = vmm_steps[i].name;
        spawn->failure = *err;
        if (err->code == ERR_GUEST_PROTOCOL)
            vmm_audit_word(spawn->vmm, spawn->row.instance, STORE_AUDIT_GUEST_PROTOCOL, "during",
                           spawn->failed_step);
        undo(spawn, i);
        *err = spawn->failure; /* which an undo may have explained */
        error_wrap(err, "step %s", spawn->failed_step);
        observer->spawn(observer->context, spawn->failed_step, &spawn->failure,
                        clock_mono_us() - spawn->begin_us);
        return -1;
    }
    return 0;
}

static void spawn_free(struct vmm_spawning *spawn)
{
    vmm_machine_unref(spawn->vmm, spawn->machine);
    vmm_spec_free(spawn->spec);
    free(spawn);
}

int vmm_spawn_begin(struct vmm *vmm, struct vmm_spec *spec, const char *owner,
                    struct vmm_spawning **ret, struct store_vm *ret_row, struct error *err)
{
    struct vmm_spawning *spawn = calloc(1, sizeof(*spawn));
    if (spawn == NULL) {
        vmm_spec_free(spec);
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a spawn");
    }
    spawn->vmm = vmm;
    spawn->spec = spec;
    spawn->begin_us = clock_mono_us();
    snprintf(spawn->row.owner, sizeof(spawn->row.owner), "%s", owner);
    if (run(spawn, 0, 1, err) < 0) {
        spawn_free(spawn);
        return -1;
    }
    *ret_row = spawn->row;
    *ret = spawn;
    return 0;
}

int vmm_spawn_finish(struct vmm_spawning *spawn, struct store_vm *ret, struct error *err)
{
    const struct vmm_observer *observer = &spawn->vmm->config.observer;
    int result = run(spawn, 1, VMM_STEPS, err);
    if (result == 0) {
        *ret = spawn->row;
        observer->spawn(observer->context, NULL, NULL, clock_mono_us() - spawn->begin_us);
    }
    spawn_free(spawn);
    return result;
}

int vmm_spawn(struct vmm *vmm, struct vmm_spec *spec, const char *owner, struct store_vm *ret,
              struct error *err)
{
    struct vmm_spawning *spawning = NULL;
    struct store_vm row;
    if (vmm_spawn_begin(vmm, spec, owner, &spawning, &row, err) < 0)
        return -1;
    return vmm_spawn_finish(spawning, ret, err);
}
