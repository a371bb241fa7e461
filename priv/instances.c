/* The table of instances and the uids they hold. */
#include "priv/internal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>

bool priv_pidfd_ended(int pidfd)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    return pidfd < 0 || poll(&p, 1, 0) == 1;
}

static struct priv_instance_slot *find(const struct priv_server *server, const char *instance)
{
    for (size_t i = 0; i < server->slot_count; i++)
        if (strcmp(server->slots[i]->record.instance, instance) == 0)
            return server->slots[i];
    return NULL;
}

struct priv_instance_slot *priv_slot_find(struct priv_server *server, const char *instance)
{
    pthread_mutex_lock(&server->lock);
    struct priv_instance_slot *slot = find(server, instance);
    pthread_mutex_unlock(&server->lock);
    return slot;
}

/* Lock held. */
static bool take_uid(struct priv_server *server, uint32_t *ret)
{
    uint32_t count = server->config.uid_count;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = (server->uid_next + i) % count;
        if (server->uids[at])
            continue;
        server->uids[at] = 1;
        server->uid_next = (at + 1) % count;
        *ret = server->config.uid_base + at;
        return true;
    }
    return false;
}

int priv_uid_take(struct priv_server *server, uint32_t *ret, struct error *err)
{
    pthread_mutex_lock(&server->lock);
    bool taken = take_uid(server, ret);
    pthread_mutex_unlock(&server->lock);
    return taken ? 0
                 : error_set(err, ERR_CAPACITY, 0, "all %u uids for VMs are in use (uid-count)",
                             server->config.uid_count);
}

void priv_uid_give(struct priv_server *server, uint32_t uid)
{
    pthread_mutex_lock(&server->lock);
    server->uids[uid - server->config.uid_base] = 0;
    pthread_mutex_unlock(&server->lock);
}

static struct priv_instance_slot *insert(struct priv_server *server)
{
    if (server->slot_count == server->slot_max) {
        size_t max = server->slot_max * 2 + 16;
        struct priv_instance_slot **grown =
            reallocarray(server->slots, max, sizeof(struct priv_instance_slot *));
        if (grown == NULL)
            return NULL;
        server->slots = grown;
        server->slot_max = max;
    }
    struct priv_instance_slot *slot = calloc(1, sizeof(*slot));
    if (slot == NULL)
        return NULL;
    slot->pidfd = slot->root = slot->console = slot->log = slot->staged[0] = slot->staged[1] = -1;
    slot->memory = -1;
    server->slots[server->slot_count++] = slot;
    return slot;
}

static struct priv_instance_slot *reserve(struct priv_server *server, const struct netfilter_vm *vm,
                                          struct error *err)
{
    const uint32_t max = priv_limits_now(server).max_vms;
    if (server->slot_count >= max) {
        error_set(err, ERR_CAPACITY, 0, "this host runs at most %u VMs (max-vms)", max);
        return NULL;
    }
    struct priv_instance_slot *slot = insert(server);
    if (slot == NULL) {
        error_set(err, ERR_NO_MEMORY, 0, "out of memory for another instance");
        return NULL;
    }
    memcpy(slot->record.instance, vm->instance, ID_INSTANCE_SIZE);
    slot->record.uid = vm->uid;
    slot->record.hypervisor = server->config.hypervisor;
    slot->record.without = server->config.without;
    slot->record.state = PRIV_RESERVED;
    memcpy(slot->record.boot_id, server->boot_id, sizeof(server->boot_id));
    return slot;
}

struct priv_instance_slot *priv_slot_reserve(struct priv_server *server,
                                             const struct netfilter_vm *vm, struct error *err)
{
    struct netfilter_vm made = {0};
    if (vm == NULL &&
        (id_instance_make(made.instance, err) < 0 || priv_uid_take(server, &made.uid, err) < 0))
        return NULL;
    pthread_mutex_lock(&server->lock);
    struct priv_instance_slot *slot = reserve(server, vm != NULL ? vm : &made, err);
    pthread_mutex_unlock(&server->lock);
    if (slot == NULL && vm == NULL)
        priv_uid_give(server, made.uid);
    return slot;
}

struct priv_instance_slot *priv_slot_adopt(struct priv_server *server,
                                           const struct priv_record *record, struct error *err)
{
    uint32_t at = record->uid - server->config.uid_base;
    if (record->uid < server->config.uid_base || at >= server->config.uid_count ||
        server->uids[at]) {
        error_set(err, ERR_CONFIG, 0,
                  "instance %s of an earlier run has uid %u, which is outside uid-base and "
                  "uid-count or taken twice; start once with the earlier range and --purge",
                  record->instance, record->uid);
        return NULL;
    }
    struct priv_instance_slot *slot = insert(server);
    if (slot == NULL) {
        error_set(err, ERR_NO_MEMORY, 0, "out of memory for another instance");
        return NULL;
    }
    slot->record = *record;
    server->uids[at] = 1;
    server->uid_next = (at + 1) % server->config.uid_count;
    return slot;
}

void priv_slot_state(struct priv_server *server, struct priv_instance_slot *slot,
                     enum priv_state state)
{
    pthread_mutex_lock(&server->lock);
    slot->record.state = state;
    pthread_mutex_unlock(&server->lock);
}

int priv_slot_admit(struct priv_server *server, struct priv_instance_slot *slot,
                    const struct priv_shape *shape, struct error *err)
{
    const uint32_t total = priv_limits_now(server).total_memory_mib;
    uint64_t used = 0;
    pthread_mutex_lock(&server->lock);
    for (size_t i = 0; i < server->slot_count; i++)
        if (server->slots[i] != slot)
            used += server->slots[i]->record.shape.memory_mib;
    bool fits = used + shape->memory_mib <= total;
    if (fits)
        slot->record.shape = *shape;
    pthread_mutex_unlock(&server->lock);
    if (!fits)
        return error_set(err, ERR_CAPACITY, 0,
                         "%u MiB more do not fit: VMs already have %llu of the %u MiB this host "
                         "gives them",
                         shape->memory_mib, (unsigned long long)used, total);
    return 0;
}

void priv_slot_close(struct priv_server *server, struct priv_instance_slot *slot)
{
    pthread_mutex_lock(&server->lock);
    cleanup_close_func(&slot->pidfd);
    cleanup_close_func(&slot->root);
    cleanup_close_func(&slot->console);
    cleanup_close_func(&slot->log);
    cleanup_close_func(&slot->staged[0]);
    cleanup_close_func(&slot->staged[1]);
    cleanup_close_func(&slot->memory);
    slot->pidfd = slot->root = slot->console = slot->log = slot->staged[0] = slot->staged[1] = -1;
    slot->memory = -1;
    pthread_mutex_unlock(&server->lock);
}

void priv_slot_forget(struct priv_server *server, struct priv_instance_slot *slot)
{
    struct priv_record gone = slot->record;
    priv_slot_close(server, slot);
    pthread_mutex_lock(&server->lock);
    size_t at = 0; /* it is in the table */
    while (server->slots[at] != slot)
        at++;
    server->slots[at] = server->slots[--server->slot_count];
    free(slot);
    pthread_mutex_unlock(&server->lock);
    if (server->firewall != NULL)
        priv_firewall_retire(server->firewall, gone.instance);
    else
        priv_uid_give(server, gone.uid);
}

void priv_slot_hurry(struct priv_server *server, const char *instance)
{
    pthread_mutex_lock(&server->lock);
    struct priv_instance_slot *slot = find(server, instance);
    if (slot != NULL && slot->pidfd >= 0 && !slot->hurried) {
        slot->hurried = true;
        slot->was_running = !priv_pidfd_ended(slot->pidfd);
        syscall(SYS_pidfd_send_signal, slot->pidfd, SIGKILL, NULL, 0);
    }
    pthread_mutex_unlock(&server->lock);
}
