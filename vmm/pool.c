/* The warm pool: one thread keeps as many VMs waiting as the configuration and the last minute's
 * wishes say. It makes them by the ordinary saga, one at a time and only while no caller's spawn is
 * under way, sleeps until something happens, and ends what is too much, or of no use any more. */
#include "vmm/pool.h"
#include "vmm/template.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <time.h>

enum { RETRY_MS = 1000, RETRY_MAX_MS = 60000 };

/* ---- what to do next ---- */

struct plan {
    enum { WAIT, END, REFILL } what;
    int64_t until_ms; /* WAIT: or until there is news */
    char instance[ID_INSTANCE_SIZE];
    struct vmm_pool_target target;
};

/* One too many, or of none of the pools; the newest stay. The table has them newest first. */
static bool plan_end(struct vmm *vmm, int64_t now, struct plan *plan)
{
    uint32_t kept[VMM_POOLS_MAX] = {0};
    for (const struct vmm_machine *m = vmm->machines; m != NULL; m = m->next) {
        if (!vmm_pool_waits(m))
            continue;
        const struct vmm_pool *pool = vmm->cordoned ? NULL : vmm_pool_like(vmm, &m->kind);
        if (pool != NULL &&
            kept[pool - vmm->pools->of]++ < vmm_pool_wanted(vmm, pool, now, &plan->until_ms))
            continue;
        plan->what = END;
        memcpy(plan->instance, m->instance, sizeof(plan->instance));
        return true;
    }
    return false;
}

/* In turn, so that one that is claimed from all the time does not starve the others. */
static void plan_refill(struct vmm *vmm, int64_t now, struct plan *plan)
{
    struct vmm_pools *pools = vmm->pools;
    for (size_t n = 0; n < pools->count; n++) {
        const struct vmm_pool *pool = &pools->of[(pools->turn + n) % pools->count];
        if (vmm_pool_count(vmm, pool) >= vmm_pool_wanted(vmm, pool, now, &plan->until_ms))
            continue;
        if (now < pool->retry_ms) {
            plan->until_ms = pool->retry_ms < plan->until_ms ? pool->retry_ms : plan->until_ms;
            continue;
        }
        plan->what = REFILL;
        plan->target = pool->target;
        pools->turn = (pools->turn + n + 1) % pools->count;
        return;
    }
}

static struct plan make_plan(struct vmm *vmm)
{
    struct plan plan = {.what = WAIT, .until_ms = INT64_MAX};
    int64_t now = clock_mono_ms();
    if (!vmm->recovered || vmm->draining || plan_end(vmm, now, &plan))
        return plan;
    if (vmm->spawns == 0 && !vmm->cordoned)
        plan_refill(vmm, now, &plan);
    return plan;
}

/* ---- doing it ---- */

/* An image or its kernel may have been replaced under its name. What cannot be read now stays what it
 * was. */
static void look_up(struct vmm *vmm)
{
    struct vmm_pool_targets targets = {0};
    pthread_mutex_lock(&vmm->lock);
    for (; targets.count < vmm->pools->count; targets.count++)
        targets.of[targets.count] = vmm->pools->of[targets.count].target;
    pthread_mutex_unlock(&vmm->lock);
    for (size_t i = 0; i < targets.count; i++) {
        struct image image;
        struct image_kernel kernel;
        struct error err = {0};
        int found = image_find(vmm->config.state_dir, targets.of[i].image, &image, &err);
        if (found == 0)
            found = image_kernel_load(vmm->config.state_dir, image.kernel, &kernel, &err);
        pthread_mutex_lock(&vmm->lock);
        struct vmm_pool *pool = vmm_pool_of(vmm, &targets.of[i]);
        if (pool != NULL && found == 0) {
            pool->known = true;
            pool->kind.without = vmm->host.without;
            memcpy(pool->kind.image_digest, image.digest, HASH_SIZE);
            vmm_image_labels(&kernel, pool->kind.labels);
        } else if (pool != NULL && err.code == ERR_IMAGE_UNKNOWN) {
            pool->known = false;
        }
        pthread_mutex_unlock(&vmm->lock);
    }
}

/* Nobody claims it any more once its row says so. False: there may be no more room than before. */
static bool end_one(struct vmm *vmm, const char *instance, const char *why)
{
    bool done = false;
    struct error err = {0};
    struct vmm_verdict verdict = vmm_verdict(STORE_EXITED, "drained", why);
    if (store_vm_retire(vmm->config.store, instance, &done, &err) == 0 && done)
        (void)vmm_end(vmm, instance, &verdict, &err); /* the reaper tries again */
    return err.code == ERR_NONE;
}

/* As a caller would ask for it; one that hangs is of no use. */
static int make_spec(struct vmm *vmm, const struct vmm_pool_target *target, struct vmm_spec **ret,
                     struct error *err)
{
    struct priv_host host;
    cleanup_json cJSON *body = cJSON_CreateObject();
    vmm_host(vmm, &host);
    if (json_add_string(body, "image", target->image) < 0 ||
        json_add_number(body, "vcpus", target->vcpus) < 0 ||
        json_add_number(body, "memory_mib", target->memory_mib) < 0 ||
        json_add_number(body, "disk_mib", target->disk_mib) < 0 ||
        json_add_string(body, "seccomp", target->seccomp) < 0 ||
        json_add_number(body, "ttl_s", VMM_TTL_MAX_S) < 0 ||
        json_add_string(body, "on_unresponsive", "delete") < 0)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a pooled VM");
    if (vmm_spec_new(body, &host, vmm->config.state_dir, target->image, ret, err) < 0)
        return -1;
    (*ret)->purpose = STORE_FOR_POOL;
    vmm_image_labels(&(*ret)->kernel, (*ret)->labels);
    return 0;
}

/* NULL: none. One that begins while the engine stops is stopped too. */
static void set_refilling(struct vmm *vmm, const char *instance)
{
    pthread_mutex_lock(&vmm->lock);
    snprintf(vmm->pools->refilling, ID_INSTANCE_SIZE, "%s", instance == NULL ? "" : instance);
    bool stopping = vmm->stopping && instance != NULL;
    pthread_mutex_unlock(&vmm->lock);
    struct vmm_machine *machine = stopping ? vmm_machine_find(vmm, instance) : NULL;
    if (machine != NULL)
        eventfd_write(machine->cancel, 1);
    vmm_machine_unref(vmm, machine);
}

static int refill(struct vmm *vmm, const struct vmm_pool_target *target, struct error *err)
{
    struct store_vm row;
    struct vmm_spec *spec = NULL;
    struct vmm_spawning *spawning = NULL;
    if (make_spec(vmm, target, &spec, err) < 0 ||
        vmm_spawn_begin(vmm, spec, STORE_OWNER_ITSELF, &spawning, &row, err) < 0)
        return -1;
    set_refilling(vmm, row.instance);
    int result = vmm_spawn_finish(spawning, &row, err);
    set_refilling(vmm, NULL);
    return result;
}

/* What failed is tried again ever more seldom. */
static void settle(struct vmm *vmm, const struct vmm_pool_target *target, const struct error *err)
{
    bool stopped =
        err->code == ERR_CANCELLED || err->code == ERR_SHUTTING_DOWN || err->code == ERR_CORDONED;
    int64_t wait_ms = RETRY_MS;
    pthread_mutex_lock(&vmm->lock);
    struct vmm_pool *pool = vmm_pool_of(vmm, target);
    if (pool != NULL && err->code == ERR_NONE) {
        pool->refills++;
        pool->failed = 0;
        pool->retry_ms = 0;
    } else if (pool != NULL) {
        pool->failures += !stopped;
        for (unsigned i = 0; i < pool->failed && wait_ms < RETRY_MAX_MS; i++)
            wait_ms *= 2;
        wait_ms = wait_ms < RETRY_MAX_MS ? wait_ms : RETRY_MAX_MS;
        pool->failed++;
        pool->retry_ms = clock_mono_ms() + wait_ms;
        pool->starved = err->code == ERR_CAPACITY;
    }
    pthread_mutex_unlock(&vmm->lock);
    if (err->code != ERR_NONE && !stopped)
        vmm->config.observer.refill(vmm->config.observer.context, target, err, wait_ms);
}

static void carry_out(struct vmm *vmm, const struct plan *plan)
{
    struct error err = {0};
    if (plan->what == END) {
        (void)end_one(vmm, plan->instance,
                      "it waited in the pool, and is not needed there any more");
        return;
    }
    (void)refill(vmm, &plan->target, &err);
    settle(vmm, &plan->target, &err);
}

static void sleep_until(struct vmm *vmm, int64_t until_ms)
{
    const struct timespec until = {.tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000};
    if (until_ms == INT64_MAX)
        pthread_cond_wait(&vmm->pools->wake, &vmm->lock);
    else
        pthread_cond_timedwait(&vmm->pools->wake, &vmm->lock, &until);
}

static void *pool_main(void *context)
{
    struct vmm *vmm = context;
    pthread_mutex_lock(&vmm->lock);
    while (!vmm->stopping) {
        vmm->pools->news = false;
        pthread_mutex_unlock(&vmm->lock);
        look_up(vmm);
        pthread_mutex_lock(&vmm->lock);
        struct plan plan = make_plan(vmm);
        if (plan.what == WAIT) {
            while (!vmm->stopping && !vmm->pools->news && clock_mono_ms() < plan.until_ms)
                sleep_until(vmm, plan.until_ms);
            continue;
        }
        pthread_mutex_unlock(&vmm->lock);
        carry_out(vmm, &plan);
        pthread_mutex_lock(&vmm->lock);
    }
    pthread_mutex_unlock(&vmm->lock);
    return NULL;
}

int vmm_pool_start(struct vmm *vmm, struct error *err)
{
    int sys = pthread_create(&vmm->pools->thread, NULL, pool_main, vmm);
    if (sys != 0)
        return error_set(err, ERR_SYSTEM, sys, "starting the pool's thread");
    vmm->pools->started = true;
    return 0;
}

/* Not before a VM that is just made is undone; VMs that wait run on. */
void vmm_pool_stop(struct vmm *vmm)
{
    char instance[ID_INSTANCE_SIZE];
    if (!vmm->pools->started)
        return;
    pthread_mutex_lock(&vmm->lock);
    memcpy(instance, vmm->pools->refilling, sizeof(instance));
    vmm_pool_news(vmm);
    pthread_mutex_unlock(&vmm->lock);
    if (instance[0] != '\0')
        set_refilling(vmm, instance);
    pthread_join(vmm->pools->thread, NULL);
}

/* ---- under pressure ---- */

/* The oldest of them. The table has them newest first. */
static bool choose(struct vmm *vmm, uint64_t need_mib, char out[static ID_INSTANCE_SIZE])
{
    uint64_t sum_mib = 0;
    const struct vmm_machine *oldest = NULL;
    for (const struct vmm_machine *m = vmm->machines; m != NULL; m = m->next) {
        if (!vmm_pool_waits(m))
            continue;
        sum_mib += m->kind.memory_mib;
        oldest = m;
    }
    if (oldest == NULL || sum_mib < need_mib)
        return false;
    struct vmm_pool *pool = vmm_pool_like(vmm, &oldest->kind);
    if (pool != NULL)
        pool->drained++;
    memcpy(out, oldest->instance, ID_INSTANCE_SIZE);
    return true;
}

bool vmm_pool_yield(struct vmm *vmm, uint64_t need_mib)
{
    char instance[ID_INSTANCE_SIZE];
    pthread_mutex_lock(&vmm->lock);
    bool found = choose(vmm, need_mib, instance);
    pthread_mutex_unlock(&vmm->lock);
    return found && end_one(vmm, instance, "it waited in the pool, and a caller's VM had no room");
}
