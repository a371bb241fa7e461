/* What a VM's guest and its VMM wrote last, while it lives; afterwards its certificate has it. And what
 * they write, for those who follow. */
#include "vmm/internal.h"

/* A reference. */
static struct vmm_machine *attached(struct vmm *vmm, const char *owner, const char *id,
                                    struct error *err)
{
    struct store_vm row;
    if (store_vm_get(vmm->config.store, owner, id, &row, err) < 0)
        return NULL;
    bool lives = row.state == STORE_RUNNING || row.state == STORE_PAUSED;
    struct vmm_machine *machine = lives ? vmm_machine_find(vmm, row.instance) : NULL;
    if (machine == NULL)
        error_set(err, ERR_VM_NOT_RUNNING, 0,
                  "the VM is %s; only one that runs or is paused has a console",
                  store_state_name(row.state));
    return machine;
}

int vmm_console(struct vmm *vmm, const char *owner, const char *id, struct vmm_console *ret,
                struct error *err)
{
    struct vmm_machine *machine = attached(vmm, owner, id, err);
    if (machine == NULL)
        return -1;
    memcpy(ret->instance, machine->instance, ID_INSTANCE_SIZE);
    ret->len = vmm_machine_tail(machine, ret->text, sizeof(ret->text));
    vmm_machine_unref(vmm, machine);
    return 0;
}

/* ---- follow ---- */

struct vmm_follower {
    struct vmm *vmm;
    struct vmm_machine *machine; /* a reference */
};

/* With the tail's lock held. */
static int begin(struct vmm_machine *machine, struct vmm_followed *ret, struct error *err)
{
    char name[ID_INSTANCE_SIZE];
    if (!ring_grow(machine->tail, VMM_CONSOLE_FOLLOWED))
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a VM's console");
    if (machine->run[0] == '\0') {
        if (id_instance_make(name, err) < 0)
            return -1;
        memcpy(machine->run, name, sizeof(machine->run) - 1);
    }
    memcpy(ret->run, machine->run, sizeof(ret->run));
    memcpy(ret->instance, machine->instance, sizeof(ret->instance));
    ret->to = ring_end(machine->tail);
    return 0;
}

int vmm_console_follow(struct vmm *vmm, const char *owner, const char *id,
                       struct vmm_follower **ret, struct vmm_followed *ret_info, struct error *err)
{
    struct vmm_machine *machine = attached(vmm, owner, id, err);
    if (machine == NULL)
        return -1;
    struct vmm_follower *follower = calloc(1, sizeof(*follower));
    int result =
        follower == NULL ? error_set(err, ERR_NO_MEMORY, 0, "out of memory for a VM's console") : 0;
    vmm_machine_drain(machine);
    pthread_mutex_lock(&machine->tail_lock);
    if (result == 0)
        result = begin(machine, ret_info, err);
    pthread_mutex_unlock(&machine->tail_lock);
    if (result < 0) {
        free(follower);
        vmm_machine_unref(vmm, machine);
        return -1;
    }
    *follower = (struct vmm_follower){.vmm = vmm, .machine = machine};
    *ret = follower;
    return 0;
}

enum vmm_console_news vmm_console_read(struct vmm_follower *follower, uint64_t *at, char *out,
                                       size_t size, size_t *ret_len,
                                       struct vmm_console_end *ret_end, struct waker *waker)
{
    struct vmm_machine *machine = follower->machine;
    uint64_t from = *at;
    enum vmm_console_news news = VMM_CONSOLE_NOTHING;
    pthread_mutex_lock(&machine->tail_lock);
    *ret_len = ring_read_on(machine->tail, at, out, size);
    if (*ret_len > 0) {
        news = VMM_CONSOLE_BYTES;
    } else if (*at != from) {
        news = VMM_CONSOLE_GAP;
    } else if (machine->end.state != 0) {
        *ret_end = machine->end;
        news = VMM_CONSOLE_END;
    } else {
        waker_add(&machine->followers, waker);
    }
    pthread_mutex_unlock(&machine->tail_lock);
    return news;
}

void vmm_console_unfollow(struct vmm_follower *follower, struct waker *waker)
{
    struct vmm_machine *machine = follower->machine;
    pthread_mutex_lock(&machine->tail_lock);
    if (waker != NULL)
        waker_remove(waker);
    pthread_mutex_unlock(&machine->tail_lock);
    vmm_machine_unref(follower->vmm, machine);
    free(follower);
}

void vmm_console_over(struct vmm_machine *machine, const struct vmm_verdict *verdict)
{
    pthread_mutex_lock(&machine->tail_lock);
    machine->end.state = verdict->state;
    memcpy(machine->end.reason, verdict->reason, sizeof(machine->end.reason));
    memcpy(machine->end.message, verdict->message, sizeof(machine->end.message));
    waker_wake_all(&machine->followers);
    pthread_mutex_unlock(&machine->tail_lock);
}
