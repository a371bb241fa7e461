/* What commands may take: each owner by his quota and his share, all together by what there is. What is
 * kept of them goes by whose it is: one owner's silence is not the price of another's. */
#include "vmm/execs.h"

/* ---- owners ---- */

static struct vmm_exec_owner *find_owner(const struct vmm_execs *execs, const char *name)
{
    struct vmm_exec_owner *owner = execs->owners;
    while (owner != NULL && strcmp(owner->name, name) != 0)
        owner = owner->next;
    return owner;
}

static struct vmm_exec_owner *add_owner(struct vmm_execs *execs, const char *name)
{
    struct vmm_exec_owner *owner = calloc(1, sizeof(*owner));
    if (owner == NULL)
        return NULL;
    snprintf(owner->name, sizeof(owner->name), "%s", name);
    owner->next = execs->owners;
    execs->owners = owner;
    return owner;
}

/* Nobody is kept of whom there is nothing. */
void vmm_exec_owner_unref(struct vmm_execs *execs, struct vmm_exec_owner *owner)
{
    struct vmm_exec_owner **at = &execs->owners;
    if (--owner->refs > 0)
        return;
    while (*at != owner)
        at = &(*at)->next;
    *at = owner->next;
    free(owner);
}

int vmm_exec_owner_begin(struct vmm *vmm, const char *name, struct vmm_exec_owner **ret,
                         struct error *err)
{
    uint32_t most = store_quota_of(vmm->config.store, name).execs;
    struct vmm_exec_owner *owner = find_owner(vmm->execs, name);
    if (most > 0 && owner != NULL && owner->running >= most)
        return error_set(err, ERR_QUOTA, 0, "you have %u commands that run; at most %u at once",
                         owner->running, most);
    if (owner == NULL && (owner = add_owner(vmm->execs, name)) == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a command");
    owner->refs++;
    owner->running++;
    *ret = owner;
    return 0;
}

int vmm_exec_enter(struct vmm *vmm, const char *name, struct vmm_exec_owner **ret,
                   struct error *err)
{
    pthread_mutex_lock(&vmm->execs->lock);
    int result = vmm_exec_owner_begin(vmm, name, ret, err);
    pthread_mutex_unlock(&vmm->execs->lock);
    return result;
}

void vmm_exec_leave(struct vmm *vmm, struct vmm_exec_owner *owner)
{
    pthread_mutex_lock(&vmm->execs->lock);
    owner->running--;
    vmm_exec_owner_unref(vmm->execs, owner);
    pthread_mutex_unlock(&vmm->execs->lock);
}

uint32_t vmm_exec_running(struct vmm *vmm, const char *name)
{
    pthread_mutex_lock(&vmm->execs->lock);
    const struct vmm_exec_owner *owner = find_owner(vmm->execs, name);
    uint32_t running = owner != NULL ? owner->running : 0;
    pthread_mutex_unlock(&vmm->execs->lock);
    return running;
}

/* ---- records ---- */

static bool has_ended(const struct vmm_exec *exec)
{
    return exec->begun && exec->record.state != VMM_EXEC_RUNNING;
}

/* The one that ended first; of that VM, of that owner, or of any. NULL: none has. */
static struct vmm_exec *oldest_ended(const struct vmm_execs *execs, const char *instance,
                                     const struct vmm_exec_owner *owner, bool with_log)
{
    struct vmm_exec *oldest = NULL;
    for (struct vmm_exec *exec = execs->first; exec != NULL; exec = exec->next)
        if (has_ended(exec) && (!with_log || exec->log.memory > 0) &&
            (instance == NULL || strcmp(exec->record.instance, instance) == 0) &&
            (owner == NULL || exec->owner == owner) &&
            (oldest == NULL || exec->record.ended_boot_ms <= oldest->record.ended_boot_ms))
            oldest = exec;
    return oldest;
}

static const struct vmm_exec_owner *who_has_most_records(const struct vmm_execs *execs)
{
    const struct vmm_exec_owner *most = execs->owners;
    for (const struct vmm_exec_owner *owner = most; owner != NULL; owner = owner->next)
        if (owner->listed > most->listed)
            most = owner;
    return most;
}

static unsigned count_of(const struct vmm_execs *execs, const char *instance)
{
    unsigned count = 0;
    for (const struct vmm_exec *exec = execs->first; exec != NULL; exec = exec->next)
        count += strcmp(exec->record.instance, instance) == 0;
    return count;
}

static struct vmm_exec *who_goes(const struct vmm_execs *execs, const char *full_instance)
{
    if (full_instance != NULL)
        return oldest_ended(execs, full_instance, NULL, false);
    struct vmm_exec *old = oldest_ended(execs, NULL, who_has_most_records(execs), false);
    return old != NULL ? old : oldest_ended(execs, NULL, NULL, false);
}

int vmm_exec_make_room(struct vmm_execs *execs, const struct vmm_exec_owner *owner,
                       const char *instance, struct error *err)
{
    if (!share_admits(owner->watched, execs->running, VMM_EXECS_RUNNING_MAX))
        return error_set(err, ERR_BUSY, 0,
                         "as many commands run as may on this host (%d), or as many of yours",
                         VMM_EXECS_RUNNING_MAX);
    bool full_vm = count_of(execs, instance) >= VMM_EXECS_PER_VM;
    if (!full_vm && execs->count < VMM_EXECS_MAX)
        return 0;
    struct vmm_exec *old = who_goes(execs, full_vm ? instance : NULL);
    if (old == NULL)
        return error_set(err, ERR_BUSY, 0, "%d commands run in this VM; no more may",
                         VMM_EXECS_PER_VM);
    vmm_exec_unlist(old);
    return 0;
}

/* ---- output ---- */

static void count_memory(struct vmm_exec *exec, size_t before)
{
    exec->owner->memory += exec->log.memory - before;
    exec->vmm->execs->memory += exec->log.memory - before;
}

bool vmm_exec_forget(struct vmm_exec *exec, size_t memory)
{
    size_t before = exec->log.memory;
    if (memory == 0)
        vmm_exec_log_clear(&exec->log);
    else
        vmm_exec_log_trim(&exec->log, memory);
    count_memory(exec, before);
    exec->record.output_from = exec->log.from;
    return exec->log.memory < before;
}

static const struct vmm_exec_owner *who_has_most_output(const struct vmm_execs *execs)
{
    const struct vmm_exec_owner *most = execs->owners;
    for (const struct vmm_exec_owner *owner = most; owner != NULL; owner = owner->next)
        if (owner->memory > most->memory)
            most = owner;
    return most;
}

/* Of his whose output takes most. NULL: none has any. */
static struct vmm_exec *largest(const struct vmm_execs *execs, const struct vmm_exec_owner *owner)
{
    struct vmm_exec *largest = NULL;
    for (struct vmm_exec *exec = execs->first; exec != NULL; exec = exec->next)
        if (exec->owner == owner && exec->log.memory > (largest != NULL ? largest->log.memory : 0))
            largest = exec;
    return largest;
}

/* The owner with most output loses some: of those that have ended all of the oldest's, else half of his
 * largest. */
static bool forget_some(struct vmm_execs *execs)
{
    const struct vmm_exec_owner *owner = who_has_most_output(execs);
    struct vmm_exec *old = oldest_ended(execs, NULL, owner, true);
    if (old != NULL)
        return vmm_exec_forget(old, 0);
    struct vmm_exec *big = largest(execs, owner);
    return big != NULL && vmm_exec_forget(big, big->log.memory / 2);
}

void vmm_exec_keep(struct vmm_exec *exec, enum wire_kind kind, const uint8_t *data, size_t len)
{
    struct vmm_execs *execs = exec->vmm->execs;
    size_t before = exec->log.memory;
    (void)vmm_exec_log_append(&exec->log, kind, data, len); /* what is lost shows as a gap */
    count_memory(exec, before);
    (void)vmm_exec_forget(exec, VMM_EXEC_LOG_MAX);
    while (execs->memory > VMM_EXEC_LOGS_MAX && forget_some(execs))
        continue;
    exec->record.output_to = exec->log.to;
}
