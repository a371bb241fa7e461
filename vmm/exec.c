/* One command in one VM: a service connection, a stream, an answer. */
#include "vmm/internal.h"

static int find_running(struct vmm *vmm, const char *owner, const char *id,
                        struct vmm_machine **ret, struct error *err)
{
    struct store_vm row;
    if (store_vm_get(vmm->config.store, owner, id, &row, err) < 0)
        return -1;
    if (row.state != STORE_RUNNING)
        return error_set(err, ERR_VM_NOT_RUNNING, 0, "the VM is %s; commands need a running one",
                         store_state_name(row.state));
    pthread_mutex_lock(&vmm->lock);
    bool draining = vmm->draining;
    pthread_mutex_unlock(&vmm->lock);
    if (draining)
        return error_set(err, ERR_SHUTTING_DOWN, 0, "motted is stopping; try again in a moment");
    struct vmm_machine *machine = vmm_machine_find(vmm, row.instance);
    if (machine != NULL)
        vmm_machine_settle(vmm, machine); /* the row says `running` a moment before the machine */
    if (machine == NULL || vmm_machine_gone(machine)) {
        vmm_machine_unref(vmm, machine);
        return error_set(err, ERR_VM_NOT_RUNNING, 0, "the VM has just ended");
    }
    *ret = machine;
    return 0;
}

static int run(struct vmm *vmm, struct vmm_machine *machine,
               const struct vsock_exec_request *request, struct vsock_exec_result *ret,
               struct error *err)
{
    struct vsock_conn *conn = NULL;
    unsigned port = 0;
    int64_t deadline = clock_mono_ms() + VMM_CONNECT_TIMEOUT_MS;
    if (vmm->hypervisor->connect(vmm, machine, deadline, &conn, &port, err) < 0)
        return -1;
    int result = vsock_exec(conn, request, machine->gone, ret, err);
    vmm->hypervisor->disconnect(vmm, machine, conn, port);
    if (result == 0 && ret->timed_out)
        return error_set(err, ERR_EXEC_TIMEOUT, 0,
                         "the command ran longer than timeout_ms (%u) and was killed with all it "
                         "had started",
                         request->timeout_ms);
    return result;
}

int vmm_exec(struct vmm *vmm, const char *owner, const char *id,
             const struct vsock_exec_request *request, struct vsock_exec_result *ret,
             struct error *err)
{
    const struct vmm_observer *observer = &vmm->config.observer;
    struct vmm_machine *machine = NULL;
    *ret = (struct vsock_exec_result){0};
    int64_t begin = clock_mono_us();
    int result = find_running(vmm, owner, id, &machine, err);
    if (result == 0) {
        vmm_use_begin(vmm, machine);
        result = run(vmm, machine, request, ret, err);
        vmm_use_end(vmm, machine);
        if (result < 0 && err->code == ERR_GUEST_PROTOCOL)
            vmm_audit_word(vmm, machine->instance, STORE_AUDIT_GUEST_PROTOCOL, "during", "exec");
        if (result < 0 && err->code != ERR_EXEC_TIMEOUT && vmm_machine_gone_after(machine, err)) {
            *err = (struct error){0};
            error_set(err, ERR_VM_GONE, 0, "the VM ended while the command ran in it");
        }
        if (result < 0 && err->code == ERR_GUEST_TIMEOUT)
            vmm_watchdog_suspect(vmm, machine);
    }
    observer->exec(observer->context, result < 0 ? err : NULL, clock_mono_us() - begin);
    vmm_machine_unref(vmm, machine);
    return result;
}
