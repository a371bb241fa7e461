/* Two threads that watch. The monitor never blocks: it drains consoles and tells the reaper who
 * exited. The reaper does what may take a moment: ends exited, expired and idle VMs, asks the root
 * half how the host is. */
#include "vmm/pool.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

enum { WAKE = 0 }; /* no machine's serial */

/* By serial, not by descriptor: between an event and its handling the machine may have gone and its
 * descriptors' numbers may be another's. */
static struct vmm_machine *find(struct vmm *vmm, uint64_t serial)
{
    pthread_mutex_lock(&vmm->lock);
    struct vmm_machine *machine = vmm->machines;
    while (machine != NULL && machine->serial != serial)
        machine = machine->next;
    if (machine != NULL)
        machine->refs++;
    pthread_mutex_unlock(&vmm->lock);
    return machine;
}

static void on_event(struct vmm *vmm, const struct epoll_event *event)
{
    struct vmm_machine *machine = find(vmm, event->data.u64);
    if (machine == NULL)
        return;
    vmm_machine_drain(machine);
    vmm_machine_unwatch_ended(vmm, machine);
    if (vmm_machine_exited(machine)) { /* told once; `gone` keeps the fact */
        epoll_ctl(vmm->watch, EPOLL_CTL_DEL, machine->pidfd, NULL);
        pthread_mutex_lock(&vmm->lock);
        pthread_cond_broadcast(&vmm->changed);
        pthread_mutex_unlock(&vmm->lock);
    }
    vmm_machine_unref(vmm, machine);
}

static void *monitor_main(void *context)
{
    struct vmm *vmm = context;
    for (;;) {
        struct epoll_event events[64];
        int n = epoll_wait(vmm->watch, events, COUNT_OF(events), -1);
        if (n < 0 && errno != EINTR)
            return NULL;
        for (int i = 0; i < n; i++) {
            if (events[i].data.u64 == WAKE)
                return NULL;
            on_event(vmm, &events[i]);
        }
    }
}

struct ended {
    char instance[ID_INSTANCE_SIZE];
    struct vmm_verdict verdict;
};

static bool evicted(const struct vmm *vmm, int64_t boot_ms)
{
    return vmm->evict_boot_ms != 0 && boot_ms >= vmm->evict_boot_ms;
}

static bool expired(const struct vmm_machine *machine, int64_t boot_ms)
{
    return boot_ms >= machine->expires_boot_ms;
}

static bool idle(const struct vmm_machine *machine, int64_t boot_ms)
{
    return machine->idle_ms > 0 && machine->commands == 0 && !machine->paused &&
           boot_ms >= machine->idle_since_boot_ms + machine->idle_ms;
}

/* Should it end now? Half undone, its time or a drain's up, or its VMM gone. */
static bool due(const struct vmm *vmm, const struct vmm_machine *machine, int64_t now_ms,
                int64_t boot_ms)
{
    if (machine->phase != VMM_UP)
        return false;
    if (machine->doomed)
        return now_ms >= machine->retry_ms;
    return expired(machine, boot_ms) || idle(machine, boot_ms) || evicted(vmm, boot_ms) ||
           vmm_machine_exited(machine);
}

static struct vmm_verdict why(const struct vmm *vmm, const struct vmm_machine *machine,
                              int64_t boot_ms)
{
    if (expired(machine, boot_ms))
        return vmm_verdict(STORE_EXITED, "ttl", "its ttl_s was over");
    if (idle(machine, boot_ms))
        return vmm_verdict(STORE_EXITED, "idle", "no command ran in it for idle.after_s");
    if (evicted(vmm, boot_ms) && !vmm_machine_exited(machine))
        return vmm_verdict(STORE_EXITED, "drained", "an administrator drained the host");
    return vmm_verdict(STORE_EXITED, "", "");
}

/* The next VM to end: those that failed before come last, so that one which cannot be ended keeps
 * nobody waiting. The table's lock is held. */
static bool next_ended(struct vmm *vmm, struct ended *ret)
{
    int64_t now = clock_mono_ms(), boot = clock_boot_ms();
    struct vmm_machine *first = NULL;
    for (struct vmm_machine *m = vmm->machines; m != NULL; m = m->next)
        if ((first == NULL || m->retry_ms < first->retry_ms) && due(vmm, m, now, boot))
            first = m;
    if (first == NULL)
        return false;
    memcpy(ret->instance, first->instance, sizeof(ret->instance));
    ret->verdict = why(vmm, first, boot);
    first->overdue = true;
    return true;
}

static void refresh_drain(struct vmm *vmm)
{
    struct store_cordon cordon;
    struct error err = {0};
    if (store_cordon_get(vmm->config.store, &cordon, &err) < 0)
        return; /* asked again in a second */
    pthread_mutex_lock(&vmm->lock);
    vmm->evict_boot_ms = cordon.drain_boot_ms;
    if (vmm->cordoned != cordon.set)
        vmm_pool_news(vmm);
    vmm->cordoned = cordon.set;
    pthread_mutex_unlock(&vmm->lock);
}

/* A drain may have been lifted since it was last looked at: then nobody is ended for it. */
static bool spare(struct vmm *vmm, const struct ended *ended)
{
    struct vmm_machine *machine = vmm_machine_find(vmm, ended->instance);
    refresh_drain(vmm);
    pthread_mutex_lock(&vmm->lock);
    bool spared = machine != NULL && !evicted(vmm, clock_boot_ms());
    if (spared)
        machine->overdue = false;
    pthread_mutex_unlock(&vmm->lock);
    vmm_machine_unref(vmm, machine);
    return spared;
}

/* What fails is due again a little later. */
static void end_one(struct vmm *vmm, const struct ended *ended)
{
    struct error err = {0};
    if (strcmp(ended->verdict.reason, "drained") != 0 || !spare(vmm, ended))
        (void)vmm_end(vmm, ended->instance, &ended->verdict, &err);
}

static void refresh_host(struct vmm *vmm)
{
    struct priv_host host;
    struct error err = {0};
    if (priv_host(vmm->config.priv, &host, &err) < 0)
        return; /* the root half is lost: the program ends for that elsewhere */
    pthread_mutex_lock(&vmm->lock);
    vmm->host = host;
    pthread_mutex_unlock(&vmm->lock);
}

static void pause_reaper(struct vmm *vmm)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += 1;
    pthread_cond_timedwait(&vmm->changed, &vmm->lock, &until);
}

static void *reaper_main(void *context)
{
    struct vmm *vmm = context;
    int64_t refresh_at = 0, sweep_at = 0;
    pthread_mutex_lock(&vmm->lock);
    while (!vmm->stopping) {
        struct ended ended;
        bool found = next_ended(vmm, &ended), refresh = clock_mono_ms() >= refresh_at;
        bool sweep = vmm->recovered && clock_mono_ms() >= sweep_at;
        if (found || refresh || sweep) {
            pthread_mutex_unlock(&vmm->lock);
            if (found)
                end_one(vmm, &ended);
            if (refresh) {
                refresh_host(vmm);
                refresh_drain(vmm);
                refresh_at = clock_mono_ms() + 1000;
            }
            if (sweep) {
                vmm_sweep(vmm);
                sweep_at = clock_mono_ms() + VMM_SWEEP_MS;
            }
            pthread_mutex_lock(&vmm->lock);
        }
        if (!vmm->stopping && !found)
            pause_reaper(vmm);
    }
    pthread_mutex_unlock(&vmm->lock);
    return NULL;
}

int vmm_monitor_start(struct vmm *vmm, struct error *err)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = WAKE};
    if (epoll_ctl(vmm->watch, EPOLL_CTL_ADD, vmm->wake, &event) < 0)
        return error_set(err, ERR_SYSTEM, errno, "starting the monitor");
    int sys = pthread_create(&vmm->monitor, NULL, monitor_main, vmm);
    if (sys != 0)
        return error_set(err, ERR_SYSTEM, sys, "starting the monitor");
    sys = pthread_create(&vmm->reaper, NULL, reaper_main, vmm);
    if (sys != 0) {
        eventfd_write(vmm->wake, 1);
        pthread_join(vmm->monitor, NULL);
        return error_set(err, ERR_SYSTEM, sys, "starting the reaper");
    }
    if (vmm_watchdog_start(vmm, err) == 0 && vmm_pool_start(vmm, err) == 0)
        return 0;
    vmm_monitor_stop(vmm);
    return -1;
}

void vmm_monitor_stop(struct vmm *vmm)
{
    pthread_mutex_lock(&vmm->lock);
    vmm->stopping = true;
    pthread_cond_broadcast(&vmm->changed);
    pthread_mutex_unlock(&vmm->lock);
    eventfd_write(vmm->wake, 1);
    vmm_pool_stop(vmm);
    pthread_join(vmm->monitor, NULL);
    pthread_join(vmm->reaper, NULL);
    vmm_watchdog_stop(vmm);
}
