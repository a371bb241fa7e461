#include "tests/unit/vmm/engine.h"

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

static void open_vmm(struct engine *engine)
{
    struct error err = {0};
    const struct vmm_config config = {
        .priv = engine->client,
        .store = engine->fixture.store,
        .state_dir = -1,
        .answer_timeout_ms = ANSWER_MS,
        .defaults = {.boot_timeout_ms = BOOT_MS},
        .observer = {.context = engine,
                     .step = on_step,
                     .spawn = on_spawn,
                     .exec = on_exec,
                     .ended = on_ended,
                     .violation = on_violation,
                     .audit_lost = on_audit_lost,
                     .unresponsive = on_unresponsive},
    };
    CHECK(vmm_open(&config, &engine->vmm, &err) == 0);
}

void engine_open(struct engine *engine)
{
    struct error err = {0};
    engine->fds = root_open_fds();
    engine->idle_s = 0;
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

void engine_empty(struct engine *engine)
{
    struct vmm *vmm = engine->vmm;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += PATIENCE_MS / 1000;
    pthread_mutex_lock(&vmm->lock);
    while (vmm->machines != NULL)
        CHECK(pthread_cond_timedwait(&vmm->changed, &vmm->lock, &until) == 0);
    pthread_mutex_unlock(&vmm->lock);
    struct error err = {0};
    struct store_vm *rows = NULL;
    size_t count = 0;
    CHECK(store_vm_all(engine->fixture.store, &rows, &count, &err) == 0);
    free(rows);
    CHECK(count == 0);
    CHECK(root_live(&engine->root) == 0);
}

void engine_stop(struct engine *engine)
{
    vmm_free(engine->vmm);
    root_stop(&engine->root, engine->client);
}

void engine_reopen(struct engine *engine)
{
    struct error err = {0};
    CHECK(fixture_reopen(&engine->fixture, &err) == 0);
    engine->client = root_resume(&engine->root);
    open_vmm(engine);
}

struct vmm_recovered engine_restart(struct engine *engine)
{
    struct vmm_recovered recovered;
    struct error err = {0};
    engine_reopen(engine);
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

int engine_spawn(struct engine *engine, const char *id, int64_t ttl_s, struct store_vm *ret,
                 struct error *err)
{
    struct vmm_spec *spec = calloc(1, sizeof(*spec));
    CHECK(spec != NULL);
    snprintf(spec->id, sizeof(spec->id), "%s", id);
    snprintf(spec->image.name, sizeof(spec->image.name), "script");
    snprintf(spec->labels, sizeof(spec->labels), "{}");
    spec->vcpus = 1;
    spec->memory_mib = VMM_MEMORY_MIN_MIB;
    spec->seccomp = PRIV_SECCOMP_MINIMAL;
    spec->ttl_s = ttl_s;
    spec->idle_s = engine->idle_s;
    spec->on_unresponsive = engine->on_unresponsive;
    return vmm_spawn(engine->vmm, spec, "owner", ret, err);
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
