/* Whether a VM is in use: commands that run in it, and callers who say that they still need it. */
#include "vmm/internal.h"

int vmm_use_find(struct vmm *vmm, const char *owner, const char *id, const char *wish,
                 struct vmm_machine **ret, struct error *err)
{
    struct store_vm row;
    if (store_vm_get(vmm->config.store, owner, id, &row, err) < 0)
        return -1;
    if (row.state != STORE_RUNNING && row.state != STORE_PAUSED)
        return error_set(err, ERR_VM_NOT_RUNNING, 0, "the VM is %s; %s",
                         store_state_name(row.state), wish);
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

/* Both locks; not while it is frozen, if a command is to begin. */
static void lock_use(struct vmm *vmm, struct vmm_machine *machine, bool begins)
{
    pthread_mutex_lock(&machine->use_lock);
    pthread_mutex_lock(&vmm->lock);
    while (begins && machine->frozen) {
        pthread_mutex_unlock(&machine->use_lock);
        pthread_cond_wait(&vmm->changed, &vmm->lock);
        pthread_mutex_unlock(&vmm->lock); /* always in that order */
        pthread_mutex_lock(&machine->use_lock);
        pthread_mutex_lock(&vmm->lock);
    }
}

/* One more command, or one less. The first and the last are told to the store, so that a restart
 * does not make an idle VM busy or a busy one idle. Not being able to is no reason to refuse a
 * command: what is held here decides. */
static void change(struct vmm *vmm, struct vmm_machine *machine, int by)
{
    struct error ignored = {0};
    lock_use(vmm, machine, by > 0);
    bool told = by > 0 ? machine->commands == 0 : machine->commands == 1;
    machine->commands += (unsigned)by;
    if (told)
        machine->idle_since_boot_ms = by > 0 ? 0 : clock_boot_ms();
    int64_t since = machine->idle_since_boot_ms;
    pthread_mutex_unlock(&vmm->lock);
    if (told && machine->idle_ms > 0)
        (void)store_vm_idle(vmm->config.store, machine->instance, since, &ignored);
    pthread_mutex_unlock(&machine->use_lock);
}

void vmm_use_begin(struct vmm *vmm, struct vmm_machine *machine)
{
    change(vmm, machine, 1);
}

void vmm_use_end(struct vmm *vmm, struct vmm_machine *machine)
{
    change(vmm, machine, -1);
}

/* False when it is about to end all the same. */
static bool follow(struct vmm *vmm, struct vmm_machine *machine, const struct store_vm *row)
{
    pthread_mutex_lock(&vmm->lock);
    bool stays = machine->phase == VMM_UP && !machine->doomed && !machine->overdue;
    machine->expires_boot_ms = row->expires_boot_ms;
    if (machine->commands == 0)
        machine->idle_since_boot_ms = row->idle_since_boot_ms;
    pthread_mutex_unlock(&vmm->lock);
    return stays;
}

/* How long a VM lives, first in its row, then in its machine. */
struct life {
    const char *owner, *id;
    int64_t ttl_s;                   /* of a keepalive, or */
    const struct store_patch *patch; /* NULL: none */
};

static int write_row(struct store *store, const struct life *life, struct store_vm *ret,
                     struct error *err)
{
    int64_t now = clock_boot_ms();
    return life->patch != NULL
               ? store_vm_patch(store, life->owner, life->id, life->patch, now, ret, err)
               : store_vm_keepalive(store, life->owner, life->id, life->ttl_s, now, ret, err);
}

static int set_life(struct vmm *vmm, const struct life *life, struct store_vm *ret,
                    struct error *err)
{
    struct store_vm row;
    if (store_vm_get(vmm->config.store, life->owner, life->id, &row, err) < 0)
        return -1;
    if (row.state != STORE_RUNNING && row.state != STORE_PAUSED)
        return error_set(err, ERR_VM_NOT_RUNNING, 0,
                         "the VM is %s; only the life of one that runs or is paused can be changed",
                         store_state_name(row.state));
    struct vmm_machine *machine = vmm_machine_find(vmm, row.instance);
    if (machine == NULL)
        return error_set(err, ERR_VM_NOT_RUNNING, 0, "the VM has just ended");
    vmm_machine_settle(vmm, machine); /* the row says `running` a moment before the machine */
    pthread_mutex_lock(&machine->use_lock);
    int result = write_row(vmm->config.store, life, ret, err);
    if (result == 0 && (strcmp(ret->instance, row.instance) != 0 || !follow(vmm, machine, ret)))
        result = error_set(err, ERR_VM_NOT_RUNNING, 0, "the VM is just ending");
    pthread_mutex_unlock(&machine->use_lock);
    vmm_machine_unref(vmm, machine);
    return result;
}

int vmm_keepalive(struct vmm *vmm, const char *owner, const char *id, int64_t ttl_s,
                  struct store_vm *ret, struct error *err)
{
    const struct life life = {.owner = owner, .id = id, .ttl_s = ttl_s};
    return set_life(vmm, &life, ret, err);
}

int vmm_patch(struct vmm *vmm, const char *owner, const char *id, const struct store_patch *patch,
              struct store_vm *ret, struct error *err)
{
    const struct life life = {.owner = owner, .id = id, .patch = patch};
    return set_life(vmm, &life, ret, err);
}

int vmm_usage(struct vmm *vmm, const char *owner, const char *id, struct priv_usage *ret,
              struct error *err)
{
    struct vmm_machine *machine = NULL;
    if (vmm_use_find(vmm, owner, id, "only one that runs or is paused takes anything", &machine,
                     err) < 0)
        return -1;
    int result = priv_usage(vmm->config.priv, machine->instance, ret, err);
    bool gone = result < 0 && vmm_machine_gone(machine);
    vmm_machine_unref(vmm, machine);
    if (!gone)
        return result;
    *err = (struct error){0};
    return error_set(err, ERR_VM_NOT_RUNNING, 0, "the VM has just ended");
}
