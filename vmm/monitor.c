/* Two threads that watch. The monitor never blocks: it drains consoles and tells the reaper who
 * exited. The reaper does what may take a moment: ends exited and expired VMs, asks the root half
 * how the host is. */
#include "vmm/internal.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

static struct vmm_machine *find_by_fd(struct vmm *vmm, int fd)
{
    pthread_mutex_lock(&vmm->lock);
    struct vmm_machine *machine = vmm->machines;
    while (machine != NULL && machine->pidfd != fd && machine->console != fd)
        machine = machine->next;
    if (machine != NULL)
        machine->refs++;
    pthread_mutex_unlock(&vmm->lock);
    return machine;
}

static void on_event(struct vmm *vmm, const struct epoll_event *event)
{
    struct vmm_machine *machine = find_by_fd(vmm, event->data.fd);
    if (machine == NULL)
        return;
    vmm_machine_drain(machine);
    bool over = event->data.fd == machine->pidfd || !(event->events & EPOLLIN);
    if (over) /* told once; `gone` keeps the fact */
        epoll_ctl(vmm->watch, EPOLL_CTL_DEL, event->data.fd, NULL);
    if (event->data.fd == machine->pidfd) {
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
            if (events[i].data.fd == vmm->wake)
                return NULL;
            on_event(vmm, &events[i]);
        }
    }
}

struct ended {
    char instance[ID_INSTANCE_SIZE];
    enum store_state state;
    char reason[STORE_REASON_MAX]; /* "": to be found out */
    char message[ERROR_MESSAGE_MAX];
};

/* The next VM to end: half undone, its time up, or its VMM gone. The table's lock is held. */
static bool next_ended(struct vmm *vmm, struct ended *ret)
{
    int64_t now = clock_boot_ms();
    for (struct vmm_machine *m = vmm->machines; m != NULL; m = m->next) {
        if (m->phase != VMM_UP)
            continue;
        *ret = (struct ended){.state = m->doomed ? STORE_FAILED : STORE_EXITED};
        memcpy(ret->instance, m->instance, sizeof(ret->instance));
        if (m->doomed) {
            memcpy(ret->reason, m->doom_reason, sizeof(ret->reason));
            memcpy(ret->message, m->doom_message, sizeof(ret->message));
            return true;
        }
        if (now >= m->expires_boot_ms) {
            snprintf(ret->reason, sizeof(ret->reason), "ttl");
            snprintf(ret->message, sizeof(ret->message), "its ttl_s was over");
            return true;
        }
        if (vmm_machine_exited(m))
            return true;
    }
    return false;
}

/* True when it is done, false when it must be tried again a little later. */
static bool end_one(struct vmm *vmm, const struct ended *ended)
{
    struct error err = {0};
    return vmm_end(vmm, ended->instance, ended->state,
                   ended->reason[0] == '\0' ? NULL : ended->reason, ended->message, &err) == 0;
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
    int64_t refresh_at = 0;
    pthread_mutex_lock(&vmm->lock);
    while (!vmm->stopping) {
        struct ended ended;
        bool found = next_ended(vmm, &ended), refresh = clock_mono_ms() >= refresh_at;
        bool done = true;
        if (found || refresh) {
            pthread_mutex_unlock(&vmm->lock);
            if (found)
                done = end_one(vmm, &ended);
            if (refresh) {
                refresh_host(vmm);
                refresh_at = clock_mono_ms() + 1000;
            }
            pthread_mutex_lock(&vmm->lock);
        }
        if (!vmm->stopping && (!found || !done))
            pause_reaper(vmm);
    }
    pthread_mutex_unlock(&vmm->lock);
    return NULL;
}

int vmm_monitor_start(struct vmm *vmm, struct error *err)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = vmm->wake};
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
    return 0;
}

void vmm_monitor_stop(struct vmm *vmm)
{
    pthread_mutex_lock(&vmm->lock);
    vmm->stopping = true;
    pthread_cond_broadcast(&vmm->changed);
    pthread_mutex_unlock(&vmm->lock);
    eventfd_write(vmm->wake, 1);
    pthread_join(vmm->monitor, NULL);
    pthread_join(vmm->reaper, NULL);
}
