/* The warm pool (R20): what waits, who has it, and what it gives way to. A plain program, so that
 * ThreadSanitizer can run it. */
#include "tests/unit/vmm/engine.h"
#include "vmm/pool.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

static char catalogue[32];

static void put(int dir, const char *path, const char *text)
{
    CHECK(fs_replace_at(dir, path, text, strlen(text), 0444) == 0);
}

/* One with the image `script`. */
static int make_catalogue(void)
{
    static const char *const dirs[] = {"images", "images/script", "kernels", "kernels/script"};
    static const char zeros[] = "00000000000000000000000000000000"
                                "00000000000000000000000000000000";
    char text[256];
    snprintf(catalogue, sizeof(catalogue), "/tmp/motte-pool-XXXXXX");
    CHECK(mkdtemp(catalogue) != NULL);
    int dir = open(catalogue, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < COUNT_OF(dirs); i++)
        CHECK(mkdirat(dir, dirs[i], 0755) == 0);
    snprintf(text, sizeof(text), "digest = %s\nsize = 4\nkernel = script\ncreated = 1\n", zeros);
    put(dir, "images/script/manifest", text);
    snprintf(text, sizeof(text), "vmlinux = %s\n", zeros);
    put(dir, "kernels/script/manifest", text);
    return dir;
}

/* A pool from now on, also after a restart. */
static void set_pool(struct engine *engine, uint32_t min, uint32_t max)
{
    char text[64];
    struct error err = {0};
    engine->pools = (struct vmm_pool_targets){0};
    snprintf(text, sizeof(text), "script,memory-mib=%d,min=%u,max=%u", VMM_MEMORY_MIN_MIB, min,
             max);
    CHECK(vmm_pool_add(&engine->pools, text, &err) == 0);
    vmm_pools_set(engine->vmm, &engine->pools);
}

static void no_pool(struct engine *engine)
{
    engine->pools = (struct vmm_pool_targets){0};
    vmm_pools_set(engine->vmm, &engine->pools);
}

static struct vmm_pool_state state(struct engine *engine)
{
    struct vmm_pool_state states[VMM_POOLS_MAX];
    CHECK(vmm_pool_states(engine->vmm, states) == 1);
    return states[0];
}

static void await_waiting(struct engine *engine, uint32_t count)
{
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    while (state(engine).waiting != count || state(engine).wanted != count) {
        CHECK(clock_mono_ms() < deadline);
        poll(NULL, 0, LOOK_MS);
    }
}

/* A VM may be claimed a moment before it is counted. */
static void await_refills(struct engine *engine, uint64_t count)
{
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    while (state(engine).refills != count) {
        CHECK(clock_mono_ms() < deadline);
        poll(NULL, 0, LOOK_MS);
    }
}

static bool claim(struct engine *engine, const char *id, const char *more, struct store_vm *ret)
{
    char body[128];
    struct priv_host host;
    struct error err = {0};
    struct vmm_spec *spec = NULL;
    cleanup_json cJSON *json = NULL;
    bool found = false;
    vmm_host(engine->vmm, &host);
    snprintf(body, sizeof(body), "{\"id\":\"%s\",\"memory_mib\":%d%s}", id, VMM_MEMORY_MIN_MIB,
             more);
    CHECK(json_parse(body, strlen(body), &json, &err) == 0);
    CHECK(vmm_spec_new(json, &host, engine->state_dir, "script", &spec, &err) == 0);
    CHECK(vmm_claim(engine->vmm, spec, "owner", ret, &found, &err) == 0);
    vmm_spec_free(spec);
    return found;
}

static void use_and_remove(struct engine *engine, const char *id)
{
    struct error err = {0};
    CHECK(engine_exec(engine, id, &err) == 0);
    CHECK(vmm_delete(engine->vmm, "owner", id, &err) == 0);
}

/* ---- the tests ---- */

static void it_follows_what_is_asked_for(struct engine *engine)
{
    struct store_vm vm;
    set_pool(engine, 2, 3);
    await_waiting(engine, 2);
    await_refills(engine, 2);
    CHECK(state(engine).hits == 0);
    CHECK(!claim(engine, "other", ",\"vcpus\":2", &vm) &&
          !claim(engine, "x", ",\"cold\":true", &vm));
    CHECK(claim(engine, "vm", ",\"idle\":{\"after_s\":50}", &vm));
    CHECK(vm.source == STORE_FROM_POOL && vm.state == STORE_RUNNING);
    struct vmm_machine *machine = vmm_machine_find(engine->vmm, vm.instance);
    pthread_mutex_lock(&engine->vmm->lock);
    CHECK(machine->expires_boot_ms == vm.expires_boot_ms && machine->idle_ms == 50000);
    CHECK(machine->on_unresponsive == STORE_KEEP && machine->purpose == STORE_FOR_CALLER);
    pthread_mutex_unlock(&engine->vmm->lock);
    vmm_machine_unref(engine->vmm, machine);
    await_waiting(engine, 3); /* one was asked for just now */
    CHECK(state(engine).hits == 1 && state(engine).misses == 0);
    pthread_mutex_lock(&engine->vmm->lock);
    engine->vmm->pools->demand_ms = 300;
    vmm_pool_news(engine->vmm);
    pthread_mutex_unlock(&engine->vmm->lock);
    await_waiting(engine, 2); /* and that is long ago */
    use_and_remove(engine, "vm");
    set_pool(engine, 1, 1);
    await_waiting(engine, 1);
    no_pool(engine);
}

enum { CLAIMS = 8 };

struct claiming {
    struct engine *engine;
    struct store_vm vm;
    int number;
    pthread_t thread;
};

static void *claim_main(void *context)
{
    struct claiming *claiming = context;
    char id[16];
    snprintf(id, sizeof(id), "vm-%d", claiming->number);
    CHECK(claim(claiming->engine, id, "", &claiming->vm));
    use_and_remove(claiming->engine, id);
    return NULL;
}

static void each_goes_to_one(struct engine *engine)
{
    static struct claiming claims[CLAIMS];
    set_pool(engine, CLAIMS, CLAIMS);
    await_waiting(engine, CLAIMS);
    for (int i = 0; i < CLAIMS; i++) {
        claims[i] = (struct claiming){.engine = engine, .number = i};
        CHECK(pthread_create(&claims[i].thread, NULL, claim_main, &claims[i]) == 0);
    }
    for (int i = 0; i < CLAIMS; i++)
        CHECK(pthread_join(claims[i].thread, NULL) == 0);
    for (int i = 0; i < CLAIMS; i++)
        for (int j = 0; j < i; j++)
            CHECK(strcmp(claims[i].vm.instance, claims[j].vm.instance) != 0);
    no_pool(engine);
}

static int64_t await_failures(struct engine *engine, uint64_t count)
{
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    while (state(engine).failures < count) {
        CHECK(clock_mono_ms() < deadline);
        poll(NULL, 0, LOOK_MS);
    }
    return clock_mono_ms();
}

static void what_fails_is_tried_ever_more_seldom(struct engine *engine)
{
    root_plan(&engine->root, (struct plan){.fail = AT_HELLO, .die = AT_HELLO});
    set_pool(engine, 1, 1);
    int64_t first = await_failures(engine, 1), second = await_failures(engine, 2);
    int64_t third = await_failures(engine, 3);
    CHECK(second - first >= 700 && third - second >= 1500);
    CHECK(state(engine).waiting == 0 && state(engine).refills == 0);
    root_plan(&engine->root, (struct plan){0});
    set_pool(engine, 1, 1); /* a reload does not wait */
    int64_t begin = clock_mono_ms();
    await_waiting(engine, 1);
    CHECK(clock_mono_ms() - begin < 3000); /* four seconds otherwise */
    no_pool(engine);
}

/* ---- what it gives way to ---- */

struct spawning {
    struct engine *engine;
    struct store_vm vm;
    int release; /* eventfd */
    atomic_bool held;
    pthread_t thread;
};

static void hold(void *context, const char *instance)
{
    struct spawning *spawning = context;
    eventfd_t ignored = 0;
    (void)instance;
    atomic_store(&spawning->held, true);
    CHECK(eventfd_read(spawning->release, &ignored) == 0);
}

static void *spawn_main(void *context)
{
    struct spawning *spawning = context;
    struct error err = {0};
    CHECK(engine_spawn(spawning->engine, "vm", 600, &spawning->vm, &err) == 0);
    return NULL;
}

static void wait_true(const atomic_bool *flag)
{
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    while (!atomic_load(flag)) {
        CHECK(clock_mono_ms() < deadline);
        poll(NULL, 0, LOOK_MS);
    }
}

static struct store_vm only_pooled(struct engine *engine)
{
    struct error err = {0};
    struct store_vm *rows = NULL, found = {0};
    size_t count = 0;
    CHECK(store_vm_all(engine->fixture.store, &rows, &count, &err) == 0);
    for (size_t i = 0; i < count; i++)
        if (rows[i].purpose == STORE_FOR_POOL)
            found = rows[i];
    free(rows);
    CHECK(found.instance[0] != '\0');
    return found;
}

static void callers_spawns_come_first(struct engine *engine)
{
    static struct spawning spawning;
    spawning = (struct spawning){.engine = engine, .release = eventfd(0, EFD_CLOEXEC)};
    root_plan(&engine->root, (struct plan){.call = AT_START, .action = hold, .context = &spawning});
    CHECK(pthread_create(&spawning.thread, NULL, spawn_main, &spawning) == 0);
    wait_true(&spawning.held);
    root_plan(&engine->root, (struct plan){0});
    set_pool(engine, 1, 1);
    poll(NULL, 0, 200); /* time in which it must not begin */
    CHECK(eventfd_write(spawning.release, 1) == 0 && pthread_join(spawning.thread, NULL) == 0);
    await_waiting(engine, 1);
    struct store_vm pooled = only_pooled(engine);
    CHECK(pooled.created_wall_ms >= spawning.vm.state_wall_ms);
    use_and_remove(engine, "vm");
    no_pool(engine);
    close(spawning.release);
}

static void it_makes_room_for_a_callers(struct engine *engine)
{
    struct plan refused = {.fail = AT_RESERVE}; /* all uids are taken, or so */
    struct store_vm vm;
    struct priv_host host;
    struct error err = {0};
    vmm_host(engine->vmm, &host);
    set_pool(engine, 3, 3);
    await_waiting(engine, 3);
    engine->memory_mib = host.total_memory_mib - VMM_MEMORY_MIN_MIB;
    CHECK(engine_spawn(engine, "big", 600, &vm, &err) == 0);
    CHECK(state(engine).drained == 2);
    use_and_remove(engine, "big");
    await_waiting(engine, 3);
    engine->memory_mib = host.total_memory_mib + 1;
    CHECK(engine_spawn(engine, "bigger", 600, &vm, &err) < 0 && err.code == ERR_CAPACITY);
    CHECK(state(engine).drained == 2); /* for nothing none is ended */
    err = (struct error){0};
    engine->memory_mib = VMM_MEMORY_MIN_MIB;
    root_choose(&engine->root, root_plan_of_the_first, &refused);
    CHECK(engine_spawn(engine, "one-more", 600, &vm, &err) == 0);
    root_choose(&engine->root, NULL, NULL);
    CHECK(state(engine).drained == 3);
    use_and_remove(engine, "one-more");
    no_pool(engine);
}

/* Refused for what he has already, or for an id that is taken: no concern of those that wait. */
static void who_is_refused_ends_none(struct engine *engine)
{
    struct store_vm vm;
    struct priv_host host;
    struct error err = {0};
    const struct store_quotas one = {.common = {.vms = 1}};
    vmm_host(engine->vmm, &host);
    CHECK(engine_spawn(engine, "his", 600, &vm, &err) == 0);
    set_pool(engine, 2, 2);
    await_waiting(engine, 2);
    engine->memory_mib = host.total_memory_mib - VMM_MEMORY_MIN_MIB;
    CHECK(engine_spawn(engine, "his", 600, &vm, &err) < 0 && err.code == ERR_ID_TAKEN);
    err = (struct error){0};
    store_quotas_set(engine->fixture.store, &one);
    CHECK(engine_spawn(engine, "more", 600, &vm, &err) < 0 && err.code == ERR_QUOTA);
    CHECK(state(engine).drained == 0 && state(engine).waiting == 2);
    use_and_remove(engine, "his");
    no_pool(engine);
}

static void one_that_ended_is_not_given_away(struct engine *engine)
{
    set_pool(engine, 1, 1);
    for (int i = 0; i < 5; i++) {
        struct store_vm vm;
        await_waiting(engine, 1);
        struct store_vm ended = only_pooled(engine);
        root_crash(&engine->root, ended.instance);
        if (!claim(engine, "vm", "", &vm))
            continue;
        CHECK(strcmp(vm.instance, ended.instance) != 0);
        use_and_remove(engine, "vm");
    }
    no_pool(engine);
}

struct wait {
    struct engine *engine;
    atomic_bool done;
    pthread_t thread;
};

static void *keep_main(void *context)
{
    struct wait *wait = context;
    struct store_vm row;
    struct error err = {0};
    CHECK(vmm_keepalive(wait->engine->vmm, "owner", "vm", 900, &row, &err) == 0);
    atomic_store(&wait->done, true);
    return NULL;
}

/* The row is the caller's a moment before the machine is. */
static void who_is_early_waits_for_the_claim(struct engine *engine)
{
    static struct wait wait;
    struct store_vm vm;
    struct error err = {0};
    wait = (struct wait){.engine = engine};
    CHECK(engine_spawn(engine, "vm", 600, &vm, &err) == 0);
    struct vmm_machine *machine = vmm_machine_find(engine->vmm, vm.instance);
    pthread_mutex_lock(&engine->vmm->lock);
    machine->purpose = STORE_FOR_POOL;
    pthread_mutex_unlock(&engine->vmm->lock);
    CHECK(pthread_create(&wait.thread, NULL, keep_main, &wait) == 0);
    poll(NULL, 0, 100); /* time in which it must not go on */
    CHECK(!atomic_load(&wait.done));
    pthread_mutex_lock(&engine->vmm->lock);
    machine->purpose = STORE_FOR_CALLER;
    pthread_cond_broadcast(&engine->vmm->changed);
    pthread_mutex_unlock(&engine->vmm->lock);
    CHECK(pthread_join(wait.thread, NULL) == 0);
    vmm_machine_unref(engine->vmm, machine);
    use_and_remove(engine, "vm");
}

/* ---- restarts ---- */

static void what_waits_is_adopted_and_goes_on_to_wait(struct engine *engine)
{
    struct store_vm vm;
    set_pool(engine, 2, 2);
    await_waiting(engine, 2);
    engine_stop(engine);
    CHECK(engine_restart(engine).adopted == 2);
    await_waiting(engine, 2);
    CHECK(state(engine).refills == 0);
    CHECK(claim(engine, "vm", "", &vm));
    use_and_remove(engine, "vm");
    no_pool(engine);
}

static void one_that_is_being_made_keeps_no_stop_waiting(struct engine *engine)
{
    static struct spawning spawning;
    spawning = (struct spawning){.engine = engine, .release = eventfd(1, EFD_CLOEXEC)};
    root_plan(
        &engine->root,
        (struct plan){.fail = AT_HELLO, .call = AT_START, .action = hold, .context = &spawning});
    set_pool(engine, 1, 1);
    wait_true(&spawning.held);
    int64_t begin = clock_mono_ms();
    engine_stop(engine);
    CHECK(clock_mono_ms() - begin < BOOT_MS);
    CHECK(root_live(&engine->root) == 0);
    engine->pools = (struct vmm_pool_targets){0};
    struct vmm_recovered recovered = engine_restart(engine);
    CHECK(recovered.adopted == 0 && recovered.undone == 0 && recovered.lost == 0);
    close(spawning.release);
}

int main(void)
{
    engine_test *const tests[] = {it_follows_what_is_asked_for,
                                  each_goes_to_one,
                                  what_fails_is_tried_ever_more_seldom,
                                  callers_spawns_come_first,
                                  it_makes_room_for_a_callers,
                                  who_is_refused_ends_none,
                                  one_that_ended_is_not_given_away,
                                  who_is_early_waits_for_the_claim,
                                  what_waits_is_adopted_and_goes_on_to_wait,
                                  one_that_is_being_made_keeps_no_stop_waiting};
    int dir = make_catalogue();
    for (size_t i = 0; i < COUNT_OF(tests); i++) {
        struct engine engine;
        int64_t begin = clock_mono_ms();
        engine_open(&engine);
        engine.state_dir = dir;
        pthread_mutex_lock(&engine.vmm->lock);
        engine.vmm->config.state_dir = dir;
        pthread_mutex_unlock(&engine.vmm->lock);
        tests[i](&engine);
        engine_close(&engine);
        fprintf(stderr, "test %zu: %lld ms\n", i, (long long)(clock_mono_ms() - begin));
    }
    close(dir);
    fs_remove_tree(AT_FDCWD, catalogue);
    return 0;
}
