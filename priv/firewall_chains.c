/* The table of chains: which stand, whose they are, and their uids. */
#include "priv/firewall_internal.h"

#include <errno.h>
#include <fcntl.h>

static const char spares[] = "spares", spares_new[] = "spares.new";

struct netfilter_vm priv_chain_vm(const struct priv_record *record)
{
    struct netfilter_vm vm = {.uid = record->uid};
    memcpy(vm.instance, record->instance, ID_INSTANCE_SIZE);
    return vm;
}

struct priv_chain *priv_chain_find(struct priv_firewall *firewall, const char *instance)
{
    for (size_t i = 0; i < firewall->count; i++)
        if (strcmp(firewall->chains[i].vm.instance, instance) == 0)
            return &firewall->chains[i];
    return NULL;
}

int priv_chain_add(struct priv_firewall *firewall, const struct netfilter_vm *vm,
                   enum priv_chain_state state, struct error *err)
{
    if (firewall->count == firewall->room) {
        size_t room = 2 * firewall->room + PRIV_SPARES;
        struct priv_chain *grown = reallocarray(firewall->chains, room, sizeof(*grown));
        if (grown == NULL)
            return error_set(err, ERR_NO_MEMORY, 0, "out of memory for another chain");
        firewall->chains = grown;
        firewall->room = room;
    }
    firewall->chains[firewall->count++] = (struct priv_chain){.vm = *vm, .state = state};
    firewall->in[state]++;
    return 0;
}

void priv_chain_set(struct priv_firewall *firewall, struct priv_chain *chain,
                    enum priv_chain_state state)
{
    firewall->in[chain->state]--;
    firewall->in[state]++;
    chain->state = state;
}

void priv_chain_forget_all(struct priv_firewall *firewall, enum priv_chain_state state)
{
    size_t kept = 0;
    for (size_t i = 0; i < firewall->count; i++) {
        struct priv_chain *chain = &firewall->chains[i];
        if (chain->state != state) {
            firewall->chains[kept++] = *chain;
            continue;
        }
        firewall->dropped_gone += chain->dropped;
        priv_uid_give(firewall->server, chain->vm.uid);
    }
    firewall->count = kept;
    firewall->in[state] = 0;
}

int priv_chain_collect(struct priv_firewall *firewall, unsigned states, struct netfilter_vm **ret,
                       size_t **ret_at, size_t *ret_count, struct error *err)
{
    size_t count = 0;
    cleanup_free struct netfilter_vm *vms = calloc(firewall->count + 1, sizeof(*vms));
    cleanup_free size_t *at = calloc(firewall->count + 1, sizeof(*at));
    if (vms == NULL || at == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a list of chains");
    for (size_t i = 0; i < firewall->count; i++) {
        if (!(states & 1u << firewall->chains[i].state))
            continue;
        at[count] = i;
        vms[count++] = firewall->chains[i].vm;
    }
    *ret = TAKE_PTR(vms);
    if (ret_at != NULL)
        *ret_at = TAKE_PTR(at);
    *ret_count = count;
    return 0;
}

/* No more than could be had: by the number of VMs this host may run, and by uids. */
size_t priv_chain_lacking(const struct priv_firewall *firewall)
{
    const struct priv_config *config = &firewall->server->config;
    const uint32_t max = priv_limits_now(firewall->server).max_vms;
    size_t used = firewall->in[PRIV_CHAIN_TAKEN] + firewall->in[PRIV_CHAIN_HELD];
    size_t ready = firewall->in[PRIV_CHAIN_SPARE] + firewall->in[PRIV_CHAIN_WANTED];
    size_t more = max > used ? max - used : 0;
    size_t wanted = more < PRIV_SPARES ? more : PRIV_SPARES;
    size_t uids = config->uid_count > firewall->count ? config->uid_count - firewall->count : 0;
    if (ready >= wanted)
        return 0;
    return wanted - ready < uids ? wanted - ready : uids;
}

static int write_spares(const struct priv_firewall *firewall, int fd)
{
    size_t len = 0;
    cleanup_free char *text = calloc(firewall->count + 1, ID_INSTANCE_SIZE);
    if (text == NULL)
        return -1;
    for (size_t i = 0; i < firewall->count; i++)
        if (firewall->chains[i].state != PRIV_CHAIN_HELD)
            len += (size_t)snprintf(text + len, ID_INSTANCE_SIZE, "%s\n",
                                    firewall->chains[i].vm.instance);
    return fs_write_all(fd, text, len);
}

int priv_chain_publish(struct priv_firewall *firewall, struct error *err)
{
    int dir = firewall->server->records;
    if (firewall->in[PRIV_CHAIN_HELD] == firewall->count) {
        if (unlinkat(dir, spares, 0) == 0 || errno == ENOENT)
            return 0;
        return error_set(err, ERR_SYSTEM, errno, "removing the list of spare chains");
    }
    cleanup_close int fd =
        openat(dir, spares_new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || write_spares(firewall, fd) < 0 || renameat(dir, spares_new, dir, spares) < 0)
        return error_set(err, ERR_SYSTEM, errno, "writing the list of spare chains");
    return 0;
}
