/* How well a VM is kept in: the root half looks, line by line; this asks and counts what is wrong.
 */
#include "vmm/internal.h"

static int collect(struct vmm *vmm, const char *instance, struct vmm_isolation *ret,
                   struct error *err)
{
    const struct vmm_observer *observer = &vmm->config.observer;
    struct priv_line line;
    memset(ret, 0, sizeof(*ret));
    memcpy(ret->instance, instance, ID_INSTANCE_SIZE);
    ret->wall_ms = clock_wall_ms();
    ret->ok = true;
    for (uint32_t i = 0;; i++) {
        if (priv_report(vmm->config.priv, instance, i, &line, err) < 0)
            return -1;
        if (line.name[0] == '\0')
            return 0;
        if (ret->count == COUNT_OF(ret->lines))
            return error_set(err, ERR_INTERNAL, 0, "the root half's report does not end");
        ret->lines[ret->count++] = line;
        if (line.state != PRIV_LINE_WRONG && line.state != PRIV_LINE_ABSENT)
            continue;
        ret->ok = false;
        vmm_audit_line(vmm, instance, &line);
        observer->isolation(observer->context, line.name);
    }
}

/* The check stops at the first line that is wrong; the report behind it names them all. */
int vmm_isolation_check(struct vmm *vmm, const char *instance, struct error *err)
{
    struct vmm_isolation report;
    struct error ignored = {0};
    if (priv_check(vmm->config.priv, instance, err) == 0)
        return 0;
    (void)collect(vmm, instance, &report, &ignored);
    return -1;
}

int vmm_isolation(struct vmm *vmm, const char *owner, const char *id, struct vmm_isolation *ret,
                  struct error *err)
{
    struct store_vm row;
    if (store_vm_get(vmm->config.store, owner, id, &row, err) < 0)
        return -1;
    if (row.state != STORE_RUNNING && row.state != STORE_PAUSED)
        return error_set(err, ERR_VM_NOT_RUNNING, 0,
                         "the VM is %s; only one that runs or is paused has guards to look at",
                         store_state_name(row.state));
    if (collect(vmm, row.instance, ret, err) == 0)
        return 0;
    if (err->code == ERR_VMM_EXITED || err->code == ERR_PRIV_REFUSED) {
        *err = (struct error){0};
        error_set(err, ERR_VM_NOT_RUNNING, 0, "the VM has just ended");
    }
    return -1;
}
