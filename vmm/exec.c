/* One command in one VM: a service connection, a stream, an answer. */
#include "vmm/execs.h"

/* A guest that was paused meanwhile is not to blame for its silence. A pause does not stop the time of
 * a command: its caller waits. */
static void explain_silence(bool begun, uint32_t timeout_ms, struct error *err)
{
    *err = (struct error){0};
    if (begun)
        error_set(err, ERR_EXEC_TIMEOUT, 0,
                  "timeout_ms (%u) went by while the VM was paused; the command is killed when the "
                  "VM goes on",
                  timeout_ms);
    else
        error_set(err, ERR_VM_PAUSED, 0, "the VM was paused before the command could begin");
}

static int run(struct vmm *vmm, struct vmm_machine *machine,
               const struct vsock_exec_request *request, struct vsock_exec_result *ret,
               struct error *err)
{
    struct vsock_conn *conn = NULL;
    unsigned port = 0, changes = 0;
    if (vmm_pause_refuse(vmm, machine, &changes, err) < 0)
        return -1;
    int64_t deadline = clock_mono_ms() + VMM_CONNECT_TIMEOUT_MS;
    bool begun = vmm->hypervisor->connect(vmm, machine, deadline, &conn, &port, err) == 0;
    int result = begun ? vsock_exec(conn, request, machine->gone, ret, err) : -1;
    if (begun)
        vmm->hypervisor->disconnect(vmm, machine, conn, port);
    if (result < 0 && err->code == ERR_GUEST_TIMEOUT && vmm_pause_since(vmm, machine, changes))
        explain_silence(begun, request->timeout_ms, err);
    if (result == 0 && ret->timed_out)
        return error_set(err, ERR_EXEC_TIMEOUT, 0,
                         "the command ran longer than timeout_ms (%u) and was killed with all it "
                         "had started",
                         request->timeout_ms);
    return result;
}

/* What a failure says of the VM. */
static void explain(struct vmm *vmm, struct vmm_machine *machine, struct error *err)
{
    if (err->code == ERR_GUEST_PROTOCOL)
        vmm_audit_word(vmm, machine->instance, STORE_AUDIT_GUEST_PROTOCOL, "during", "exec");
    if (err->code != ERR_EXEC_TIMEOUT && vmm_machine_gone_after(machine, err)) {
        *err = (struct error){0};
        error_set(err, ERR_VM_GONE, 0, "the VM ended while the command ran in it");
    }
    if (err->code == ERR_GUEST_TIMEOUT)
        vmm_watchdog_suspect(vmm, machine);
}

int vmm_exec(struct vmm *vmm, const char *owner, const char *id,
             const struct vsock_exec_request *request, struct vsock_exec_result *ret,
             struct error *err)
{
    const struct vmm_observer *observer = &vmm->config.observer;
    struct vmm_machine *machine = NULL;
    struct vmm_exec_owner *slot = NULL;
    *ret = (struct vsock_exec_result){0};
    int64_t begin = clock_mono_us();
    int result = vmm_use_find(vmm, owner, id, "commands need a running one", &machine, err);
    if (result == 0)
        result = vmm_exec_enter(vmm, owner, &slot, err);
    if (result == 0) {
        vmm_use_begin(vmm, machine);
        result = run(vmm, machine, request, ret, err);
        vmm_use_end(vmm, machine);
        vmm_exec_leave(vmm, slot);
        if (result < 0)
            explain(vmm, machine, err);
    }
    observer->exec(observer->context, result < 0 ? err : NULL, clock_mono_us() - begin);
    vmm_machine_unref(vmm, machine);
    return result;
}
