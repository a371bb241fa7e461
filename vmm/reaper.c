/* What the reaper looks for now and then, beyond the VMs it watches: rows without a VM,
 * snapshots without a row, and certificates that nobody needs any more. */
#include "vmm/internal.h"

enum { CERTIFICATES_DAYS = 30, AGE_MS = 3600 * 1000 };

/* A machine is in the table before its row is written, and goes after it: a row that is still there
 * when its machine was not found has none. A commit that failed and was written all the same leaves
 * such a one. */
static bool orphaned(struct vmm *vmm, const char *instance)
{
    struct store_vm row;
    struct error ignored = {0};
    struct vmm_machine *machine = vmm_machine_find(vmm, instance);
    if (machine != NULL) {
        vmm_machine_unref(vmm, machine);
        return false;
    }
    return store_vm_by_instance(vmm->config.store, instance, &row, &ignored) == 0;
}

void vmm_age(struct vmm *vmm)
{
    const int64_t keep_ms = INT64_C(86400000) * CERTIFICATES_DAYS;
    struct error ignored = {0}; /* an hour later is as good */
    vmm->aged_ms = clock_mono_ms();
    (void)store_age(vmm->config.store, vmm->boot, clock_boot_ms(), keep_ms, &ignored);
}

void vmm_sweep(struct vmm *vmm)
{
    const struct vmm_observer *observer = &vmm->config.observer;
    cleanup_free char(*names)[ID_INSTANCE_SIZE] = NULL;
    size_t count = 0;
    vmm_forget_again(vmm);
    struct error unlisted = {0}; /* what fails is tried again with the next sweep */
    if (store_vm_instances(vmm->config.store, &names, &count, &unlisted) < 0)
        return;
    for (size_t i = 0; i < count; i++) {
        struct error err = {0};
        struct vmm_verdict verdict =
            vmm_verdict(STORE_LOST, "lost", "nothing was left of it but its record");
        if (orphaned(vmm, names[i]) && vmm_end(vmm, names[i], &verdict, &err) == 0)
            observer->ended(observer->context, verdict.reason);
    }
    if (clock_mono_ms() >= vmm->aged_ms + AGE_MS)
        vmm_age(vmm);
}
