/* The spawn saga's driver: steps forward, undo backward, the first error kept (R04). */
#include "vmm/pool.h"
#include "vmm/steps.h"
#include "vmm/template.h"

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

/* The service's own are not among the spawns that somebody waits for. */
static bool for_caller(const struct vmm_spawning *spawn)
{
    return spawn->spec->purpose == STORE_FOR_CALLER;
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
        if (for_caller(spawn))
            observer->spawn(observer->context, spawn->failed_step, &spawn->failure,
                            clock_mono_us() - spawn->begin_us);
        return -1;
    }
    return 0;
}

/* What the service does for itself waits while there are callers' spawns. */
static void give_way(const struct vmm_spawning *spawn, int by)
{
    struct vmm *vmm = spawn->vmm;
    if (!for_caller(spawn))
        return;
    pthread_mutex_lock(&vmm->lock);
    vmm->spawns += (unsigned)by;
    if (vmm->spawns == 0 && vmm->pools->count > 0)
        vmm_pool_news(vmm);
    if (vmm->spawns == 0)
        pthread_cond_signal(&vmm->templates->wake);
    pthread_mutex_unlock(&vmm->lock);
}

/* The spec is the caller's again. */
static struct vmm_spec *spawn_free(struct vmm_spawning *spawn)
{
    struct vmm_spec *spec = spawn->spec;
    give_way(spawn, -1);
    vmm_machine_unref(spawn->vmm, spawn->machine);
    free(spawn);
    return spec;
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
    give_way(spawn, 1);
    if (run(spawn, 0, 1, err) < 0) {
        vmm_spec_free(spawn_free(spawn));
        return -1;
    }
    *ret_row = spawn->row;
    *ret = spawn;
    return 0;
}

/* What a guest that does not come up, or its VMM, may fail with. */
static bool is_of_guest(enum error_code code)
{
    static const enum error_code codes[] = {ERR_HYPERVISOR,     ERR_HYPERVISOR_TIMEOUT,
                                            ERR_VMM_EXITED,     ERR_BOOT_TIMEOUT,
                                            ERR_GUEST_PROTOCOL, ERR_GUEST_CLOSED};
    for (size_t i = 0; i < COUNT_OF(codes); i++)
        if (codes[i] == code)
            return true;
    return false;
}

/* After a failure: was it to start from a snapshot of its image, and does somebody still want it? A
 * snapshot whose guest did not come up is not used again. */
static bool may_boot(struct vmm_spawning *spawn)
{
    if (!spawn->of_image || spawn->failure.code == ERR_CANCELLED)
        return false;
    if (is_of_guest(spawn->failure.code))
        vmm_image_snapshot_reject(spawn->vmm, spawn->spec, spawn->from, VMM_IMAGE_FAILED,
                                  &spawn->failure);
    return true;
}

/* *ret_again (or NULL): what may boot in the place of one that was to be restored. */
static int finish(struct vmm_spawning *spawn, struct store_vm *ret, struct vmm_spec **ret_again,
                  struct error *err)
{
    const struct vmm_observer *observer = &spawn->vmm->config.observer;
    int result = run(spawn, 1, VMM_STEPS, err);
    if (result == 0) {
        *ret = spawn->row;
        if (for_caller(spawn))
            observer->spawn(observer->context, NULL, NULL, clock_mono_us() - spawn->begin_us);
        if (spawn->of_image)
            observer->image_snapshot(observer->context, VMM_IMAGE_RESTORED, NULL);
    }
    bool again = result < 0 && may_boot(spawn);
    struct vmm_spec *spec = spawn_free(spawn);
    *ret_again = again ? spec : NULL;
    if (again)
        spec->cold = true;
    else
        vmm_spec_free(spec);
    return result;
}

/* Somebody was told of this one: it is not made again under another instance. */
int vmm_spawn_finish(struct vmm_spawning *spawn, struct store_vm *ret, struct error *err)
{
    struct vmm_spec *again = NULL;
    int result = finish(spawn, ret, &again, err);
    vmm_spec_free(again);
    return result;
}

int vmm_spawn(struct vmm *vmm, struct vmm_spec *spec, const char *owner, struct store_vm *ret,
              struct error *err)
{
    struct vmm_spawning *spawning = NULL;
    struct vmm_spec *again = NULL;
    struct store_vm row;
    if (vmm_spawn_begin(vmm, spec, owner, &spawning, &row, err) < 0)
        return -1;
    int result = finish(spawning, ret, &again, err);
    if (again == NULL)
        return result;
    struct error booting = {0};
    if (vmm_spawn_begin(vmm, again, owner, &spawning, &row, &booting) < 0)
        return -1; /* the first error says more */
    *err = (struct error){0};
    return vmm_spawn_finish(spawning, ret, err);
}
