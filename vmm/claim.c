/* A VM that waits in the pool becomes a caller's. Its row decides; the machine follows it. */
#include "vmm/pool.h"
#include "vmm/template.h"

/* Is it worth asking the inventory? */
static bool look(struct vmm *vmm, const struct vmm_spec *spec)
{
    pthread_mutex_lock(&vmm->lock);
    const struct vmm_pool *pool = vmm->draining ? NULL : vmm_pool_for(vmm, spec);
    bool waits = pool != NULL && vmm_pool_count(vmm, pool) > 0;
    pthread_mutex_unlock(&vmm->lock);
    return waits;
}

/* Every wish for a VM of a pool counts, there or not; so many more are to wait for the next minute. */
static void count(struct vmm *vmm, const struct vmm_spec *spec, bool hit)
{
    pthread_mutex_lock(&vmm->lock);
    struct vmm_pool *pool = vmm_pool_for(vmm, spec);
    if (pool != NULL && !vmm->cordoned) {
        pool->hits += hit;
        pool->misses += !hit;
        pool->asked_ms[pool->asked++ % COUNT_OF(pool->asked_ms)] = clock_mono_ms();
        vmm_pool_news(vmm);
    }
    pthread_mutex_unlock(&vmm->lock);
}

/* False: its VMM has ended meanwhile. */
static bool take_over(struct vmm *vmm, const struct store_vm *row)
{
    struct vmm_machine *machine = vmm_machine_find(vmm, row->instance);
    if (machine == NULL)
        return false;
    pthread_mutex_lock(&machine->use_lock);
    pthread_mutex_lock(&vmm->lock);
    while (machine->phase == VMM_SPAWNING && !vmm_machine_gone(machine))
        pthread_cond_wait(&vmm->changed, &vmm->lock); /* the row says `running` a moment before */
    bool up = machine->phase == VMM_UP && !machine->doomed && !machine->overdue &&
              !vmm_machine_gone(machine);
    if (up) {
        machine->expires_boot_ms = row->expires_boot_ms;
        machine->idle_ms = row->idle_s * 1000;
        machine->idle_since_boot_ms = row->idle_since_boot_ms;
        machine->on_unresponsive = row->on_unresponsive;
        machine->purpose = STORE_FOR_CALLER;
    }
    pthread_cond_broadcast(&vmm->changed);
    pthread_mutex_unlock(&vmm->lock);
    pthread_mutex_unlock(&machine->use_lock);
    vmm_machine_unref(vmm, machine);
    return up;
}

/* One whose VMM ended under it is put away like any other, and the next one is looked for. */
static int claim(struct vmm *vmm, const struct store_vm *wish, const char *labels,
                 struct store_vm *ret, bool *ret_found, struct error *err)
{
    for (;;) {
        if (store_vm_claim(vmm->config.store, wish, labels, ret, ret_found, err) < 0)
            return -1;
        if (!*ret_found || take_over(vmm, ret))
            return 0;
        *ret_found = false;
        struct vmm_verdict verdict = vmm_verdict(STORE_EXITED, "", "");
        if (vmm_end(vmm, ret->instance, &verdict, err) < 0)
            return -1;
    }
}

int vmm_claim(struct vmm *vmm, const struct vmm_spec *spec, const char *owner, struct store_vm *ret,
              bool *ret_found, struct error *err)
{
    struct store_vm wish = {0};
    char labels[STORE_KEY_LABELS_MAX];
    *ret_found = false;
    if (spec->cold || spec->snapshot[0] != '\0')
        return 0;
    if (look(vmm, spec)) {
        snprintf(wish.owner, sizeof(wish.owner), "%s", owner);
        vmm_row_fill(vmm, spec, &wish);
        vmm_row_live(&wish);
        wish.keep = &spec->keep;
        vmm_image_labels(&spec->kernel, labels);
        if (claim(vmm, &wish, labels, ret, ret_found, err) < 0)
            return -1;
    }
    count(vmm, spec, *ret_found);
    return 0;
}
