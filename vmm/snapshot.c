/* A snapshot of a VM: steps forward, and back where one fails. The VM stands still from `freeze` to
 * `thaw` only, and runs on whatever happens. */
#include "vmm/internal.h"

struct taking {
    struct vmm *vmm;
    struct vmm_machine *machine; /* borrowed */
    struct store_snapshot row;
    bool ran, frozen;
};

static int freeze(struct taking *taking, struct error *err)
{
    if (vmm_pause_freeze(taking->vmm, taking->machine, &taking->ran, err) < 0)
        return -1;
    taking->frozen = true;
    return 0;
}

static int thaw(struct taking *taking, struct error *err)
{
    taking->frozen = false;
    return vmm_pause_thaw(taking->vmm, taking->machine, taking->ran, err);
}

static int stage(struct taking *taking, struct error *err)
{
    return priv_stage(taking->vmm->config.priv, taking->row.instance, err);
}

static int save(struct taking *taking, struct error *err)
{
    struct vmm *vmm = taking->vmm;
    return vmm->hypervisor->snapshot(vmm, taking->machine, taking->row.memory_mib,
                                     vmm->snapshot_timeout_ms, err);
}

static int capture(struct taking *taking, struct error *err)
{
    return priv_capture(taking->vmm->config.priv, taking->row.instance, err);
}

/* A template's memory is read where it is. */
static bool stands_until_published(const struct taking *taking)
{
    return taking->machine->apart && taking->machine->generation == 0;
}

static int thaw_early(struct taking *taking, struct error *err)
{
    return stands_until_published(taking) ? 0 : thaw(taking, err);
}

static int thaw_late(struct taking *taking, struct error *err)
{
    return taking->frozen ? thaw(taking, err) : 0;
}

static int publish(struct taking *taking, struct error *err)
{
    struct priv_published published;
    if (priv_publish(taking->vmm->config.priv, taking->row.instance, &published, err) < 0)
        return -1;
    memcpy(taking->row.id, published.snapshot, sizeof(taking->row.id));
    taking->row.bytes = (int64_t)published.bytes;
    taking->row.created_wall_ms = clock_wall_ms();
    return 0;
}

static int commit(struct taking *taking, struct error *err)
{
    struct error ignored = {0};
    if (store_snapshot_commit(taking->vmm->config.store, &taking->row, err) == 0)
        return 0;
    (void)vmm_forget(taking->vmm, taking->row.id, &ignored);
    return -1;
}

static const struct {
    const char *name;
    int (*run)(struct taking *taking, struct error *err);
} steps[] = {{"freeze", freeze},   {"stage", stage},     {"save", save},      {"capture", capture},
             {"thaw", thaw_early}, {"publish", publish}, {"thaw", thaw_late}, {"commit", commit}};

/* Each is idempotent, and takes "nothing there" for success. */
static void undo(struct taking *taking)
{
    struct error ignored = {0};
    (void)priv_unstage(taking->vmm->config.priv, taking->row.instance, &ignored);
    ignored = (struct error){0};
    if (taking->frozen)
        (void)thaw(taking, &ignored);
    ignored = (struct error){0};
    if (store_snapshot_abandon(taking->vmm->config.store, taking->row.instance, &ignored) < 0)
        vmm_pause_owe(taking->vmm, taking->machine, VMM_OWED_INTENT);
}

static int take(struct taking *taking, struct error *err)
{
    vmm_pause_settle(taking->vmm, taking->machine);
    if (store_snapshot_begin(taking->vmm->config.store, taking->row.instance, err) < 0)
        return -1;
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        if (steps[i].run(taking, err) == 0)
            continue;
        undo(taking);
        if (!vmm_machine_gone_after(taking->machine, err))
            return error_wrap(err, "%s", steps[i].name);
        *err = (struct error){0};
        return error_set(err, ERR_VM_GONE, 0, "the VM ended while a snapshot of it was made");
    }
    return 0;
}

static void fill_row(struct taking *taking, const struct store_vm *vm, const char *labels)
{
    struct store_snapshot *row = &taking->row;
    memcpy(row->owner, vm->owner, sizeof(row->owner));
    memcpy(row->vm, vm->id, sizeof(row->vm));
    memcpy(row->instance, vm->instance, sizeof(row->instance));
    memcpy(row->image, vm->image, sizeof(row->image));
    memcpy(row->image_digest, vm->image_digest, HASH_SIZE);
    memcpy(row->seccomp, vm->seccomp, sizeof(row->seccomp));
    memcpy(row->hypervisor, vm->hypervisor, sizeof(row->hypervisor));
    row->generation = taking->machine->generation;
    row->vcpus = vm->vcpus;
    row->memory_mib = vm->memory_mib;
    row->disk_mib = vm->disk_mib;
    snprintf(row->labels, sizeof(row->labels), "%s", labels);
}

int vmm_snapshot_make(struct vmm *vmm, struct vmm_machine *machine,
                      const struct vmm_snapshot_wish *wish, struct store_snapshot *ret,
                      struct error *err)
{
    struct taking taking = {
        .vmm = vmm, .machine = machine, .row.kind = wish->kind, .row.keep = wish->keep};
    struct store_vm row;
    if (store_vm_by_instance(vmm->config.store, machine->instance, &row, err) < 0)
        return -1;
    fill_row(&taking, &row, wish->labels);
    if (take(&taking, err) < 0)
        return -1;
    *ret = taking.row;
    ret->keep = NULL;
    return 0;
}

int vmm_snapshot(struct vmm *vmm, const char *owner, const char *id,
                 const struct vmm_snapshot_wish *wish, struct store_snapshot *ret,
                 struct error *err)
{
    struct vmm_machine *machine = NULL;
    if (vmm_use_find(vmm, owner, id, "only one that runs or is paused can be kept", &machine, err) <
        0)
        return -1;
    int result = vmm_snapshot_make(vmm, machine, wish, ret, err);
    vmm_machine_unref(vmm, machine);
    return result;
}

int vmm_fork_commit(struct vmm *vmm, const struct store_snapshot *snapshot, struct error *err)
{
    struct error ignored = {0}; /* it is tried again */
    if (store_fork_commit(vmm->config.store, snapshot, err) < 0)
        return -1;
    (void)vmm_forget(vmm, snapshot->id, &ignored);
    return 0;
}

/* The snapshot goes last: as long as its row is there, a start ends what is left of the forks. */
void vmm_fork_undo(struct vmm *vmm, const struct store_snapshot *snapshot,
                   const struct store_vm *forks, uint32_t made)
{
    const struct vmm_verdict verdict =
        vmm_verdict(STORE_EXITED, "deleted", "not all forks that were asked for could be made");
    while (made > 0) {
        struct error ignored = {0}; /* the reaper tries again */
        (void)vmm_end(vmm, forks[--made].instance, &verdict, &ignored);
    }
    vmm_forget_ephemeral(vmm, snapshot->id);
}

int vmm_snapshot_delete(struct vmm *vmm, const char *owner, const char *id, struct error *err)
{
    if (store_snapshot_remove(vmm->config.store, owner, id, err) < 0)
        return -1;
    return vmm_forget(vmm, id, err);
}

/* It may be standing still for a snapshot, and should run. Its VMM may hang, or still be writing: so it
 * is asked by who needs it, or by the watchdog. If it cannot be known, a VM whose row says `running` is
 * let go on all the same. */
void vmm_snapshot_recover_vm(struct vmm *vmm, struct vmm_machine *machine, bool running)
{
    struct error ignored = {0};
    bool intended = true;
    if (store_snapshot_intended(vmm->config.store, machine->instance, &intended, &ignored) == 0 &&
        !intended)
        return;
    machine->patience_ms = clock_mono_ms() + VMM_SNAPSHOT_TIMEOUT_MS;
    vmm_pause_owe(vmm, machine, running ? VMM_OWED_THAW : VMM_OWED_INTENT);
}

int vmm_snapshot_recover(struct vmm *vmm, struct error *err)
{
    struct priv_snapshot published = {0};
    if (store_recover(vmm->config.store, err) < 0)
        return -1;
    for (bool first = true;; first = false) {
        char after[ID_INSTANCE_SIZE];
        bool recorded = true;
        memcpy(after, published.snapshot, sizeof(after));
        if (priv_snapshots(vmm->config.priv, first ? NULL : after, &published, err) < 0)
            return -1;
        if (published.snapshot[0] == '\0')
            return 0;
        if (store_snapshot_recorded(vmm->config.store, published.snapshot, &recorded, err) < 0 ||
            (!recorded && priv_forget_snapshot(vmm->config.priv, published.snapshot, err) < 0))
            return -1;
    }
}
