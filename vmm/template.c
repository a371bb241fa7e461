/* Templates: VMs that boot for a snapshot of their image alone, and end then. No command ever runs in
 * one. One thread makes one at a time, when no caller's spawn is under way, and gives its room to
 * callers who need it. */
#include "vmm/template.h"

#include <errno.h>
#include <time.h>

enum {
    PATIENCE_MS = 2000,    /* callers' spawns come first, but not for ever */
    YIELD_MS = 1000,       /* after a template had to make room */
    RETRY_MS = 1000,       /* after the second failure in a row, twice as long after each more, */
    RETRY_MAX_MS = 600000, /* to this; after so long without one there was none */
};

bool vmm_template_serves(const struct vmm *vmm, const struct vmm_spec *spec)
{
    return vmm->config.image_snapshots > 0 && !spec->cold && spec->snapshot[0] == '\0';
}

struct store_image_key vmm_image_key(const struct vmm *vmm, const struct vmm_spec *spec)
{
    struct store_image_key key = {
        .vcpus = spec->vcpus, .memory_mib = spec->memory_mib, .disk_mib = spec->disk_mib};
    memcpy(key.image_digest, spec->image.digest, HASH_SIZE);
    snprintf(key.seccomp, sizeof(key.seccomp), "%s", vmm_seccomp_name(spec->seccomp));
    snprintf(key.hypervisor, sizeof(key.hypervisor), "%s", vmm->hypervisor->name);
    vmm_image_labels(&spec->kernel, key.labels);
    return key;
}

/* ---- who wishes for one ---- */

/* What a template is made of, and nothing of the caller's. NULL: out of memory. */
static struct vmm_spec *template_spec(const struct vmm_spec *spec)
{
    struct vmm_spec *made = calloc(1, sizeof(*made));
    if (made == NULL)
        return NULL;
    made->image = spec->image;
    made->kernel = spec->kernel;
    made->vcpus = spec->vcpus;
    made->memory_mib = spec->memory_mib;
    made->disk_mib = spec->disk_mib;
    made->seccomp = spec->seccomp;
    made->ttl_s = VMM_TTL_DEFAULT_S;
    made->cold = true;
    made->purpose = STORE_FOR_TEMPLATE;
    snprintf(made->labels, sizeof(made->labels), "{}");
    return made;
}

/* The one for the key, else a free place, else that of one that nobody waits for; or NULL. The table's
 * lock is held. */
static struct vmm_wish *place_for(struct vmm_templates *templates,
                                  const struct store_image_key *key)
{
    struct vmm_wish *place = NULL;
    for (size_t i = 0; i < VMM_WISHES_MAX; i++) {
        struct vmm_wish *wish = &templates->wishes[i];
        if (memcmp(&wish->key, key, sizeof(*key)) == 0)
            return wish;
        bool idle = wish->spec == NULL && wish != templates->making;
        if (idle && (place == NULL || wish->failed_ms < place->failed_ms))
            place = wish;
    }
    if (place != NULL)
        *place = (struct vmm_wish){.key = *key};
    return place;
}

/* The table's lock is held. */
static void count_failure(struct vmm_wish *wish)
{
    const int64_t now = clock_mono_ms();
    if (now - wish->failed_ms > RETRY_MAX_MS)
        wish->failures = 0;
    unsigned doublings = wish->failures < 11 ? wish->failures : 11;
    int64_t wait = doublings == 0 ? 0 : (int64_t)RETRY_MS << (doublings - 1);
    wish->failures++;
    wish->failed_ms = now;
    wish->not_before_ms = now + (wait < RETRY_MAX_MS ? wait : RETRY_MAX_MS);
}

void vmm_template_ask(struct vmm *vmm, const struct vmm_spec *spec, bool failed)
{
    struct vmm_templates *templates = vmm->templates;
    const struct store_image_key key = vmm_image_key(vmm, spec);
    pthread_mutex_lock(&vmm->lock);
    struct vmm_wish *wish = place_for(templates, &key);
    if (wish != NULL && failed)
        count_failure(wish);
    if (wish != NULL && wish->spec == NULL && wish != templates->making &&
        clock_mono_ms() >= wish->not_before_ms) {
        wish->spec = template_spec(spec);
        wish->since_ms = clock_mono_ms();
        pthread_cond_signal(&templates->wake);
    }
    pthread_mutex_unlock(&vmm->lock);
}

/* ---- making one ---- */

/* From here on it can be ended by others. */
static void announce(struct vmm *vmm, const char *instance)
{
    pthread_mutex_lock(&vmm->lock);
    snprintf(vmm->templates->instance, sizeof(vmm->templates->instance), "%s", instance);
    pthread_cond_broadcast(&vmm->changed);
    pthread_mutex_unlock(&vmm->lock);
}

/* Its agent has said hello and no session was ever opened: it is as quiet as it can be. The least used
 * goes first, so that there are never more than there may be. */
static int keep(struct vmm *vmm, struct vmm_machine *machine, const char *labels, struct error *err)
{
    const struct vmm_snapshot_wish wish = {.labels = labels, .kind = STORE_OF_IMAGE};
    struct store_snapshot made;
    vmm_image_snapshots_trim(vmm, vmm->config.image_snapshots - 1);
    return vmm_snapshot_make(vmm, machine, &wish, &made, err);
}

static int build(struct vmm *vmm, struct vmm_spec *spec, const char *labels, struct error *err)
{
    struct vmm_spawning *spawning = NULL;
    struct store_vm row;
    struct error ignored = {0};
    if (vmm_spawn_begin(vmm, spec, STORE_OWNER_ITSELF, &spawning, &row, err) < 0)
        return -1;
    announce(vmm, row.instance);
    if (vmm_spawn_finish(spawning, &row, err) < 0)
        return -1;
    struct vmm_machine *machine = vmm_machine_find(vmm, row.instance);
    if (machine == NULL)
        return error_set(err, ERR_VM_GONE, 0, "the template ended at once");
    int result = keep(vmm, machine, labels, err);
    const struct vmm_verdict verdict = vmm_verdict(STORE_EXITED, "deleted", "");
    (void)vmm_end(vmm, row.instance, &verdict, &ignored); /* the reaper tries again */
    vmm_machine_unref(vmm, machine);
    return result;
}

/* What passes without anybody's doing about the image. */
static bool is_put_off(const struct error *err)
{
    return err->code == ERR_CAPACITY || err->code == ERR_DISK_FULL || err->code == ERR_CORDONED ||
           err->code == ERR_SHUTTING_DOWN || error_is_shortage(err);
}

/* With the table's lock, which it gives back meanwhile. */
static void make(struct vmm *vmm, struct vmm_wish *wish)
{
    struct vmm_templates *templates = vmm->templates;
    const struct vmm_observer *observer = &vmm->config.observer;
    struct vmm_spec *spec = TAKE_PTR(wish->spec);
    const struct store_image_key key = wish->key;
    char there[ID_INSTANCE_SIZE] = "";
    struct error err = {0}, ignored = {0};
    templates->making = wish;
    templates->instance[0] = '\0';
    templates->unwanted = templates->ended = false;
    templates->turn++;
    pthread_mutex_unlock(&vmm->lock);
    /* who asked may have looked a moment before the last one was there */
    (void)store_image_snapshot_find(vmm->config.store, &key, there, &ignored);
    int result = 0;
    if (there[0] == '\0')
        result = build(vmm, spec, key.labels, &err);
    else
        vmm_spec_free(spec);
    pthread_mutex_lock(&vmm->lock);
    bool put_off = templates->unwanted || is_put_off(&err);
    if (result < 0 && put_off)
        templates->quiet_ms = clock_mono_ms() + YIELD_MS;
    else if (result < 0)
        count_failure(wish);
    templates->making = NULL;
    pthread_cond_broadcast(&vmm->changed);
    pthread_mutex_unlock(&vmm->lock);
    if (there[0] == '\0')
        observer->image_snapshot(observer->context,
                                 result == 0 ? VMM_IMAGE_BUILT
                                 : put_off   ? VMM_IMAGE_PUT_OFF
                                             : VMM_IMAGE_NOT_BUILT,
                                 result == 0 ? NULL : &err);
    pthread_mutex_lock(&vmm->lock);
}

/* The one that waits longest, if its time has come; else *ret_ms is when to look again. */
static struct vmm_wish *next_wish(struct vmm *vmm, int64_t *ret_ms)
{
    struct vmm_templates *templates = vmm->templates;
    struct vmm_wish *first = NULL;
    for (size_t i = 0; i < VMM_WISHES_MAX; i++) {
        struct vmm_wish *wish = &templates->wishes[i];
        if (wish->spec != NULL && (first == NULL || wish->since_ms < first->since_ms))
            first = wish;
    }
    *ret_ms = INT64_MAX;
    if (first == NULL || vmm->draining)
        return NULL;
    *ret_ms = vmm->spawns > 0 ? first->since_ms + PATIENCE_MS : 0;
    if (*ret_ms < templates->quiet_ms)
        *ret_ms = templates->quiet_ms;
    return clock_mono_ms() >= *ret_ms ? first : NULL;
}

static void wait_until(struct vmm *vmm, int64_t ms)
{
    const struct timespec until = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    if (ms == INT64_MAX)
        pthread_cond_wait(&vmm->templates->wake, &vmm->lock);
    else
        pthread_cond_timedwait(&vmm->templates->wake, &vmm->lock, &until);
}

static void *template_main(void *context)
{
    struct vmm *vmm = context;
    pthread_mutex_lock(&vmm->lock);
    while (!vmm->templates->stopping) {
        int64_t ms = 0;
        struct vmm_wish *wish = next_wish(vmm, &ms);
        if (wish != NULL)
            make(vmm, wish);
        else
            wait_until(vmm, ms);
    }
    pthread_mutex_unlock(&vmm->lock);
    return NULL;
}

bool vmm_template_yield(struct vmm *vmm)
{
    struct vmm_templates *templates = vmm->templates;
    const struct vmm_verdict verdict = vmm_verdict(STORE_EXITED, "deleted", "");
    pthread_mutex_lock(&vmm->lock);
    const uint64_t turn = templates->turn;
    bool any = templates->making != NULL;
    templates->unwanted |= any;
    while (templates->making != NULL && templates->turn == turn) {
        if (templates->instance[0] == '\0' || templates->ended) {
            pthread_cond_wait(&vmm->changed, &vmm->lock);
            continue;
        }
        char instance[ID_INSTANCE_SIZE];
        struct error ignored = {0}; /* the reaper tries again */
        memcpy(instance, templates->instance, sizeof(instance));
        templates->ended = true;
        pthread_mutex_unlock(&vmm->lock);
        (void)vmm_end(vmm, instance, &verdict, &ignored);
        pthread_mutex_lock(&vmm->lock);
    }
    pthread_mutex_unlock(&vmm->lock);
    return any;
}

int vmm_template_start(struct vmm *vmm, struct error *err)
{
    if (vmm->config.image_snapshots == 0)
        return 0;
    int sys = pthread_create(&vmm->templates->thread, NULL, template_main, vmm);
    if (sys != 0)
        return error_set(err, ERR_SYSTEM, sys, "starting the thread for snapshots of images");
    vmm->templates->started = true;
    return 0;
}

void vmm_template_stop(struct vmm *vmm)
{
    struct vmm_templates *templates = vmm->templates;
    pthread_mutex_lock(&vmm->lock);
    templates->stopping = true;
    pthread_cond_broadcast(&templates->wake);
    pthread_mutex_unlock(&vmm->lock);
    if (templates->started) {
        (void)vmm_template_yield(vmm);
        pthread_join(templates->thread, NULL);
    }
}

struct vmm_templates *vmm_templates_new(void)
{
    pthread_condattr_t monotonic;
    struct vmm_templates *templates = calloc(1, sizeof(*templates));
    if (templates == NULL)
        return NULL;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&templates->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return templates;
}

void vmm_templates_free(struct vmm_templates *templates)
{
    if (templates == NULL)
        return;
    for (size_t i = 0; i < VMM_WISHES_MAX; i++)
        vmm_spec_free(templates->wishes[i].spec);
    pthread_cond_destroy(&templates->wake);
    free(templates);
}
