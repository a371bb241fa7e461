/* How a VM ends: delete, TTL, or its own exit. One thread ends it, others wait for that one. */
#include "vmm/internal.h"

#include <sys/eventfd.h>
#include <sys/wait.h>

/* Of a VMM whose filter stopped nothing. Only its parent learns how it exited. */
static const char *why(const struct priv_killed *killed, char message[static ERROR_MESSAGE_MAX])
{
    message[0] = '\0';
    if (killed->oom_kills > 0) {
        snprintf(message, ERROR_MESSAGE_MAX, "the VMM's cgroup ran out of memory");
        return "cgroup_oom";
    }
    if (!killed->has_status)
        return "vmm_exit";
    if (WIFSIGNALED(killed->status)) {
        snprintf(message, ERROR_MESSAGE_MAX, "the VMM was ended by signal %d",
                 WTERMSIG(killed->status));
        return "vmm_crash";
    }
    int code = WEXITSTATUS(killed->status);
    if (code == 0)
        return "guest_shutdown";
    snprintf(message, ERROR_MESSAGE_MAX, "the VMM exited with code %d", code);
    return "vmm_exit";
}

static void examine(struct vmm *vmm, const char *instance, struct vmm_machine *machine,
                    const struct priv_killed *killed, struct vmm_verdict *verdict)
{
    const struct vmm_observer *observer = &vmm->config.observer;
    char log[VMM_LOG_TAIL] = "", message[ERROR_MESSAGE_MAX];
    const char *reason = "seccomp";
    if (machine != NULL)
        vmm_machine_log(machine, log, sizeof(log));
    verdict->killed = *killed;
    verdict->by_itself = machine != NULL && machine->pidfd >= 0 && !killed->was_running;
    verdict->violated = vmm_violation_read(killed, vmm->hypervisor->seccomp_exit, log, instance,
                                           &verdict->violation);
    if (verdict->violated)
        vmm_violation_describe(&verdict->violation, message);
    else
        reason = why(killed, message);
    if (verdict->violated)
        observer->violation(observer->context, verdict->violation.number);
    if (verdict->reason[0] == '\0') {
        snprintf(verdict->reason, sizeof(verdict->reason), "%s", reason);
        memcpy(verdict->message, message, sizeof(message));
    }
    verdict->examined = true;
}

int vmm_certify(struct vmm *vmm, const char *instance, struct vmm_machine *machine,
                const struct priv_killed *killed, struct vmm_verdict *verdict, struct error *err)
{
    char tail[VMM_CONSOLE_TAIL] = "";
    if (!verdict->examined)
        examine(vmm, instance, machine, killed, verdict);
    if (vmm_audit_end(vmm, instance, verdict, err) < 0)
        return -1;
    if (machine != NULL)
        vmm_machine_tail(machine, tail, sizeof(tail));
    return store_vm_end(vmm->config.store, instance, verdict->state, verdict->reason,
                        verdict->message, tail, err);
}

/* True when the caller is the one to end it; false when, after waiting, it is gone. A machine that
 * is still spawning is told to stop and undoes itself. */
static bool claim(struct vmm *vmm, struct vmm_machine *machine)
{
    eventfd_write(machine->cancel, 1); /* spawns and execs that run in it come back */
    pthread_mutex_lock(&vmm->lock);
    bool present;
    for (;;) {
        struct vmm_machine *at = vmm->machines;
        while (at != NULL && at != machine)
            at = at->next;
        present = at != NULL;
        if (!present || machine->phase == VMM_UP)
            break;
        pthread_cond_wait(&vmm->changed, &vmm->lock);
    }
    if (present)
        machine->phase = VMM_ENDING;
    pthread_mutex_unlock(&vmm->lock);
    return present;
}

struct vmm_verdict vmm_verdict(enum store_state state, const char *reason, const char *message)
{
    struct vmm_verdict verdict = {.state = state};
    snprintf(verdict.reason, sizeof(verdict.reason), "%s", reason);
    snprintf(verdict.message, sizeof(verdict.message), "%s", message);
    return verdict;
}

/* Kills and certifies. What was found stays in `verdict`: only the first KILL tells it. */
static int put_away(struct vmm *vmm, const char *instance, struct vmm_machine *machine,
                    struct vmm_verdict *verdict, struct error *err)
{
    struct priv_killed killed = {0};
    if (priv_kill(vmm->config.priv, instance, &killed, err) < 0)
        return -1;
    return vmm_certify(vmm, instance, machine, &killed, verdict, err);
}

int vmm_end(struct vmm *vmm, const char *instance, const struct vmm_verdict *asked,
            struct error *err)
{
    struct vmm_verdict verdict = *asked;
    struct vmm_machine *machine = vmm_machine_find(vmm, instance);
    if (machine == NULL)
        return put_away(vmm, instance, NULL, &verdict, err);
    int result = 0;
    if (claim(vmm, machine)) {
        if (machine->doomed)
            verdict = machine->verdict;
        result = put_away(vmm, instance, machine, &verdict, err);
        if (result == 0) {
            vmm->config.observer.ended(vmm->config.observer.context, verdict.reason);
            vmm_machine_remove(vmm, machine);
        } else {
            vmm_machine_doom(vmm, machine, &verdict);
        }
    }
    vmm_machine_unref(vmm, machine);
    return result;
}

int vmm_delete(struct vmm *vmm, const char *owner, const char *id, struct error *err)
{
    struct store_vm row;
    if (store_vm_deleting(vmm->config.store, owner, id, &row, err) < 0)
        return -1;
    struct vmm_verdict verdict = vmm_verdict(STORE_EXITED, "deleted", "");
    return vmm_end(vmm, row.instance, &verdict, err);
}
