/* The pools there are: what they are of, how many VMs wait in each, and how many are to. */
#include "vmm/pool.h"

struct vmm_pools *vmm_pools_new(void)
{
    pthread_condattr_t monotonic;
    struct vmm_pools *pools = calloc(1, sizeof(*pools));
    if (pools == NULL)
        return NULL;
    pools->demand_ms = VMM_POOL_DEMAND_MS;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&pools->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return pools;
}

void vmm_pools_free(struct vmm_pools *pools)
{
    if (pools != NULL)
        pthread_cond_destroy(&pools->wake);
    free(pools);
}

void vmm_pool_news(struct vmm *vmm)
{
    vmm->pools->news = true;
    pthread_cond_signal(&vmm->pools->wake);
}

void vmm_pool_room(struct vmm *vmm)
{
    for (size_t i = 0; i < vmm->pools->count; i++) {
        struct vmm_pool *pool = &vmm->pools->of[i];
        if (pool->starved)
            pool->retry_ms = 0;
        pool->starved = false;
    }
    if (vmm->pools->count > 0)
        vmm_pool_news(vmm);
}

/* ---- which ---- */

bool vmm_pool_same(const struct vmm_pool_target *a, const struct vmm_pool_target *b)
{
    return strcmp(a->image, b->image) == 0 && a->vcpus == b->vcpus &&
           a->memory_mib == b->memory_mib && a->disk_mib == b->disk_mib &&
           strcmp(a->seccomp, b->seccomp) == 0;
}

struct vmm_pool *vmm_pool_of(struct vmm *vmm, const struct vmm_pool_target *target)
{
    for (size_t i = 0; i < vmm->pools->count; i++)
        if (vmm_pool_same(&vmm->pools->of[i].target, target))
            return &vmm->pools->of[i];
    return NULL;
}

struct vmm_pool *vmm_pool_for(struct vmm *vmm, const struct vmm_spec *spec)
{
    struct vmm_pool_target target = {
        .vcpus = spec->vcpus, .memory_mib = spec->memory_mib, .disk_mib = spec->disk_mib};
    memcpy(target.image, spec->image.name, sizeof(target.image));
    snprintf(target.seccomp, sizeof(target.seccomp), "%s", vmm_seccomp_name(spec->seccomp));
    return vmm_pool_of(vmm, &target);
}

static bool same_kind(const struct vmm_kind *a, const struct vmm_kind *b)
{
    return memcmp(a->image_digest, b->image_digest, HASH_SIZE) == 0 && a->vcpus == b->vcpus &&
           a->memory_mib == b->memory_mib && a->disk_mib == b->disk_mib &&
           a->without == b->without && strcmp(a->seccomp, b->seccomp) == 0 &&
           strcmp(a->labels, b->labels) == 0;
}

struct vmm_pool *vmm_pool_like(struct vmm *vmm, const struct vmm_kind *kind)
{
    for (size_t i = 0; i < vmm->pools->count; i++)
        if (vmm->pools->of[i].known && same_kind(&vmm->pools->of[i].kind, kind))
            return &vmm->pools->of[i];
    return NULL;
}

/* ---- how many ---- */

bool vmm_pool_waits(const struct vmm_machine *machine)
{
    return machine->purpose == STORE_FOR_POOL && machine->phase == VMM_UP && !machine->doomed;
}

uint32_t vmm_pool_count(const struct vmm *vmm, const struct vmm_pool *pool)
{
    uint32_t there = 0;
    for (const struct vmm_machine *m = vmm->machines; m != NULL; m = m->next)
        there += pool->known && vmm_pool_waits(m) && same_kind(&m->kind, &pool->kind);
    return there;
}

uint32_t vmm_pool_wanted(const struct vmm *vmm, const struct vmm_pool *pool, int64_t now_ms,
                         int64_t *ret_ms)
{
    const size_t ring = COUNT_OF(pool->asked_ms);
    uint32_t sum = pool->target.min;
    for (size_t i = 0; i < pool->asked && i < ring; i++) {
        int64_t until = pool->asked_ms[i] + vmm->pools->demand_ms;
        if (until <= now_ms)
            continue;
        sum++;
        *ret_ms = until < *ret_ms ? until : *ret_ms;
    }
    return sum < pool->target.max ? sum : pool->target.max;
}

/* ---- for others ---- */

static void init(struct vmm_pool *pool, const struct vmm_pool_target *target)
{
    *pool = (struct vmm_pool){.target = *target,
                              .kind = {.vcpus = target->vcpus,
                                       .memory_mib = target->memory_mib,
                                       .disk_mib = target->disk_mib}};
    memcpy(pool->kind.seccomp, target->seccomp, sizeof(pool->kind.seccomp));
}

/* What was counted stays with a pool of the same. */
void vmm_pools_set(struct vmm *vmm, const struct vmm_pool_targets *targets)
{
    struct vmm_pool next[VMM_POOLS_MAX];
    pthread_mutex_lock(&vmm->lock);
    for (size_t i = 0; i < targets->count; i++) {
        const struct vmm_pool *old = vmm_pool_of(vmm, &targets->of[i]);
        init(&next[i], &targets->of[i]);
        if (old != NULL)
            next[i] = *old;
        next[i].target = targets->of[i];
        next[i].failed = 0; /* a reload is a reason to try again */
        next[i].retry_ms = 0;
    }
    memcpy(vmm->pools->of, next, targets->count * sizeof(next[0]));
    vmm->pools->count = targets->count;
    vmm->pools->turn = 0;
    vmm_pool_news(vmm);
    pthread_mutex_unlock(&vmm->lock);
}

size_t vmm_pool_states(struct vmm *vmm, struct vmm_pool_state ret[static VMM_POOLS_MAX])
{
    int64_t now = clock_mono_ms(), ignored = INT64_MAX;
    pthread_mutex_lock(&vmm->lock);
    size_t n = vmm->pools->count;
    for (size_t i = 0; i < n; i++) {
        const struct vmm_pool *pool = &vmm->pools->of[i];
        ret[i] = (struct vmm_pool_state){
            .target = pool->target,
            .waiting = vmm_pool_count(vmm, pool),
            .wanted = vmm->cordoned ? 0 : vmm_pool_wanted(vmm, pool, now, &ignored),
            .hits = pool->hits,
            .misses = pool->misses,
            .refills = pool->refills,
            .failures = pool->failures,
            .drained = pool->drained,
        };
    }
    pthread_mutex_unlock(&vmm->lock);
    return n;
}
