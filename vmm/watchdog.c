/* The watchdog: asks every VM now and then whether its VMM answers, and its agent. A VMM that hangs
 * is killed; what becomes of a VM whose agent hangs is the caller's choice, on_unresponsive. Some
 * threads share the work, so that those who wait for one that hangs keep the others not long. */
#include "vmm/internal.h"

#include <time.h>

enum {
    MISSES = 3,      /* in a row */
    PERIOD = 5,      /* answer timeouts from one question to the next */
    PERIODS_MAX = 6, /* for an agent that hangs: each time twice as long, to this many periods */
};

int64_t vmm_watchdog_period_ms(const struct vmm *vmm)
{
    return (int64_t)PERIOD * vmm->config.answer_timeout_ms;
}

/* Nothing is known that is not in the store: what cannot be written is found again. */
static void set_agent(struct vmm *vmm, struct vmm_machine *machine, enum store_agent agent)
{
    const struct vmm_observer *observer = &vmm->config.observer;
    struct error ignored = {0};
    pthread_mutex_lock(&machine->use_lock);
    enum store_agent before = machine->agent;
    if (before != agent &&
        store_vm_agent(vmm->config.store, machine->instance, agent, &ignored) == 0) {
        machine->agent = agent;
        if (agent == STORE_AGENT_UNRESPONSIVE) {
            vmm_audit_word(vmm, machine->instance, STORE_AUDIT_UNRESPONSIVE, "what", "agent");
            observer->unresponsive(observer->context, "agent");
        } else if (before == STORE_AGENT_UNRESPONSIVE) {
            vmm_audit_word(vmm, machine->instance, STORE_AUDIT_RESPONSIVE, "what", "agent");
        }
    }
    pthread_mutex_unlock(&machine->use_lock);
}

/* When that fails the reaper goes on. */
static void end(struct vmm *vmm, const struct vmm_machine *machine, const char *who,
                const struct error *last)
{
    struct error ignored = {0};
    char message[ERROR_MESSAGE_MAX];
    snprintf(message, sizeof(message), "%s did not answer %d times in a row (last: %.160s)", who,
             MISSES, last->msg);
    struct vmm_verdict verdict = vmm_verdict(STORE_EXITED, "unresponsive", message);
    (void)vmm_end(vmm, machine->instance, &verdict, &ignored);
}

static void miss_vmm(struct vmm *vmm, struct vmm_machine *machine, const struct error *err)
{
    const struct vmm_observer *observer = &vmm->config.observer;
    if (vmm_machine_gone_after(machine, err) || ++machine->vmm_misses < MISSES)
        return;
    vmm_audit_word(vmm, machine->instance, STORE_AUDIT_UNRESPONSIVE, "what", "vmm");
    observer->unresponsive(observer->context, "vmm");
    end(vmm, machine, "its VMM", err);
}

static int ask_agent(struct vmm *vmm, struct vmm_machine *machine, struct error *err)
{
    struct vsock_conn *conn = NULL;
    struct vsock_hello hello;
    unsigned port = 0;
    int64_t deadline = clock_mono_ms() + vmm->config.answer_timeout_ms;
    if (vmm->hypervisor->connect(vmm, machine, deadline, &conn, &port, err) < 0)
        return err->code == ERR_BUSY ? 0 : -1; /* all its channels have commands */
    int result = vsock_hello_ask(conn, machine->instance, deadline, &hello, err);
    vmm->hypervisor->disconnect(vmm, machine, conn, port);
    return result;
}

static void miss_agent(struct vmm *vmm, struct vmm_machine *machine, const struct error *err)
{
    if (vmm_machine_gone_after(machine, err))
        return;
    if (machine->agent_misses == 0 && err->code == ERR_GUEST_PROTOCOL)
        vmm_audit_word(vmm, machine->instance, STORE_AUDIT_GUEST_PROTOCOL, "during", "watch");
    if (++machine->agent_misses < MISSES)
        return;
    set_agent(vmm, machine, STORE_AGENT_UNRESPONSIVE);
    if (machine->on_unresponsive == STORE_DELETE)
        end(vmm, machine, "its agent", err);
}

/* Returns when to ask again, after a question that began at `begin_ms`. */
static int64_t again(const struct vmm *vmm, const struct vmm_machine *machine, int64_t begin_ms)
{
    int64_t periods = 1;
    if (machine->vmm_misses > 0 || (machine->agent_misses > 0 && machine->agent_misses < MISSES))
        return begin_ms + vmm->config.answer_timeout_ms;
    for (unsigned i = MISSES; i < machine->agent_misses && periods < PERIODS_MAX; i++)
        periods *= 2;
    return begin_ms + (periods < PERIODS_MAX ? periods : PERIODS_MAX) * vmm_watchdog_period_ms(vmm);
}

/* `changes`: the machine's, before. A VMM that stops its guest's processors answers nobody meanwhile,
 * and a guest that is paused cannot answer. */
static void ask(struct vmm *vmm, struct vmm_machine *machine, unsigned changes)
{
    struct error err = {0};
    bool paused = false;
    if (vmm->hypervisor->alive(machine, vmm->config.answer_timeout_ms, &paused, &err) < 0) {
        if (!vmm_pause_since(vmm, machine, changes))
            miss_vmm(vmm, machine, &err);
        return;
    }
    machine->vmm_misses = 0;
    vmm_pause_follow(vmm, machine, paused);
    if (paused) {
        machine->agent_misses = 0;
        return;
    }
    if (ask_agent(vmm, machine, &err) < 0) {
        if (!vmm_pause_since(vmm, machine, changes))
            miss_agent(vmm, machine, &err);
        return;
    }
    machine->agent_misses = 0;
    set_agent(vmm, machine, STORE_AGENT_RESPONSIVE);
}

/* While it is being paused its VMM has other things to do. */
static bool askable(const struct vmm_machine *machine)
{
    return machine->phase == VMM_UP && !machine->doomed && !machine->asked &&
           machine->changes % 2 == 0;
}

/* The one that has waited longest, or NULL and how long there is nobody. The table's lock is held. */
static struct vmm_machine *next(const struct vmm *vmm, int64_t *ret_wait_ms)
{
    struct vmm_machine *first = NULL;
    int64_t now = clock_mono_ms();
    for (struct vmm_machine *m = vmm->machines; m != NULL && vmm->recovered; m = m->next)
        if (askable(m) && (first == NULL || m->ask_ms < first->ask_ms))
            first = m;
    if (first != NULL && first->ask_ms <= now)
        return first;
    *ret_wait_ms = first != NULL ? first->ask_ms - now : vmm_watchdog_period_ms(vmm);
    return NULL;
}

static void wait_for(struct vmm *vmm, int64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(&vmm->changed, &vmm->lock, &until);
}

static void *watcher_main(void *context)
{
    struct vmm *vmm = context;
    pthread_mutex_lock(&vmm->lock);
    while (!vmm->stopping) {
        int64_t wait_ms = 0;
        struct vmm_machine *machine = next(vmm, &wait_ms);
        if (machine == NULL) {
            wait_for(vmm, wait_ms);
            continue;
        }
        unsigned changes = machine->changes;
        machine->asked = true;
        machine->refs++;
        pthread_mutex_unlock(&vmm->lock);
        int64_t begin = clock_mono_ms();
        ask(vmm, machine, changes);
        pthread_mutex_lock(&vmm->lock);
        machine->asked = false;
        machine->ask_ms = again(vmm, machine, begin);
        pthread_mutex_unlock(&vmm->lock);
        vmm_machine_unref(vmm, machine);
        pthread_mutex_lock(&vmm->lock);
    }
    pthread_mutex_unlock(&vmm->lock);
    return NULL;
}

void vmm_watchdog_suspect(struct vmm *vmm, struct vmm_machine *machine)
{
    set_agent(vmm, machine, STORE_AGENT_UNRESPONSIVE);
    pthread_mutex_lock(&vmm->lock);
    machine->ask_ms = clock_mono_ms();
    pthread_cond_broadcast(&vmm->changed);
    pthread_mutex_unlock(&vmm->lock);
}

int vmm_watchdog_start(struct vmm *vmm, struct error *err)
{
    while (vmm->watcher_count < VMM_WATCHERS) {
        int sys = pthread_create(&vmm->watchers[vmm->watcher_count], NULL, watcher_main, vmm);
        if (sys != 0)
            return error_set(err, ERR_SYSTEM, sys, "starting the watchdog");
        vmm->watcher_count++;
    }
    return 0;
}

void vmm_watchdog_stop(struct vmm *vmm)
{
    while (vmm->watcher_count > 0)
        pthread_join(vmm->watchers[--vmm->watcher_count], NULL);
}
