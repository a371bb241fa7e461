/* The table of commands: what is kept of them, who may see one. Nothing of it is
 * on the disk: a command does not outlive this program, for its guest ends it with the connection; so
 * an id tells by its first characters whether it is of this run. */
#include "vmm/execs.h"

#include <errno.h>
#include <sys/eventfd.h>

struct vmm_execs *vmm_execs_new(struct error *err)
{
    struct vmm_execs *execs = calloc(1, sizeof(*execs));
    if (execs == NULL || id_instance_make(execs->epoch, err) < 0) {
        free(execs);
        if (err->code == ERR_NONE)
            error_set(err, ERR_NO_MEMORY, 0, "out of memory for commands");
        return NULL;
    }
    execs->epoch[VMM_EPOCH_LEN] = '\0';
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&execs->lock, NULL);
    pthread_cond_init(&execs->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return execs;
}

static void exec_free(struct vmm_exec *exec)
{
    struct vmm_execs *execs = exec->vmm->execs;
    execs->memory -= exec->log.memory;
    if (exec->owner != NULL) {
        exec->owner->memory -= exec->log.memory;
        vmm_exec_owner_unref(execs, exec->owner);
    }
    vmm_exec_log_clear(&exec->log);
    buf_release(&exec->input);
    if (exec->wake >= 0)
        close(exec->wake);
    free(exec);
}

void vmm_exec_unref(struct vmm_exec *exec)
{
    if (--exec->refs == 0)
        exec_free(exec);
}

void vmm_exec_unlist(struct vmm_exec *exec)
{
    struct vmm_execs *execs = exec->vmm->execs;
    struct vmm_exec **at = &execs->first;
    if (!exec->listed)
        return;
    while (*at != exec)
        at = &(*at)->next;
    *at = exec->next;
    vmm_exec_forget(exec, 0); /* readers who are still there find a gap, and its end */
    exec->listed = false;
    exec->owner->listed--;
    execs->count--;
    vmm_exec_unref(exec);
}

void vmm_execs_free(struct vmm_execs *execs)
{
    if (execs == NULL)
        return;
    while (execs->first != NULL)
        vmm_exec_unlist(execs->first);
    pthread_cond_destroy(&execs->changed);
    pthread_mutex_destroy(&execs->lock);
    free(execs);
}

void vmm_exec_rouse(struct vmm_exec *exec)
{
    (void)eventfd_write(exec->wake, 1);
}

/* ---- stop ---- */

static void leave(struct vmm *vmm, bool also_awaited)
{
    for (struct vmm_exec *exec = vmm->execs->first; exec != NULL; exec = exec->next) {
        if (exec->record.state != VMM_EXEC_RUNNING || (exec->waiters > 0 && !also_awaited))
            continue;
        exec->orders.leave = true;
        vmm_exec_rouse(exec);
    }
}

void vmm_execs_drain(struct vmm *vmm)
{
    pthread_mutex_lock(&vmm->execs->lock);
    vmm->execs->leaving = true;
    leave(vmm, false);
    pthread_mutex_unlock(&vmm->execs->lock);
}

void vmm_execs_close(struct vmm *vmm)
{
    struct vmm_execs *execs = vmm->execs;
    pthread_mutex_lock(&execs->lock);
    execs->leaving = execs->closing = true;
    leave(vmm, true);
    while (execs->threads > 0)
        pthread_cond_wait(&execs->changed, &execs->lock);
    pthread_mutex_unlock(&execs->lock);
}

/* ---- begin ---- */

/* Into the table, as one that runs, if there is room. */
static int list(struct vmm_exec *exec, const char *owner, struct error *err)
{
    struct vmm_execs *execs = exec->vmm->execs;
    if (vmm_exec_owner_begin(exec->vmm, owner, &exec->owner, err) < 0)
        return -1;
    if (vmm_exec_make_room(execs, exec->owner, exec->record.instance, err) < 0) {
        exec->owner->running--;
        return -1;
    }
    exec->listed = true;
    exec->refs = 2;
    exec->next = execs->first;
    execs->first = exec;
    execs->count++;
    execs->running++;
    exec->owner->listed++;
    exec->owner->watched++;
    return 0;
}

int vmm_exec_new(struct vmm *vmm, const char *owner, const char *vm, const char *instance,
                 struct vmm_exec **ret, struct error *err)
{
    struct vmm_execs *execs = vmm->execs;
    struct vmm_exec *exec = calloc(1, sizeof(*exec));
    if (exec == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a command");
    *exec = (struct vmm_exec){
        .vmm = vmm, .refs = 1, .input = {.max = VMM_EXEC_INPUT_MAX}, .begin_us = clock_mono_us()};
    struct vmm_exec_record *record = &exec->record;
    record->started_wall_ms = clock_wall_ms();
    snprintf(record->vm, sizeof(record->vm), "%s", vm);
    snprintf(record->instance, sizeof(record->instance), "%s", instance);
    exec->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int result = exec->wake < 0 ? error_set(err, ERR_SYSTEM, errno, "starting a command")
                                : id_instance_make(record->id, err);
    memcpy(record->id, execs->epoch, VMM_EPOCH_LEN);
    pthread_mutex_lock(&execs->lock);
    if (result == 0 && execs->leaving)
        result = error_set(err, ERR_SHUTTING_DOWN, 0, "motted is stopping; try again in a moment");
    if (result == 0)
        result = list(exec, owner, err);
    if (result == 0)
        *ret = exec;
    else
        vmm_exec_unref(exec);
    pthread_mutex_unlock(&execs->lock);
    return result;
}

void vmm_exec_stopped(struct vmm_exec *exec)
{
    exec->owner->running--;
    exec->owner->watched--;
    exec->vmm->execs->running--;
}

/* ---- find ---- */

struct vmm_exec *vmm_exec_find(struct vmm *vmm, const struct vmm_exec_key *key, struct error *err)
{
    struct vmm_execs *execs = vmm->execs;
    for (struct vmm_exec *exec = execs->first; exec != NULL; exec = exec->next)
        if (exec->begun && strcmp(exec->record.id, key->id) == 0 &&
            strcmp(exec->record.vm, key->vm) == 0 &&
            (key->owner == NULL || strcmp(exec->owner->name, key->owner) == 0))
            return exec;
    if (strncmp(key->id, execs->epoch, VMM_EPOCH_LEN) != 0)
        error_set(
            err, ERR_EXEC_LOST, 0,
            "the service has begun anew since this id was given, if it ever was; commands end "
            "with it, and what was known of them is gone");
    else
        error_set(err, ERR_EXEC_UNKNOWN, 0,
                  "the VM has no such command; of those that ended the oldest are forgotten");
    return NULL;
}

int vmm_exec_get(struct vmm *vmm, const struct vmm_exec_key *key, struct vmm_exec_record *ret,
                 struct error *err)
{
    pthread_mutex_lock(&vmm->execs->lock);
    const struct vmm_exec *exec = vmm_exec_find(vmm, key, err);
    if (exec != NULL)
        *ret = exec->record;
    pthread_mutex_unlock(&vmm->execs->lock);
    return exec != NULL ? 0 : -1;
}

size_t vmm_exec_list(struct vmm *vmm, const char *instance,
                     struct vmm_exec_record ret[static VMM_EXECS_PER_VM])
{
    size_t count = 0;
    pthread_mutex_lock(&vmm->execs->lock);
    for (const struct vmm_exec *exec = vmm->execs->first; exec != NULL && count < VMM_EXECS_PER_VM;
         exec = exec->next)
        if (exec->begun && strcmp(exec->record.instance, instance) == 0)
            ret[count++] = exec->record;
    pthread_mutex_unlock(&vmm->execs->lock);
    return count;
}
