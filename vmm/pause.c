/* Pausing a VM and letting it go on. What its VMM says is the truth; the machine and the row follow
 * it. One thread at a time changes a machine. Only who wants to change it too waits for that one: a
 * delete kills the VMM under it. */
#include "vmm/internal.h"

#include <time.h>

/* Waits for one who is at it, but not for a VMM that hangs. */
static int begin(struct vmm *vmm, struct vmm_machine *machine, int wait_ms, struct error *err)
{
    int64_t deadline = clock_mono_ms() + wait_ms;
    const struct timespec until = {.tv_sec = deadline / 1000, .tv_nsec = deadline % 1000 * 1000000};
    int timed_out = wait_ms == 0;
    pthread_mutex_lock(&vmm->lock);
    while (machine->pausing && !timed_out)
        timed_out = pthread_cond_timedwait(&vmm->changed, &vmm->lock, &until);
    bool busy = machine->pausing, up = machine->phase == VMM_UP && !machine->doomed;
    machine->pausing = busy || up;
    pthread_mutex_unlock(&vmm->lock);
    if (!up)
        return error_set(err, ERR_VM_NOT_RUNNING, 0, "the VM is just ending");
    if (busy)
        return error_set(err, ERR_BUSY, 0,
                         "another request is just pausing or resuming the VM; try again later");
    return 0;
}

static void end(struct vmm *vmm, struct vmm_machine *machine)
{
    pthread_mutex_lock(&vmm->lock);
    machine->pausing = false;
    pthread_cond_broadcast(&vmm->changed);
    pthread_mutex_unlock(&vmm->lock);
}

/* The VMM has said it. Where the row cannot be written the watchdog tries again. */
static int follow(struct vmm *vmm, struct vmm_machine *machine, bool paused, struct store_vm *ret,
                  struct error *err)
{
    pthread_mutex_lock(&machine->use_lock); /* the row's idleness is that of the machine */
    int result =
        store_vm_paused(vmm->config.store, machine->instance, paused, clock_boot_ms(), ret, err);
    pthread_mutex_lock(&vmm->lock);
    machine->changes += machine->paused != paused ? 2 : 0;
    machine->paused = paused;
    machine->unsure = result < 0 || machine->owed != VMM_OWED_NOTHING;
    if (result == 0 && machine->commands == 0)
        machine->idle_since_boot_ms = ret->idle_since_boot_ms;
    pthread_mutex_unlock(&vmm->lock);
    pthread_mutex_unlock(&machine->use_lock);
    return result;
}

/* Firecracker has told the guest that all its connections are gone. The next one is made when it has
 * taken note of that: commands shall not lose theirs. */
static void greet(struct vmm *vmm, struct vmm_machine *machine)
{
    int64_t deadline = clock_mono_ms() + VMM_CONNECT_TIMEOUT_MS;
    struct error err = {0};
    do {
        struct vsock_conn *conn = NULL;
        struct vsock_hello hello;
        unsigned port = 0;
        err = (struct error){0};
        if (vmm->hypervisor->connect(vmm, machine, deadline, &conn, &port, &err) < 0)
            return;
        (void)vsock_hello_ask(conn, machine->instance, deadline, &hello, &err);
        vmm->hypervisor->disconnect(vmm, machine, conn, port);
    } while (err.code == ERR_GUEST_CLOSED && clock_mono_ms() < deadline);
}

/* Takes over what is owed: the caller has to do it, or owe it again. */
static enum vmm_owed take_owed(struct vmm *vmm, struct vmm_machine *machine)
{
    pthread_mutex_lock(&vmm->lock);
    enum vmm_owed owed = machine->owed;
    machine->owed = VMM_OWED_NOTHING;
    pthread_mutex_unlock(&vmm->lock);
    return owed;
}

/* Its VMM has said whether it is paused. */
static int pay(struct vmm *vmm, struct vmm_machine *machine, bool *paused, struct error *err)
{
    struct error ignored = {0}; /* asked again the next time */
    enum vmm_owed owed = take_owed(vmm, machine);
    if (owed == VMM_OWED_THAW && *paused) {
        if (vmm->hypervisor->resume(machine, vmm->config.answer_timeout_ms, err) < 0) {
            vmm_pause_owe(vmm, machine, owed);
            return -1;
        }
        *paused = false;
        greet(vmm, machine);
    }
    if (owed != VMM_OWED_NOTHING &&
        store_snapshot_abandon(vmm->config.store, machine->instance, &ignored) < 0)
        vmm_pause_owe(vmm, machine, VMM_OWED_INTENT);
    return 0;
}

void vmm_pause_owe(struct vmm *vmm, struct vmm_machine *machine, enum vmm_owed owed)
{
    pthread_mutex_lock(&vmm->lock);
    machine->owed = owed;
    machine->unsure = true;
    pthread_mutex_unlock(&vmm->lock);
}

static int look(struct vmm *vmm, struct vmm_machine *machine, struct error *err)
{
    struct store_vm row;
    bool paused = false;
    int result = vmm->hypervisor->alive(machine, vmm->config.answer_timeout_ms, &paused, err);
    if (result == 0)
        result = pay(vmm, machine, &paused, err);
    if (result == 0)
        return follow(vmm, machine, paused, &row, err);
    pthread_mutex_lock(&vmm->lock);
    machine->unsure = true;
    pthread_mutex_unlock(&vmm->lock);
    return -1;
}

static bool is_unsure(struct vmm *vmm, const struct vmm_machine *machine)
{
    pthread_mutex_lock(&vmm->lock);
    bool unsure = machine->unsure;
    pthread_mutex_unlock(&vmm->lock);
    return unsure;
}

void vmm_pause_settle(struct vmm *vmm, struct vmm_machine *machine)
{
    struct error ignored = {0}; /* the row's word will do */
    if (!is_unsure(vmm, machine) ||
        begin(vmm, machine, vmm->config.answer_timeout_ms, &ignored) < 0)
        return;
    (void)look(vmm, machine, &ignored);
    end(vmm, machine);
}

int vmm_pause_refuse(struct vmm *vmm, struct vmm_machine *machine, unsigned *ret_changes,
                     struct error *err)
{
    vmm_pause_settle(vmm, machine);
    pthread_mutex_lock(&vmm->lock);
    bool paused = machine->paused;
    *ret_changes = machine->changes;
    pthread_mutex_unlock(&vmm->lock);
    return paused ? error_set(err, ERR_VM_PAUSED, 0, "the VM is paused; no command can run in it")
                  : 0;
}

bool vmm_pause_since(struct vmm *vmm, const struct vmm_machine *machine, unsigned changes)
{
    pthread_mutex_lock(&vmm->lock);
    bool since = machine->changes != changes || machine->changes % 2 == 1 ||
                 (machine->owed == VMM_OWED_THAW && clock_mono_ms() < machine->patience_ms);
    pthread_mutex_unlock(&vmm->lock);
    return since;
}

void vmm_pause_follow(struct vmm *vmm, struct vmm_machine *machine, bool paused)
{
    struct error ignored = {0}; /* asked again the next time */
    pthread_mutex_lock(&vmm->lock);
    bool news = machine->unsure || machine->paused != paused;
    pthread_mutex_unlock(&vmm->lock);
    if (!news || begin(vmm, machine, 0, &ignored) < 0)
        return;
    (void)look(vmm, machine, &ignored); /* what was said before may not be true any more */
    end(vmm, machine);
}

/* Where its guest, which goes on, has yet to hear that its connections are gone. */
static void greet_if_cut(struct vmm *vmm, struct vmm_machine *machine)
{
    pthread_mutex_lock(&vmm->lock);
    bool cut = machine->cut;
    machine->cut = false;
    pthread_mutex_unlock(&vmm->lock);
    if (cut)
        greet(vmm, machine);
}

/* It is left as it was, whatever its processors do: Firecracker may have stopped some of them. */
static void undo(struct vmm *vmm, struct vmm_machine *machine, bool was_paused)
{
    const struct vmm_hypervisor *hypervisor = vmm->hypervisor;
    struct error ignored = {0};
    if (vmm_machine_gone(machine))
        return;
    (void)(was_paused ? hypervisor->pause
                      : hypervisor->resume)(machine, vmm->config.answer_timeout_ms, &ignored);
    ignored = (struct error){0};
    if (look(vmm, machine, &ignored) == 0 && !machine->paused) /* which we alone change */
        greet_if_cut(vmm, machine);
}

/* Who asks it meanwhile knows that its silence means nothing. Returns whether it is paused. */
static bool count_change(struct vmm *vmm, struct vmm_machine *machine)
{
    pthread_mutex_lock(&vmm->lock);
    machine->changes++;
    bool paused = machine->paused;
    pthread_mutex_unlock(&vmm->lock);
    return paused;
}

/* `machine` is ours to change. */
static int change(struct vmm *vmm, struct vmm_machine *machine, bool pause, struct store_vm *ret,
                  struct error *err)
{
    const struct vmm_hypervisor *hypervisor = vmm->hypervisor;
    if (is_unsure(vmm, machine) && look(vmm, machine, err) < 0)
        return -1;
    bool was_paused = count_change(vmm, machine);
    int result =
        (pause ? hypervisor->pause : hypervisor->resume)(machine, vmm->pause_timeout_ms, err);
    if (result == 0 && !pause)
        greet_if_cut(vmm, machine);
    if (result == 0)
        result = follow(vmm, machine, pause, ret, err);
    if (result < 0)
        undo(vmm, machine, was_paused);
    (void)count_change(vmm, machine);
    return result;
}

static int set(struct vmm *vmm, const char *owner, const char *id, bool pause, struct store_vm *ret,
               struct error *err)
{
    struct vmm_machine *machine = NULL;
    const char *wish = pause ? "only a running one can be paused" : "only a paused one can go on";
    if (vmm_use_find(vmm, owner, id, wish, &machine, err) < 0)
        return -1;
    int result = begin(vmm, machine, vmm->config.answer_timeout_ms, err);
    if (result == 0) {
        result = change(vmm, machine, pause, ret, err);
        end(vmm, machine);
    }
    if (result < 0 && vmm_machine_gone_after(machine, err)) {
        *err = (struct error){0};
        error_set(err, ERR_VM_GONE, 0, "the VM ended while it was being %s",
                  pause ? "paused" : "resumed");
    }
    vmm_machine_unref(vmm, machine);
    return result;
}

/* From here on commands wait; a keepalive does not, nor does what the watchdog has to write. */
static int hold_commands(struct vmm *vmm, struct vmm_machine *machine, struct error *err)
{
    pthread_mutex_lock(&vmm->lock);
    unsigned commands = machine->commands;
    machine->frozen = commands == 0;
    pthread_mutex_unlock(&vmm->lock);
    if (commands == 0)
        return 0;
    return error_set(err, ERR_BUSY, 0,
                     "%u commands run in the VM, and would be cut off; try again when they have "
                     "ended",
                     commands);
}

static void release_commands(struct vmm *vmm, struct vmm_machine *machine)
{
    pthread_mutex_lock(&vmm->lock);
    machine->frozen = false;
    pthread_cond_broadcast(&vmm->changed);
    pthread_mutex_unlock(&vmm->lock);
}

/* The row keeps its word: it and the intent to make a snapshot say what has to be so afterwards. */
int vmm_pause_freeze(struct vmm *vmm, struct vmm_machine *machine, bool *ret_ran, struct error *err)
{
    if (begin(vmm, machine, vmm->config.answer_timeout_ms, err) < 0)
        return -1;
    int result = is_unsure(vmm, machine) ? look(vmm, machine, err) : 0;
    if (result == 0)
        result = hold_commands(vmm, machine, err);
    if (result == 0) {
        *ret_ran = !count_change(vmm, machine);
        if (!*ret_ran || vmm->hypervisor->pause(machine, vmm->pause_timeout_ms, err) == 0)
            return 0;
        undo(vmm, machine, false);
        (void)count_change(vmm, machine);
        release_commands(vmm, machine);
    }
    end(vmm, machine);
    return -1;
}

int vmm_pause_thaw(struct vmm *vmm, struct vmm_machine *machine, bool ran, struct error *err)
{
    int result = ran ? vmm->hypervisor->resume(machine, vmm->pause_timeout_ms, err) : 0;
    if (ran && result == 0)
        greet(vmm, machine);
    pthread_mutex_lock(&vmm->lock);
    machine->cut |= !ran || result < 0;
    pthread_mutex_unlock(&vmm->lock);
    if (result < 0)
        undo(vmm, machine, false);
    (void)count_change(vmm, machine);
    release_commands(vmm, machine);
    end(vmm, machine);
    return result;
}

int vmm_pause(struct vmm *vmm, const char *owner, const char *id, struct store_vm *ret,
              struct error *err)
{
    return set(vmm, owner, id, true, ret, err);
}

int vmm_resume(struct vmm *vmm, const char *owner, const char *id, struct store_vm *ret,
               struct error *err)
{
    return set(vmm, owner, id, false, ret, err);
}
