/* How a VM ends: delete, TTL, or its own exit. One thread ends it, others wait for that one. */
#include "vmm/internal.h"

#include <sys/eventfd.h>
#include <sys/wait.h>

/* Firecracker's exit codes: src/vmm/src/lib.rs, FcExitCode. Only the parent of a VMM learns them.
 */
static const char *why(const struct priv_killed *killed, char message[static ERROR_MESSAGE_MAX])
{
    enum { EXIT_SECCOMP = 148 };
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
        return WTERMSIG(killed->status) == SIGSYS ? "seccomp" : "vmm_crash";
    }
    int code = WEXITSTATUS(killed->status);
    if (code == 0)
        return "guest_shutdown";
    snprintf(message, ERROR_MESSAGE_MAX, "the VMM exited with code %d", code);
    return code == EXIT_SECCOMP ? "seccomp" : "vmm_exit";
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

static void release(struct vmm *vmm, struct vmm_machine *machine)
{
    pthread_mutex_lock(&vmm->lock);
    machine->phase = VMM_UP;
    pthread_cond_broadcast(&vmm->changed);
    pthread_mutex_unlock(&vmm->lock);
}

int vmm_end(struct vmm *vmm, const char *instance, enum store_state state, const char *reason,
            const char *message, struct error *err)
{
    struct vmm_machine *machine = vmm_machine_find(vmm, instance);
    if (machine != NULL && !claim(vmm, machine)) {
        vmm_machine_unref(vmm, machine);
        return 0;
    }
    struct priv_killed killed = {0};
    char tail[VMM_CONSOLE_TAIL] = "", found[ERROR_MESSAGE_MAX];
    int result = priv_kill(vmm->config.priv, instance, &killed, err);
    if (result == 0) {
        if (machine != NULL)
            vmm_machine_tail(machine, tail, sizeof(tail));
        if (reason == NULL) {
            reason = why(&killed, found);
            message = found;
        }
        result = store_vm_end(vmm->config.store, instance, state, reason, message, tail, err);
        vmm->config.observer.ended(vmm->config.observer.context, reason);
    }
    if (machine != NULL && result == 0)
        vmm_machine_remove(vmm, machine);
    else if (machine != NULL)
        release(vmm, machine); /* the next attempt (or the next start) finishes it */
    vmm_machine_unref(vmm, machine);
    return result;
}

int vmm_delete(struct vmm *vmm, const char *owner, const char *id, struct error *err)
{
    struct store_vm row;
    if (store_vm_deleting(vmm->config.store, owner, id, &row, err) < 0)
        return -1;
    return vmm_end(vmm, row.instance, STORE_EXITED, "deleted", "", err);
}
