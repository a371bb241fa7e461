/* The operations that need no file of their own: HOST, RESERVE, GUARD, LIST, DROPS. */
#include "priv/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>

static void own_figures(struct priv_host *host)
{
    char text[256];
    if (fs_read_at(AT_FDCWD, "/proc/self/statm", text, sizeof(text)) >= 0) {
        char *end = NULL;
        strtoull(text, &end, 10);
        host->rss_bytes = strtoull(end, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
    }
    DIR *dir = opendir("/proc/self/fd");
    if (dir == NULL)
        return;
    while (readdir(dir) != NULL)
        host->fds++;
    closedir(dir);
    host->fds -= host->fds > 3 ? 3 : host->fds; /* ".", ".." and the directory itself */
}

int priv_op_host(struct priv_server *server, struct priv_instance_slot *slot,
                 const struct priv_request *request, struct priv_answer *answer, struct error *err)
{
    (void)slot;
    (void)request;
    (void)err;
    const struct priv_config *config = &server->config;
    struct priv_host *host = &answer->reply.u.host;
    host->hypervisor = config->hypervisor;
    host->emulated = config->emulated;
    host->without = config->without;
    host->cgroup_version = (uint32_t)server->cgroups.version;
    if (server->firewall != NULL)
        priv_firewall_host(server->firewall, host);
    const struct priv_limits limits = priv_limits_now(server);
    host->max_vms = limits.max_vms;
    host->max_vcpus = limits.max_vcpus;
    host->max_memory_mib = limits.max_memory_mib;
    host->max_disk_mib = limits.max_disk_mib;
    host->total_memory_mib = limits.total_memory_mib;
    host->max_snapshots = limits.max_snapshots;
    memcpy(host->vmm_version, server->vmm_version, sizeof(host->vmm_version));
    own_figures(host);
    pthread_mutex_lock(&server->lock);
    host->live = (uint32_t)server->slot_count;
    pthread_mutex_unlock(&server->lock);
    return 0;
}

/* Asked before there is a chain to be given back, and decided when the instance is entered. */
static bool is_full(struct priv_server *server, struct error *err)
{
    const uint32_t max = priv_limits_now(server).max_vms;
    pthread_mutex_lock(&server->lock);
    bool full = server->slot_count >= max;
    pthread_mutex_unlock(&server->lock);
    if (full)
        error_set(err, ERR_CAPACITY, 0, "this host runs at most %u VMs (max-vms)", max);
    return full;
}

int priv_op_reserve(struct priv_server *server, struct priv_instance_slot *slot,
                    const struct priv_request *request, struct priv_answer *answer,
                    struct error *err)
{
    (void)request;
    struct netfilter_vm vm;
    struct netfilter_vm *chain = server->firewall != NULL ? &vm : NULL;
    if (is_full(server, err) ||
        (chain != NULL && priv_firewall_take(server->firewall, chain, err) < 0))
        return -1;
    slot = priv_slot_reserve(server, chain, err);
    if (slot == NULL) {
        if (chain != NULL)
            priv_firewall_retire(server->firewall, chain->instance);
        return -1;
    }
    memcpy(answer->reply.u.reserve.instance, slot->record.instance, ID_INSTANCE_SIZE);
    netfilter_chain_name(slot->record.instance, answer->reply.u.reserve.chain);
    answer->reply.u.reserve.uid = slot->record.uid;
    return 0;
}

/* The front checks the same bounds before it asks, with a better message. */
static int check_shape(struct priv_server *server, const struct priv_shape *shape,
                       struct error *err)
{
    const struct priv_limits limits = priv_limits_now(server);
    if (shape->vcpus < 1 || shape->vcpus > PRIV_VCPUS_MAX || shape->vcpus > limits.max_vcpus ||
        (shape->vcpus > 1 && shape->vcpus % 2 != 0))
        return error_set(err, ERR_PRIV_REFUSED, 0, "%u vCPUs: 1 or an even number up to %u",
                         shape->vcpus, limits.max_vcpus);
    if (shape->memory_mib < PRIV_MEMORY_MIN_MIB || shape->memory_mib > limits.max_memory_mib)
        return error_set(err, ERR_PRIV_REFUSED, 0, "%u MiB of memory: from %d to %u",
                         shape->memory_mib, PRIV_MEMORY_MIN_MIB, limits.max_memory_mib);
    if (shape->disk_mib > limits.max_disk_mib)
        return error_set(err, ERR_PRIV_REFUSED, 0, "%u MiB of disk: at most %u", shape->disk_mib,
                         limits.max_disk_mib);
    if (shape->seccomp < PRIV_SECCOMP_MINIMAL || shape->seccomp > PRIV_SECCOMP_PERMISSIVE)
        return error_set(err, ERR_PRIV_REFUSED, 0, "no such seccomp level");
    return 0;
}

static int check_level(const struct priv_server *server, uint32_t level, struct error *err)
{
    if (level == PRIV_SECCOMP_PERMISSIVE && !(server->config.without & PRIV_GUARD_SECCOMP))
        return error_set(err, ERR_SECCOMP_LEVEL, 0,
                         "seccomp level permissive stops nothing; it needs --without=seccomp");
    if (server->config.hypervisor == PRIV_FIRECRACKER && level != PRIV_SECCOMP_MINIMAL &&
        server->filters[level].data == NULL)
        return error_set(err, ERR_SECCOMP_LEVEL, 0,
                         "Firecracker %s takes its built-in filter only: use level minimal",
                         server->vmm_version);
    return 0;
}

/* Until all guards stand the record says dead: a root half that finds it may only clean up. */
static int guard(struct priv_server *server, struct priv_instance_slot *slot, struct error *err)
{
    struct priv_record *record = &slot->record;
    priv_slot_state(server, slot, PRIV_DEAD);
    if (priv_record_write(server->records, record, err) < 0 ||
        (server->firewall != NULL && priv_firewall_guard(server->firewall, record, err) < 0))
        return -1;
    if (server->cgroups.count > 0 &&
        priv_cgroup_make(&server->cgroups, record->instance, &record->shape,
                         priv_overhead_mib(server), err) < 0)
        return -1;
    priv_slot_state(server, slot, PRIV_GUARDED);
    return priv_record_write(server->records, record, err);
}

int priv_op_guard(struct priv_server *server, struct priv_instance_slot *slot,
                  const struct priv_request *request, struct priv_answer *answer, struct error *err)
{
    (void)answer;
    const struct priv_shape *shape = &request->u.guard;
    if (check_shape(server, shape, err) < 0 || check_level(server, shape->seccomp, err) < 0 ||
        priv_slot_admit(server, slot, shape, err) < 0)
        return -1;
    if (guard(server, slot, err) == 0)
        return 0;
    struct error ignored = {0}; /* KILL tries again and tells */
    priv_slot_state(server, slot, PRIV_DEAD);
    priv_undo(server, slot, slot->record.instance, NULL, &ignored);
    return -1;
}

int priv_op_list(struct priv_server *server, struct priv_instance_slot *slot,
                 const struct priv_request *request, struct priv_answer *answer, struct error *err)
{
    (void)slot;
    (void)err;
    struct priv_instance *out = &answer->reply.u.list;
    pthread_mutex_lock(&server->lock);
    if (request->u.list.index < server->slot_count) {
        const struct priv_instance_slot *at = server->slots[request->u.list.index];
        const struct priv_record *record = &at->record;
        memcpy(out->instance, record->instance, ID_INSTANCE_SIZE);
        out->state = record->state;
        out->uid = record->uid;
        out->alive = record->state == PRIV_LAUNCHED && (at->child || at->matches) &&
                     !priv_pidfd_ended(at->pidfd);
        out->hypervisor = record->hypervisor;
        out->shape = record->shape;
        memcpy(out->token, record->token, PRIV_TOKEN_SIZE);
        memcpy(out->snapshot, record->snapshot, ID_INSTANCE_SIZE);
        out->generation = record->generation;
    }
    pthread_mutex_unlock(&server->lock);
    return 0;
}

int priv_op_drops(struct priv_server *server, struct priv_instance_slot *slot,
                  const struct priv_request *request, struct priv_answer *answer, struct error *err)
{
    (void)slot;
    (void)err;
    if (server->firewall != NULL)
        priv_firewall_drops(server->firewall, request->u.drops.index, &answer->reply.u.drops);
    return 0;
}
