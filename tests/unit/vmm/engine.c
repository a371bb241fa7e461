#include "tests/unit/vmm/engine.h"
#include "vmm/template.h"

#include <poll.h>
#include <time.h>

static void on_step(void *context, const char *step, const struct error *failed, int64_t us)
{
    (void)context, (void)failed;
    CHECK(step != NULL && us >= 0);
}

static void on_spawn(void *context, const char *step, const struct error *failed, int64_t us)
{
    (void)context, (void)us;
    CHECK((step == NULL) == (failed == NULL));
    CHECK(failed == NULL || failed->code != ERR_NONE);
}

static void on_exec(void *context, const struct error *failed, int64_t us)
{
    (void)context, (void)us;
    CHECK(failed == NULL || failed->code != ERR_NONE);
}

static void on_ended(void *context, const char *reason)
{
    (void)context;
    CHECK(reason[0] != '\0');
}

static void on_violation(void *context, int number)
{
    struct engine *engine = context;
    engine->violations++;
    engine->last_violation = number;
}

static void on_refill(void *context, const struct vmm_pool_target *of, const struct error *failed,
                      int64_t next_ms)
{
    (void)context;
    CHECK(of->min > 0 && failed->code != ERR_NONE && next_ms >= 1000);
}

static void on_audit_lost(void *context)
{
    struct engine *engine = context;
    engine->audits_lost++;
}

static void on_unresponsive(void *context, const char *what)
{
    struct engine *engine = context;
    (*(strcmp(what, "vmm") == 0 ? &engine->hung_vmms : &engine->hung_agents))++;
}

static void on_image_snapshot(void *context, enum vmm_image_event event, const struct error *why)
{
    struct engine *engine = context;
    CHECK((why != NULL) ==
          (event != VMM_IMAGE_RESTORED && event != VMM_IMAGE_MISSING && event != VMM_IMAGE_BUILT));
    engine->images[event]++;
}

static void open_vmm(struct engine *engine)
{
    struct error err = {0};
    const struct vmm_config config = {
        .priv = engine->client,
        .store = engine->fixture.store,
        .state_dir = engine->state_dir,
        .answer_timeout_ms = ANSWER_MS,
        .image_snapshots = engine->image_snapshots,
        .defaults = {.boot_timeout_ms = BOOT_MS},
        .pools = engine->pools,
        .observer = {.context = engine,
                     .step = on_step,
                     .spawn = on_spawn,
                     .exec = on_exec,
                     .ended = on_ended,
                     .violation = on_violation,
                     .refill = on_refill,
                     .image_snapshot = on_image_snapshot,
                     .audit_lost = on_audit_lost,
                     .unresponsive = on_unresponsive},
    };
    CHECK(vmm_open(&config, &engine->vmm, &err) == 0);
}

void engine_open(struct engine *engine)
{
    struct error err = {0};
    engine->fds = root_open_fds();
    engine->state_dir = -1;
    engine->pools = (struct vmm_pool_targets){0};
    engine->memory_mib = 0;
    engine->idle_s = 0;
    engine->cold = false;
    engine->purpose = STORE_FOR_CALLER;
    engine->image_snapshots = 0;
    for (size_t i = 0; i < VMM_IMAGE_EVENTS; i++)
        atomic_init(&engine->images[i], 0);
    engine->on_unresponsive = STORE_KEEP;
    atomic_init(&engine->violations, 0);
    atomic_init(&engine->audits_lost, 0);
    atomic_init(&engine->last_violation, 0);
    CHECK(fixture_open(&engine->fixture, &err) == 0);
    atomic_init(&engine->hung_vmms, 0);
    atomic_init(&engine->hung_agents, 0);
    engine->client = root_start(&engine->root);
    open_vmm(engine);
    struct vmm_recovered recovered;
    CHECK(vmm_recover(engine->vmm, &recovered, &err) == 0);
}

/* Of what the service does for itself: one is made, or will be in a moment. */
static bool builds(const struct vmm_templates *templates)
{
    for (size_t i = 0; i < VMM_WISHES_MAX; i++)
        if (templates->wishes[i].spec != NULL)
            return true;
    return templates->making != NULL;
}

static size_t count_rows(struct engine *engine)
{
    struct error err = {0};
    struct store_vm *rows = NULL;
    size_t count = 0;
    CHECK(store_vm_all(engine->fixture.store, &rows, &count, &err) == 0);
    free(rows);
    return count;
}

static bool has_machines(struct vmm *vmm)
{
    pthread_mutex_lock(&vmm->lock);
    bool any = vmm->machines != NULL || builds(vmm->templates);
    pthread_mutex_unlock(&vmm->lock);
    return any;
}

/* What the service does for itself may be at the very beginning of a spawn, or at its end. */
void engine_empty(struct engine *engine)
{
    const int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    while (has_machines(engine->vmm) || count_rows(engine) > 0 || root_live(&engine->root) > 0) {
        CHECK(clock_mono_ms() < deadline);
        poll(NULL, 0, LOOK_MS);
    }
}

void engine_stop(struct engine *engine)
{
    vmm_free(engine->vmm);
    root_stop(&engine->root, engine->client);
}

void engine_resume(struct engine *engine)
{
    struct error err = {0};
    CHECK(fixture_reopen(&engine->fixture, &err) == 0);
    engine->client = root_resume(&engine->root);
    open_vmm(engine);
}

sqlite3 *engine_connect(const struct engine *engine)
{
    sqlite3 *db = NULL;
    char path[64];
    snprintf(path, sizeof(path), "%s/motte.db", engine->fixture.dir);
    CHECK(sqlite3_open(path, &db) == SQLITE_OK && sqlite3_busy_timeout(db, PATIENCE_MS) == 0);
    return db;
}

void engine_sql(const struct engine *engine, const char *sql)
{
    sqlite3 *db = engine_connect(engine);
    CHECK(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK);
    sqlite3_close(db);
}

struct vmm_recovered engine_restart(struct engine *engine)
{
    struct vmm_recovered recovered;
    struct error err = {0};
    engine_resume(engine);
    CHECK(vmm_recover(engine->vmm, &recovered, &err) == 0);
    return recovered;
}

void engine_close(struct engine *engine)
{
    engine_empty(engine);
    engine_stop(engine);
    root_release(&engine->root);
    fixture_release(&engine->fixture);
    CHECK(root_open_fds() == engine->fds);
}

static struct vmm_spec *make_spec(const struct engine *engine, const char *id, int64_t ttl_s)
{
    struct vmm_spec *spec = calloc(1, sizeof(*spec));
    CHECK(spec != NULL);
    snprintf(spec->id, sizeof(spec->id), "%s", id);
    snprintf(spec->image.name, sizeof(spec->image.name), "script");
    snprintf(spec->labels, sizeof(spec->labels), "{}");
    spec->vcpus = 1;
    spec->memory_mib = engine->memory_mib != 0 ? engine->memory_mib : VMM_MEMORY_MIN_MIB;
    spec->seccomp = PRIV_SECCOMP_MINIMAL;
    spec->ttl_s = ttl_s;
    spec->idle_s = engine->idle_s;
    spec->cold = engine->cold;
    spec->purpose = engine->purpose;
    spec->on_unresponsive = engine->on_unresponsive;
    return spec;
}

int engine_spawn(struct engine *engine, const char *id, int64_t ttl_s, struct store_vm *ret,
                 struct error *err)
{
    return vmm_spawn(engine->vmm, make_spec(engine, id, ttl_s), "owner", ret, err);
}

int engine_spawn_begin(struct engine *engine, const char *id, struct vmm_spawning **ret,
                       struct error *err)
{
    struct store_vm row;
    return vmm_spawn_begin(engine->vmm, make_spec(engine, id, 600), "owner", ret, &row, err);
}

int engine_restore(struct engine *engine, const char *id, const char *snapshot, const char *owner,
                   struct store_vm *ret, struct error *err)
{
    struct vmm_spec *spec = make_spec(engine, id, 600);
    snprintf(spec->snapshot, sizeof(spec->snapshot), "%s", snapshot);
    return vmm_spawn(engine->vmm, spec, owner, ret, err);
}

int engine_snapshot(struct engine *engine, const char *id, bool ephemeral,
                    struct store_snapshot *ret, struct error *err)
{
    const struct vmm_snapshot_wish wish = {.labels = "{}",
                                           .kind = ephemeral ? STORE_EPHEMERAL : STORE_LASTING};
    return vmm_snapshot(engine->vmm, "owner", id, &wish, ret, err);
}

bool engine_intended(struct engine *engine, const char *instance)
{
    struct error err = {0};
    bool intended = false;
    CHECK(store_snapshot_intended(engine->fixture.store, instance, &intended, &err) == 0);
    return intended;
}

int engine_exec(struct engine *engine, const char *id, struct error *err)
{
    cleanup_json cJSON *argv = cJSON_CreateArray();
    cJSON_AddItemToArray(argv, cJSON_CreateString("true"));
    const struct vsock_exec_request request = {
        .argv = argv, .timeout_ms = PATIENCE_MS, .output_max = 100};
    struct vsock_exec_result result cleanup(vsock_exec_result_release);
    int status = vmm_exec(engine->vmm, "owner", id, &request, &result, err);
    CHECK(status < 0 || (result.exit_code == 7 && strcmp(result.out.data, "out") == 0));
    return status;
}

void engine_ended(struct engine *engine, const char *id, enum store_state state, const char *reason)
{
    struct store_vm row;
    struct error err = {0};
    char words[64];
    snprintf(words, sizeof(words), "is gone: %s (%s)", store_state_name(state), reason);
    bool gone = store_vm_get(engine->fixture.store, "owner", id, &row, &err) < 0;
    if (!gone || strstr(err.msg, words) == NULL) {
        fprintf(stderr, "%s: wanted `%s`, have `%s`\n", id, words, err.msg);
        abort();
    }
}

int engine_run(engine_test *const tests[], size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct engine engine;
        int64_t begin = clock_mono_ms();
        engine_open(&engine);
        tests[i](&engine);
        engine_close(&engine);
        fprintf(stderr, "test %zu: %lld ms\n", i, (long long)(clock_mono_ms() - begin));
    }
    return 0;
}

static void *work(void *context)
{
    enum { ROUNDS = 60 };
    struct engine_worker *worker = context;
    for (int i = 0; i < ROUNDS; i++)
        worker->one_call(worker, random_below(&worker->random, 2) == 0 ? "a" : "b");
    return NULL;
}

void engine_all_at_once(struct engine *engine,
                        void (*one_call)(struct engine_worker *worker, const char *id))
{
    enum { THREADS = 6 };
    struct engine_worker workers[THREADS];
    struct random random = random_start();
    fprintf(stderr, "MOTTE_TEST_SEED=%llu\n", (unsigned long long)random.seed);
    for (size_t i = 0; i < THREADS; i++) {
        workers[i] = (struct engine_worker){
            .engine = engine, .random = {.state = random_next(&random)}, .one_call = one_call};
        CHECK(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
    }
    for (size_t i = 0; i < THREADS; i++)
        CHECK(pthread_join(workers[i].thread, NULL) == 0);
}
