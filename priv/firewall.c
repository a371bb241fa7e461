/* What the root half's workers ask of the firewall. None of it waits for a commit or for the lock of
 * the tables, but for a chain when none is ready. */
#include "priv/firewall_internal.h"

enum {
    TAKE_TIMEOUT_MS = 10000, /* longer than another program may hold the tables' lock */
    GATHER_MIN_MS = 20,
    GATHER_SHARE = 10, /* commits for retired chains alone take at most one part in so many */
};

/* ---- life ------------------------------------------------------------------------------------ */

static struct priv_firewall *firewall_new(struct priv_server *server)
{
    struct priv_firewall *firewall = calloc(1, sizeof(*firewall));
    pthread_condattr_t monotonic;
    if (firewall == NULL)
        return NULL;
    firewall->server = server;
    firewall->in_sync = true;
    pthread_mutex_init(&firewall->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&firewall->work, &monotonic);
    pthread_cond_init(&firewall->made, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&firewall->reads.lock, NULL);
    pthread_cond_init(&firewall->reads.done, NULL);
    return firewall;
}

int priv_firewall_open(struct priv_server *server, struct priv_firewall **ret, struct error *err)
{
    struct netfilter_config config = {.uid_base = server->config.uid_base,
                                      .uid_count = server->config.uid_count};
    struct priv_firewall *firewall = firewall_new(server);
    if (firewall == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for the firewall");
    if (netfilter_open(&config, &firewall->netfilter, err) < 0) {
        priv_firewall_free(firewall);
        return -1;
    }
    *ret = firewall;
    return 0;
}

void priv_firewall_free(struct priv_firewall *firewall)
{
    if (firewall == NULL)
        return;
    netfilter_free(firewall->netfilter);
    pthread_cond_destroy(&firewall->work);
    pthread_cond_destroy(&firewall->made);
    pthread_mutex_destroy(&firewall->lock);
    pthread_cond_destroy(&firewall->reads.done);
    pthread_mutex_destroy(&firewall->reads.lock);
    free(firewall->chains);
    free(firewall);
}

const struct netfilter *priv_firewall_tables(const struct priv_firewall *firewall)
{
    return firewall->netfilter;
}

int priv_firewall_adopt(struct priv_firewall *firewall, const struct priv_record *record,
                        struct error *err)
{
    struct netfilter_vm vm = priv_chain_vm(record);
    pthread_mutex_lock(&firewall->lock);
    int result = priv_chain_add(firewall, &vm, PRIV_CHAIN_HELD, err);
    pthread_mutex_unlock(&firewall->lock);
    return result;
}

int priv_firewall_settle(struct priv_firewall *firewall, struct error *err)
{
    size_t repairs = 0;
    if (priv_firewall_repair(firewall, &repairs, err) < 0)
        return -1;
    if (repairs > 0)
        priv_tell(firewall->server, LOG_LEVEL_INFO,
                  "the firewall had %zu places that were not as the running VMs need them",
                  repairs);
    return 0;
}

int priv_firewall_start(struct priv_firewall *firewall, struct error *err)
{
    const struct priv_config *config = &firewall->server->config;
    int64_t now = clock_mono_ms();
    firewall->probe_at = now;
    firewall->check_at = now + config->firewall_check_ms;
    firewall->count_at = now + PRIV_COUNT_MS;
    int result = pthread_create(&firewall->thread, NULL, priv_firewall_main, firewall);
    if (result != 0)
        return error_set(err, ERR_SYSTEM, result, "starting the firewall's thread");
    firewall->running = true;
    return 0;
}

void priv_firewall_wake(struct priv_firewall *firewall)
{
    pthread_mutex_lock(&firewall->lock);
    firewall->closing = true;
    pthread_cond_broadcast(&firewall->made);
    pthread_mutex_unlock(&firewall->lock);
}

void priv_firewall_stop(struct priv_firewall *firewall)
{
    pthread_mutex_lock(&firewall->lock);
    firewall->stopping = true;
    pthread_cond_signal(&firewall->work);
    pthread_mutex_unlock(&firewall->lock);
    if (firewall->running)
        pthread_join(firewall->thread, NULL);
    firewall->running = false;
}

int priv_firewall_purge(struct priv_firewall *firewall, struct error *err)
{
    return netfilter_remove_all(firewall->netfilter, err);
}

/* ---- an instance's chain --------------------------------------------------------------------- */

static int out_of_sync(struct error *err)
{
    return error_set(err, ERR_FIREWALL_DRIFT, 0,
                     "another program has changed the firewall; no VM starts until its rules are "
                     "repaired, which is tried each second");
}

/* A spare one, or NULL after the first change that fails from now on. Lock held. */
static struct priv_chain *wait_for_spare(struct priv_firewall *firewall, struct error *err)
{
    const uint64_t failures = firewall->failures;
    int64_t until = clock_mono_ms() + TAKE_TIMEOUT_MS;
    struct timespec at = {.tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000};
    while (firewall->in[PRIV_CHAIN_SPARE] == 0) {
        if (firewall->closing)
            error_set(err, ERR_SHUTTING_DOWN, 0, "motted is stopping; try again in a moment");
        else if (!firewall->in_sync)
            out_of_sync(err);
        else if (firewall->failures != failures)
            *err = firewall->failure;
        else if (clock_mono_ms() >= until)
            error_set(err, ERR_FIREWALL_LOCK, 0, "the firewall has made no chain for %d ms",
                      TAKE_TIMEOUT_MS);
        if (err->code != ERR_NONE)
            return NULL;
        pthread_cond_timedwait(&firewall->made, &firewall->lock, &at);
    }
    for (size_t i = 0; i < firewall->count; i++)
        if (firewall->chains[i].state == PRIV_CHAIN_SPARE)
            return &firewall->chains[i];
    return NULL;
}

int priv_firewall_take(struct priv_firewall *firewall, struct netfilter_vm *ret, struct error *err)
{
    struct priv_chain *chain = NULL;
    pthread_mutex_lock(&firewall->lock);
    if (!firewall->in_sync) {
        out_of_sync(err);
    } else {
        if (firewall->in[PRIV_CHAIN_SPARE] == 0)
            firewall->retry_at = 0;
        firewall->waiting++;
        pthread_cond_signal(&firewall->work);
        chain = wait_for_spare(firewall, err);
        firewall->waiting--;
    }
    if (chain != NULL) {
        *ret = chain->vm;
        priv_chain_set(firewall, chain, PRIV_CHAIN_TAKEN);
        pthread_cond_signal(&firewall->work); /* fewer are left */
    }
    pthread_mutex_unlock(&firewall->lock);
    return chain != NULL ? 0 : -1;
}

int priv_firewall_guard(struct priv_firewall *firewall, const struct priv_record *record,
                        struct error *err)
{
    pthread_mutex_lock(&firewall->lock);
    struct priv_chain *chain = priv_chain_find(firewall, record->instance);
    if (chain != NULL)
        priv_chain_set(firewall, chain, PRIV_CHAIN_HELD);
    bool in_sync = firewall->in_sync;
    pthread_mutex_unlock(&firewall->lock);
    if (chain == NULL)
        return error_set(err, ERR_INTERNAL, 0, "instance %s has no chain", record->instance);
    if (!in_sync)
        return out_of_sync(err);
    if (priv_firewall_check(firewall, record, err) == 0)
        return 0;
    pthread_mutex_lock(&firewall->lock);
    firewall->suspect = firewall->suspect || err->code == ERR_FIREWALL_DRIFT;
    pthread_cond_signal(&firewall->work);
    pthread_mutex_unlock(&firewall->lock);
    return -1;
}

void priv_firewall_unguard(struct priv_firewall *firewall, const char *instance)
{
    struct error ignored = {0}; /* the list is for motte-admin alone */
    pthread_mutex_lock(&firewall->lock);
    struct priv_chain *chain = priv_chain_find(firewall, instance);
    if (chain != NULL && chain->state == PRIV_CHAIN_HELD) {
        priv_chain_set(firewall, chain, PRIV_CHAIN_TAKEN);
        (void)priv_chain_publish(firewall, &ignored);
    }
    pthread_mutex_unlock(&firewall->lock);
}

/* The first to be retired waits for others, the longer the more a commit costs. */
void priv_firewall_retire(struct priv_firewall *firewall, const char *instance)
{
    pthread_mutex_lock(&firewall->lock);
    struct priv_chain *chain = priv_chain_find(firewall, instance);
    if (chain != NULL) {
        int64_t gather = firewall->commit_ms * GATHER_SHARE;
        gather = gather < GATHER_MIN_MS ? GATHER_MIN_MS : gather;
        if (firewall->in[PRIV_CHAIN_RETIRED] == 0)
            firewall->retire_at =
                clock_mono_ms() + (gather < PRIV_GATHER_MAX_MS ? gather : PRIV_GATHER_MAX_MS);
        priv_chain_set(firewall, chain, PRIV_CHAIN_RETIRED);
        pthread_cond_signal(&firewall->work);
    }
    pthread_mutex_unlock(&firewall->lock);
}

/* ---- what is shown --------------------------------------------------------------------------- */

void priv_firewall_host(struct priv_firewall *firewall, struct priv_host *ret)
{
    ret->firewall_v4 = netfilter_state(firewall->netfilter, false);
    ret->firewall_v6 = netfilter_state(firewall->netfilter, true);
    pthread_mutex_lock(&firewall->lock);
    ret->firewall_in_sync = firewall->in_sync;
    ret->firewall_spares = (uint32_t)firewall->in[PRIV_CHAIN_SPARE];
    ret->firewall_repairs = firewall->repairs;
    ret->firewall_drifts = firewall->drifts;
    ret->firewall_dropped = firewall->dropped_gone;
    for (size_t i = 0; i < firewall->count; i++)
        ret->firewall_dropped += firewall->chains[i].dropped;
    pthread_mutex_unlock(&firewall->lock);
}

void priv_firewall_drops(struct priv_firewall *firewall, uint32_t index, struct priv_drops *ret)
{
    pthread_mutex_lock(&firewall->lock);
    for (size_t i = 0; i < firewall->count; i++) {
        const struct priv_chain *chain = &firewall->chains[i];
        if (chain->state != PRIV_CHAIN_HELD || chain->dropped == 0 || index-- > 0)
            continue;
        memcpy(ret->instance, chain->vm.instance, ID_INSTANCE_SIZE);
        ret->packets = chain->dropped;
        break;
    }
    pthread_mutex_unlock(&firewall->lock);
}
