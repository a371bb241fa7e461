/* What other programs did to the rules: noticed each second by the tables' size, each minute by a look
 * at every chain; repaired and counted. */
#include "priv/firewall_internal.h"

enum { STANDING = 1 << PRIV_CHAIN_SPARE | 1 << PRIV_CHAIN_TAKEN | 1 << PRIV_CHAIN_HELD };

static int cmp_chains(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Chains that look like ours and that nobody has: of an earlier run, or made by another program. */
static int remove_unknown(struct priv_firewall *firewall, const struct netfilter_vm *known,
                          size_t known_count, size_t *ret_removed, struct error *err)
{
    cleanup_free netfilter_name *there = NULL, *names = calloc(known_count + 1, sizeof(*names));
    size_t there_count = 0, unknown = 0;
    if (names == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a list of chains");
    for (size_t i = 0; i < known_count; i++)
        netfilter_chain_name(known[i].instance, names[i]);
    qsort(names, known_count, sizeof(*names), cmp_chains);
    if (netfilter_list(firewall->netfilter, &there, &there_count, err) < 0)
        return -1;
    for (size_t i = 0; i < there_count; i++)
        if (bsearch(there[i], names, known_count, sizeof(*names), cmp_chains) == NULL)
            memmove(there[unknown++], there[i], sizeof(*there));
    *ret_removed = unknown;
    return unknown == 0 ? 0
                        : netfilter_remove_chains(firewall->netfilter,
                                                  (const netfilter_name *)there, unknown, err);
}

int priv_firewall_repair(struct priv_firewall *firewall, size_t *ret_repairs, struct error *err)
{
    cleanup_free struct netfilter_vm *standing = NULL, *known = NULL;
    size_t standing_count = 0, known_count = 0, repairs = 0, removed = 0;
    pthread_mutex_lock(&firewall->lock);
    int result = priv_chain_collect(firewall, STANDING, &standing, NULL, &standing_count, err);
    if (result == 0)
        result = priv_chain_collect(firewall, UINT32_MAX, &known, NULL, &known_count, err);
    pthread_mutex_unlock(&firewall->lock);
    if (result < 0 ||
        netfilter_sync(firewall->netfilter, standing, standing_count, &repairs, err) < 0 ||
        remove_unknown(firewall, known, known_count, &removed, err) < 0)
        return -1;
    *ret_repairs = repairs + removed;
    return 0;
}

/* Repairs and counts; a difference found while all seemed well is a drift of its own. */
static int repair_and_count(struct priv_firewall *firewall, struct error *err)
{
    size_t repairs = 0;
    if (priv_firewall_repair(firewall, &repairs, err) < 0)
        return -1;
    pthread_mutex_lock(&firewall->lock);
    firewall->repairs += repairs;
    firewall->drifts += firewall->in_sync && repairs > 0;
    firewall->in_sync = true;
    pthread_mutex_unlock(&firewall->lock);
    if (repairs > 0)
        priv_tell(firewall->server, LOG_LEVEL_WARN,
                  "another program has changed the firewall: %zu places repaired", repairs);
    return 0;
}

/* Until all is repaired no VM starts. Each failure is told once. */
static void repair(struct priv_firewall *firewall, const struct error *found)
{
    struct error err = {0};
    pthread_mutex_lock(&firewall->lock);
    bool news = firewall->in_sync;
    firewall->in_sync = false;
    firewall->drifts += news;
    pthread_mutex_unlock(&firewall->lock);
    if (news)
        priv_tell(firewall->server, LOG_LEVEL_WARN,
                  "no VM starts until the firewall is repaired: %s", found->msg);
    if (repair_and_count(firewall, &err) < 0 && news)
        priv_tell(firewall->server, LOG_LEVEL_ERROR,
                  "the firewall cannot be repaired and is tried again each second: %s", err.msg);
}

void priv_firewall_probe(struct priv_firewall *firewall)
{
    struct error found = {0};
    pthread_mutex_lock(&firewall->lock);
    firewall->probe_at = clock_mono_ms() + firewall->server->config.firewall_probe_ms;
    bool in_sync = firewall->in_sync, suspect = firewall->suspect;
    firewall->suspect = false;
    pthread_mutex_unlock(&firewall->lock);
    if (netfilter_probe(firewall->netfilter, &found) == 0 && suspect)
        error_set(&found, ERR_FIREWALL_DRIFT, 0, "the chain of a new VM is not as it was made");
    if (found.code != ERR_NONE || !in_sync)
        repair(firewall, &found);
}

void priv_firewall_look(struct priv_firewall *firewall)
{
    struct error err = {0};
    pthread_mutex_lock(&firewall->lock);
    firewall->check_at = clock_mono_ms() + firewall->server->config.firewall_check_ms;
    bool in_sync = firewall->in_sync;
    pthread_mutex_unlock(&firewall->lock);
    if (in_sync && repair_and_count(firewall, &err) < 0)
        priv_tell(firewall->server, LOG_LEVEL_WARN, "the firewall's rules could not be checked: %s",
                  err.msg);
}
