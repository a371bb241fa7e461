/* How a VM ends: delete, TTL, or its own exit. One thread ends it, others wait for that one. */
#include "vmm/internal.h"

#include <sys/eventfd.h>
#include <sys/wait.h>

static int exit_signal(const struct vmm *vmm, const struct priv_killed *killed)
{
    if (!killed->has_status)
        return 0;
    if (WIFSIGNALED(killed->status))
        return WTERMSIG(killed->status);
    return vmm->hypervisor->exit_signal != NULL
               ? vmm->hypervisor->exit_signal(WEXITSTATUS(killed->status))
               : 0;
}

/* Each reader cuts its text up: hence a copy for each. */
static void listen(const struct vmm *vmm, struct vmm_machine *machine,
                   struct vmm_evidence *evidence)
{
    char log[VMM_LOG_TAIL], console[VMM_CONSOLE_TAIL];
    vmm_machine_tail(machine, console, sizeof(console));
    evidence->claim = vmm_claim_read(console);
    vmm_machine_log(machine, log, sizeof(log));
    evidence->word = vmm->hypervisor->word(log, machine->instance);
    evidence->heard = machine->log >= 0;
}

static void examine(struct vmm *vmm, const char *instance, struct vmm_machine *machine,
                    const struct priv_killed *killed, struct vmm_verdict *verdict)
{
    const struct vmm_observer *observer = &vmm->config.observer;
    struct vmm_evidence *evidence = &verdict->evidence;
    char log[VMM_LOG_TAIL] = "";
    evidence->killed = *killed;
    evidence->exit_signal = exit_signal(vmm, killed);
    if (machine != NULL) {
        listen(vmm, machine, evidence);
        vmm_machine_log(machine, log, sizeof(log));
    }
    evidence->violated = vmm_violation_read(killed, vmm->hypervisor->seccomp_exit, log, instance,
                                            &evidence->violation);
    if (evidence->violated)
        observer->violation(observer->context, evidence->violation.number);
    struct vmm_cause cause = vmm_cause_find(evidence);
    bool unknown = verdict->reason[0] == '\0', launched = machine == NULL || machine->pidfd >= 0;
    verdict->by_itself = !killed->was_running && (machine != NULL || unknown) && launched;
    verdict->known_by = cause.known_by;
    if (unknown) {
        snprintf(verdict->reason, sizeof(verdict->reason), "%s", cause.reason);
        memcpy(verdict->message, cause.message, sizeof(verdict->message));
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
    const struct vmm_observer *observer = &vmm->config.observer;
    struct vmm_machine *machine = vmm_machine_find(vmm, instance);
    int result = 0;
    if (machine == NULL || claim(vmm, machine)) {
        if (machine != NULL && machine->doomed)
            verdict = machine->verdict;
        result = put_away(vmm, instance, machine, &verdict, err);
        if (result == 0)
            observer->ended(observer->context, verdict.reason);
        if (machine != NULL && result == 0) {
            vmm_console_over(machine, &verdict);
            vmm_machine_remove(vmm, machine);
        } else if (machine != NULL) {
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
