/* The table of machines: who holds which descriptors, who may end what. */
#include "vmm/pool.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

static void machine_free(struct vmm_machine *machine)
{
    const int fds[] = {machine->gone,  machine->cancel, machine->pidfd, machine->console,
                       machine->vsock, machine->hello,  machine->api,   machine->log};
    for (size_t i = 0; i < COUNT_OF(fds); i++)
        cleanup_close_func(&fds[i]);
    for (size_t i = 0; i < COUNT_OF(machine->ports); i++)
        cleanup_close_func(&machine->ports[i]);
    vmm_firecracker_api_free(machine->firecracker);
    ring_free(machine->tail);
    ring_free(machine->log_tail);
    pthread_mutex_destroy(&machine->tail_lock);
    pthread_mutex_destroy(&machine->use_lock);
    free(machine);
}

static int watch(int epoll, int fd, uint64_t serial)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = serial};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

struct vmm_machine *vmm_machine_new(struct vmm *vmm, const char *instance, struct error *err)
{
    struct vmm_machine *machine = calloc(1, sizeof(*machine));
    if (machine == NULL) {
        error_set(err, ERR_NO_MEMORY, 0, "out of memory for a VM's record");
        return NULL;
    }
    machine->refs = 2; /* the table's and the caller's */
    machine->phase = VMM_SPAWNING;
    snprintf(machine->instance, sizeof(machine->instance), "%s", instance);
    machine->pidfd = machine->console = machine->log = -1;
    machine->vsock = machine->hello = machine->api = -1;
    for (size_t i = 0; i < COUNT_OF(machine->ports); i++)
        machine->ports[i] = -1;
    pthread_mutex_init(&machine->tail_lock, NULL);
    pthread_mutex_init(&machine->use_lock, NULL);
    machine->tail = ring_new(VMM_CONSOLE_TAIL);
    machine->log_tail = ring_new(VMM_LOG_TAIL);
    machine->cancel = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    machine->gone = epoll_create1(EPOLL_CLOEXEC);
    if (machine->tail == NULL || machine->log_tail == NULL || machine->cancel < 0 ||
        machine->gone < 0 || watch(machine->gone, machine->cancel, 0) < 0) {
        error_set(err, ERR_SYSTEM, errno, "no descriptors left for another VM");
        machine_free(machine);
        return NULL;
    }
    pthread_mutex_lock(&vmm->lock);
    machine->serial = ++vmm->last_serial;
    machine->next = vmm->machines;
    vmm->machines = machine;
    pthread_mutex_unlock(&vmm->lock);
    return machine;
}

struct vmm_machine *vmm_machine_find(struct vmm *vmm, const char *instance)
{
    pthread_mutex_lock(&vmm->lock);
    struct vmm_machine *machine = vmm->machines;
    while (machine != NULL && strcmp(machine->instance, instance) != 0)
        machine = machine->next;
    if (machine != NULL)
        machine->refs++;
    pthread_mutex_unlock(&vmm->lock);
    return machine;
}

void vmm_machine_unref(struct vmm *vmm, struct vmm_machine *machine)
{
    if (machine == NULL)
        return;
    pthread_mutex_lock(&vmm->lock);
    bool last = --machine->refs == 0;
    pthread_mutex_unlock(&vmm->lock);
    if (last)
        machine_free(machine);
}

int vmm_machine_attach(struct vmm *vmm, struct vmm_machine *machine, int pidfd, int console,
                       int log, struct error *err)
{
    pthread_mutex_lock(&vmm->lock); /* the monitor finds the machine and reads these */
    machine->pidfd = pidfd;
    machine->console = console;
    machine->log = log;
    pthread_mutex_unlock(&vmm->lock);
    if (watch(machine->gone, pidfd, 0) < 0 || watch(vmm->watch, pidfd, machine->serial) < 0 ||
        watch(vmm->watch, console, machine->serial) < 0 ||
        (log >= 0 && watch(vmm->watch, log, machine->serial) < 0))
        return error_set(err, ERR_SYSTEM, errno, "watching a VMM");
    return 0;
}

int vmm_machine_listen(struct vmm *vmm, struct vmm_machine *machine, int events, struct error *err)
{
    pthread_mutex_lock(&machine->tail_lock); /* its console is being drained already */
    machine->log = events;
    machine->says_events = true;
    pthread_mutex_unlock(&machine->tail_lock);
    if (watch(vmm->watch, events, machine->serial) < 0)
        return error_set(err, ERR_SYSTEM, errno, "watching a VMM's events");
    return 0;
}

void vmm_machine_remove(struct vmm *vmm, struct vmm_machine *machine)
{
    if (machine->pidfd >= 0)
        epoll_ctl(vmm->watch, EPOLL_CTL_DEL, machine->pidfd, NULL);
    if (machine->console >= 0)
        epoll_ctl(vmm->watch, EPOLL_CTL_DEL, machine->console, NULL);
    if (machine->log >= 0)
        epoll_ctl(vmm->watch, EPOLL_CTL_DEL, machine->log, NULL);
    pthread_mutex_lock(&vmm->lock);
    struct vmm_machine **at = &vmm->machines;
    while (*at != machine) /* it is there: one thread removes it, once */
        at = &(*at)->next;
    *at = machine->next;
    (void)eventfd_write(machine->cancel, 1); /* who waits for it waits no more */
    vmm_pool_room(vmm);
    pthread_cond_broadcast(&vmm->changed);
    pthread_mutex_unlock(&vmm->lock);
    vmm_machine_unref(vmm, machine);
}

void vmm_machine_up(struct vmm *vmm, struct vmm_machine *machine, const struct store_vm *row,
                    int64_t ask_ms)
{
    pthread_mutex_lock(&vmm->lock);
    machine->expires_boot_ms = row->expires_boot_ms;
    machine->idle_ms = row->idle_s * 1000;
    machine->idle_since_boot_ms = row->idle_since_boot_ms;
    machine->agent = row->agent;
    machine->on_unresponsive = row->on_unresponsive;
    machine->paused = row->state == STORE_PAUSED;
    machine->purpose = row->purpose;
    machine->kind = vmm_kind_of(row);
    machine->ask_ms = ask_ms;
    machine->phase = VMM_UP;
    pthread_cond_broadcast(&vmm->changed);
    pthread_mutex_unlock(&vmm->lock);
}

struct vmm_kind vmm_kind_of(const struct store_vm *row)
{
    struct vmm_kind kind = {.vcpus = row->vcpus,
                            .memory_mib = row->memory_mib,
                            .disk_mib = row->disk_mib,
                            .without = row->without};
    memcpy(kind.image_digest, row->image_digest, HASH_SIZE);
    memcpy(kind.seccomp, row->seccomp, sizeof(kind.seccomp));
    if (row->purpose == STORE_FOR_POOL)
        snprintf(kind.labels, sizeof(kind.labels), "%.*s", STORE_KEY_LABELS_MAX - 1, row->labels);
    return kind;
}

void vmm_machine_settle(struct vmm *vmm, struct vmm_machine *machine)
{
    pthread_mutex_lock(&vmm->lock);
    while ((machine->phase == VMM_SPAWNING || machine->purpose != STORE_FOR_CALLER) &&
           !vmm_machine_gone(machine))
        pthread_cond_wait(&vmm->changed, &vmm->lock);
    pthread_mutex_unlock(&vmm->lock);
}

void vmm_machine_doom(struct vmm *vmm, struct vmm_machine *machine,
                      const struct vmm_verdict *verdict)
{
    enum { RETRY_MS = 1000 };
    pthread_mutex_lock(&vmm->lock);
    machine->doomed = true;
    machine->verdict = *verdict;
    machine->retry_ms = clock_mono_ms() + RETRY_MS;
    machine->phase = VMM_UP;
    pthread_cond_broadcast(&vmm->changed);
    pthread_mutex_unlock(&vmm->lock);
}

static bool readable_within(int fd, int timeout_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return fd >= 0 && poll(&p, 1, timeout_ms) > 0;
}

static bool readable(int fd)
{
    return readable_within(fd, 0);
}

bool vmm_machine_gone(const struct vmm_machine *machine)
{
    return readable(machine->gone);
}

bool vmm_machine_gone_after(const struct vmm_machine *machine, const struct error *err)
{
    enum { MOMENT_MS = 200 };
    bool closed = err->code == ERR_GUEST_CLOSED || err->code == ERR_HYPERVISOR;
    return readable_within(machine->gone, closed ? MOMENT_MS : 0);
}

bool vmm_machine_cancelled(const struct vmm_machine *machine)
{
    return readable(machine->cancel);
}

bool vmm_machine_exited(const struct vmm_machine *machine)
{
    return readable(machine->pidfd);
}

/* `also`: a second ring for the same bytes, or NULL. True at the end of what can be read. */
static bool drain(int fd, struct ring *ring, struct ring *also)
{
    enum { AT_ONCE = 64 }; /* chunks: a flood on one console must not starve the others */
    char chunk[4096];
    for (int i = 0; i < AT_ONCE && readable(fd); i++) {
        ssize_t n = read(fd, chunk, sizeof(chunk));
        if (n <= 0)
            return n == 0;
        if (ring != NULL)
            ring_write(ring, chunk, (size_t)n);
        if (also != NULL)
            ring_write(also, chunk, (size_t)n);
    }
    return false;
}

/* QEMU's events are for us, not among the last words on a console. */
void vmm_machine_drain(struct vmm_machine *machine)
{
    pthread_mutex_lock(&machine->tail_lock);
    struct ring *beside = machine->says_events ? NULL : machine->tail;
    uint64_t before = ring_end(machine->tail);
    machine->console_ended |= drain(machine->console, machine->tail, NULL);
    machine->log_ended |= drain(machine->log, beside, machine->log_tail);
    if (ring_end(machine->tail) != before)
        waker_wake_all(&machine->followers);
    pthread_mutex_unlock(&machine->tail_lock);
}

void vmm_machine_unwatch_ended(struct vmm *vmm, struct vmm_machine *machine)
{
    pthread_mutex_lock(&machine->tail_lock);
    if (machine->console_ended)
        epoll_ctl(vmm->watch, EPOLL_CTL_DEL, machine->console, NULL);
    if (machine->log_ended)
        epoll_ctl(vmm->watch, EPOLL_CTL_DEL, machine->log, NULL);
    pthread_mutex_unlock(&machine->tail_lock);
}

static size_t read_tail(struct vmm_machine *machine, const struct ring *ring, char *out,
                        size_t size)
{
    vmm_machine_drain(machine);
    pthread_mutex_lock(&machine->tail_lock);
    size_t len = ring_read(ring, out, size);
    pthread_mutex_unlock(&machine->tail_lock);
    for (size_t i = 0; i < len; i++)
        if (out[i] == '\0') /* a guest must not hide its last words behind one */
            out[i] = '?';
    return len;
}

size_t vmm_machine_tail(struct vmm_machine *machine, char *out, size_t size)
{
    return read_tail(machine, machine->tail, out, size);
}

size_t vmm_machine_log(struct vmm_machine *machine, char *out, size_t size)
{
    return read_tail(machine, machine->log_tail, out, size);
}
