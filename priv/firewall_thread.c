/* The firewall's thread: makes chains ahead and removes retired ones, many in a commit; counts what
 * they dropped; and knows when what is due. */
#include "priv/firewall_internal.h"

#include <malloc.h>

enum {
    WORK_CHANGE = 1,
    WORK_PROBE = 2,
    WORK_CHECK = 4,
    WORK_COUNT = 8,
    LEAVING = 1 << PRIV_CHAIN_RETIRED | 1 << PRIV_CHAIN_LEAVING,
};

/* ---- counters -------------------------------------------------------------------------------- */

/* Lock held. A VMM has no network to send into: a packet of its uid is one that broke out. */
static void take_count(const struct priv_firewall *firewall, struct priv_chain *chain,
                       uint64_t packets)
{
    uint64_t more = packets < chain->counted ? packets : packets - chain->counted;
    chain->counted = packets;
    if (more > 0 && chain->dropped == 0)
        priv_tell(
            firewall->server, LOG_LEVEL_WARN,
            "the firewall dropped %llu packets of instance %s (uid %u), which has no network: "
            "its VMM may have been broken into",
            (unsigned long long)more, chain->vm.instance, chain->vm.uid);
    chain->dropped += more;
}

/* Chains that no VMM can have used are not looked at. */
static void count(struct priv_firewall *firewall)
{
    struct error ignored = {0}; /* the next look finds them */
    cleanup_free struct netfilter_vm *vms = NULL;
    cleanup_free size_t *at = NULL;
    size_t some = 0;
    pthread_mutex_lock(&firewall->lock);
    firewall->count_at = clock_mono_ms() + PRIV_COUNT_MS;
    int result =
        priv_chain_collect(firewall, 1 << PRIV_CHAIN_HELD | LEAVING, &vms, &at, &some, &ignored);
    pthread_mutex_unlock(&firewall->lock);
    cleanup_free uint64_t *packets = calloc(some + 1, sizeof(*packets));
    if (result < 0 || some == 0 || packets == NULL ||
        netfilter_counts(firewall->netfilter, vms, some, packets, &ignored) < 0)
        return;
    pthread_mutex_lock(&firewall->lock);
    for (size_t i = 0; i < some; i++)
        if (packets[i] != NETFILTER_UNCOUNTED)
            take_count(firewall, &firewall->chains[at[i]], packets[i]);
    pthread_mutex_unlock(&firewall->lock);
}

/* ---- changes --------------------------------------------------------------------------------- */

/* Lock held. Those that an earlier commit failed to make are still wanted. */
static int want(struct priv_firewall *firewall, struct error *err)
{
    for (size_t lacking = priv_chain_lacking(firewall); lacking > 0; lacking--) {
        struct netfilter_vm vm = {0};
        if (id_instance_make(vm.instance, err) < 0 ||
            priv_uid_take(firewall->server, &vm.uid, err) < 0)
            return -1;
        if (priv_chain_add(firewall, &vm, PRIV_CHAIN_WANTED, err) < 0) {
            priv_uid_give(firewall->server, vm.uid);
            return -1;
        }
    }
    return 0;
}

static void set_all(struct priv_firewall *firewall, enum priv_chain_state from,
                    enum priv_chain_state to)
{
    for (size_t i = 0; i < firewall->count; i++)
        if (firewall->chains[i].state == from)
            priv_chain_set(firewall, &firewall->chains[i], to);
}

struct batch {
    struct netfilter_vm *add, *remove; /* owned */
    size_t add_count, remove_count;
};

static void batch_release(struct batch *batch)
{
    free(batch->add);
    free(batch->remove);
}

/* Lock held. */
static int plan(struct priv_firewall *firewall, struct batch *batch, struct error *err)
{
    if (want(firewall, err) < 0)
        return -1;
    set_all(firewall, PRIV_CHAIN_RETIRED, PRIV_CHAIN_LEAVING);
    if (priv_chain_collect(firewall, 1 << PRIV_CHAIN_WANTED, &batch->add, NULL, &batch->add_count,
                           err) < 0 ||
        priv_chain_collect(firewall, 1 << PRIV_CHAIN_LEAVING, &batch->remove, NULL,
                           &batch->remove_count, err) < 0)
        return -1;
    if (batch->add_count + batch->remove_count == 0)
        return error_set(err, ERR_CAPACITY, 0, "all %u uids for VMs are in use (uid-count)",
                         firewall->server->config.uid_count);
    return priv_chain_publish(firewall, err);
}

/* Lock held. A failure is told to all who wait, and tried again a little later. */
static void settle(struct priv_firewall *firewall, const struct error *failure)
{
    if (failure->code == ERR_NONE) {
        priv_chain_forget_all(firewall, PRIV_CHAIN_LEAVING);
        set_all(firewall, PRIV_CHAIN_WANTED, PRIV_CHAIN_SPARE);
        firewall->failure = (struct error){0};
        firewall->retry_at = 0;
    } else {
        set_all(firewall, PRIV_CHAIN_LEAVING, PRIV_CHAIN_RETIRED);
        firewall->failure = *failure;
        firewall->failures++;
        firewall->retry_at = clock_mono_ms() + PRIV_RETRY_MS;
    }
    pthread_cond_broadcast(&firewall->made);
}

static void change(struct priv_firewall *firewall)
{
    cleanup(batch_release) struct batch batch = {0};
    struct error err = {0};
    pthread_mutex_lock(&firewall->lock);
    int result = plan(firewall, &batch, &err);
    pthread_mutex_unlock(&firewall->lock);
    if (result == 0 && batch.remove_count > 0)
        count(firewall); /* for the last time */
    int64_t begin = clock_mono_ms();
    if (result == 0)
        result = netfilter_change(firewall->netfilter, batch.add, batch.add_count, batch.remove,
                                  batch.remove_count, &err);
    pthread_mutex_lock(&firewall->lock);
    if (result < 0 && firewall->failure.code != err.code && err.code != ERR_CAPACITY)
        priv_tell(firewall->server, LOG_LEVEL_WARN, "the firewall cannot be changed: %s", err.msg);
    if (result == 0)
        firewall->commit_ms = clock_mono_ms() - begin;
    settle(firewall, &err);
    pthread_mutex_unlock(&firewall->lock);
    /* The copies of the tables are free again, and what is kept of them each launch would fork. */
    malloc_trim(0);
}

/* ---- the thread ------------------------------------------------------------------------------ */

/* When the next change is due. Lock held. */
static int64_t change_at(const struct priv_firewall *firewall)
{
    const size_t *in = firewall->in;
    bool pressing = (firewall->waiting > 0 && in[PRIV_CHAIN_SPARE] == 0) ||
                    in[PRIV_CHAIN_RETIRED] >= PRIV_SPARES / 2 || in[PRIV_CHAIN_WANTED] > 0;
    size_t lacking = priv_chain_lacking(firewall);
    if (!firewall->in_sync)
        return INT64_MAX;
    if (pressing || (lacking > 0 && lacking >= in[PRIV_CHAIN_SPARE]))
        return firewall->retry_at;
    if (in[PRIV_CHAIN_RETIRED] == 0)
        return INT64_MAX;
    return firewall->retire_at > firewall->retry_at ? firewall->retire_at : firewall->retry_at;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Waits until there is some; 0: the thread is to end. */
static unsigned wait_for_work(struct priv_firewall *firewall)
{
    unsigned work = 0;
    pthread_mutex_lock(&firewall->lock);
    while (!firewall->stopping) {
        int64_t now = clock_mono_ms(), change = change_at(firewall);
        work = (change <= now ? WORK_CHANGE : 0) |
               (firewall->probe_at <= now || firewall->suspect ? WORK_PROBE : 0) |
               (firewall->check_at <= now ? WORK_CHECK : 0) |
               (firewall->count_at <= now ? WORK_COUNT : 0);
        if (work != 0)
            break;
        int64_t until =
            least(least(change, firewall->probe_at), least(firewall->check_at, firewall->count_at));
        struct timespec at = {.tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000};
        pthread_cond_timedwait(&firewall->work, &firewall->lock, &at);
    }
    pthread_mutex_unlock(&firewall->lock);
    return work;
}

/* All but what a recorded instance has; what cannot be removed now the next start finds. */
static void leave(struct priv_firewall *firewall)
{
    cleanup_free struct netfilter_vm *vms = NULL;
    size_t some = 0;
    struct error ignored = {0};
    pthread_mutex_lock(&firewall->lock);
    for (size_t i = 0; i < firewall->count; i++)
        if (firewall->chains[i].state != PRIV_CHAIN_HELD)
            priv_chain_set(firewall, &firewall->chains[i], PRIV_CHAIN_LEAVING);
    int result = priv_chain_collect(firewall, LEAVING, &vms, NULL, &some, &ignored);
    pthread_mutex_unlock(&firewall->lock);
    if (result == 0 && some > 0)
        result = netfilter_change(firewall->netfilter, NULL, 0, vms, some, &ignored);
    if (result < 0)
        return;
    pthread_mutex_lock(&firewall->lock);
    priv_chain_forget_all(firewall, PRIV_CHAIN_LEAVING);
    (void)priv_chain_publish(firewall, &ignored);
    pthread_mutex_unlock(&firewall->lock);
}

void *priv_firewall_main(void *context)
{
    struct priv_firewall *firewall = context;
    for (unsigned work; (work = wait_for_work(firewall)) != 0;) {
        if (work & WORK_CHANGE)
            change(firewall);
        if (work & (WORK_CHANGE | WORK_PROBE))
            priv_firewall_probe(firewall);
        if (work & WORK_CHECK)
            priv_firewall_look(firewall);
        if (work & WORK_COUNT)
            count(firewall);
    }
    leave(firewall);
    return NULL;
}
