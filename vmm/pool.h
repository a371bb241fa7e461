/* The warm pool: what its thread and those who claim from it share. All of it, but for start, stop and
 * yield, is guarded by the table's lock. */
#ifndef MOTTE_VMM_POOL_H
#define MOTTE_VMM_POOL_H

#include "vmm/internal.h"

struct vmm_pool {
    struct vmm_pool_target target;
    bool known;                          /* the image is there, */
    struct vmm_kind kind;                /* and a VM of this pool then is this */
    int64_t asked_ms[VMM_POOL_SIZE_MAX]; /* a ring: when VMs were asked for, there or not */
    size_t asked;
    /* Refills that failed, in a row: the next one not before retry_ms. Starved: for want of room, which
     * may come with the next end. */
    unsigned failed;
    int64_t retry_ms;
    bool starved;
    uint64_t hits, misses, refills, failures, drained;
};

enum { VMM_POOL_DEMAND_MS = 60000 };

struct vmm_pools {
    int64_t demand_ms; /* VMM_POOL_DEMAND_MS, but for a test that cannot wait for it */
    struct vmm_pool of[VMM_POOLS_MAX];
    size_t count, turn;
    bool news;
    char refilling[ID_INSTANCE_SIZE]; /* "": none */
    pthread_cond_t wake;
    pthread_t thread;
    bool started;
};

/* ---- pools.c ---- */

struct vmm_pools *vmm_pools_new(void); /* NULL: out of memory */
void vmm_pools_free(struct vmm_pools *pools);
/* Something changed that the thread may have to follow. */
void vmm_pool_news(struct vmm *vmm);
/* A VM has ended. */
void vmm_pool_room(struct vmm *vmm);

/* The pool of what the spec asks for, of just this target, of VMs like this; or NULL. */
struct vmm_pool *vmm_pool_for(struct vmm *vmm, const struct vmm_spec *spec);
struct vmm_pool *vmm_pool_of(struct vmm *vmm, const struct vmm_pool_target *target);
struct vmm_pool *vmm_pool_like(struct vmm *vmm, const struct vmm_kind *kind);
/* Up, and waits for somebody who asks. */
bool vmm_pool_waits(const struct vmm_machine *machine);
uint32_t vmm_pool_count(const struct vmm *vmm, const struct vmm_pool *pool);
/* How many are to wait. *ret_ms: when it becomes less, if nobody asks; moved nearer only. */
uint32_t vmm_pool_wanted(const struct vmm *vmm, const struct vmm_pool *pool, int64_t now_ms,
                         int64_t *ret_ms);
bool vmm_pool_same(const struct vmm_pool_target *a, const struct vmm_pool_target *b);

/* ---- pool.c ---- */

int vmm_pool_start(struct vmm *vmm, struct error *err);
void vmm_pool_stop(struct vmm *vmm); /* after `stopping` is set */
/* A caller's spawn lacks `need_mib` of memory, or room for another VM (0). Ends a VM of the pool, if
 * that helps. */
bool vmm_pool_yield(struct vmm *vmm, uint64_t need_mib);

#endif
