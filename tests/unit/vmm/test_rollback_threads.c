/*
 * R04 over random faults: eight threads spawn, run, delete and collide on a few ids while the root
 * half refuses, VMMs die and guests keep silent at random moments. Whatever happened, in the end
 * nothing is left. A plain program, so that ThreadSanitizer can run it.
 */
#include "tests/unit/base/random.h"
#include "tests/unit/vmm/engine.h"

enum { THREADS = 8, ROUNDS = 12, IDS = 6 };

struct worker {
    struct engine *engine;
    struct random random;
    pthread_t thread;
};

/* Errors are of those that the header names. */
static void expect(const struct error *err, const enum error_code *codes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (err->code == codes[i])
            return;
    fprintf(stderr, "unexpected %s: %s\n", error_code_name(err->code), err->msg);
    abort();
}

/* Called with the root's lock held. */
static void choose(void *context, struct plan *ret)
{
    struct random *random = context;
    *ret = (struct plan){0};
    if (random_below(random, 2) == 0)
        ret->fail = (enum moment)(AT_RESERVE + random_below(random, MOMENTS - AT_RESERVE));
    if (random_below(random, 3) == 0)
        ret->die = (enum moment)(AT_LAUNCH + random_below(random, MOMENTS - AT_LAUNCH));
    if (ret->fail == AT_EXEC) /* a command without end needs a delete: those are elsewhere */
        ret->fail = NEVER;
    if (random_below(random, 8) == 0)
        ret->kill_failures = 1 + (int)random_below(random, 4);
}

static void spawn(struct worker *worker, const char *id)
{
    struct store_vm row;
    struct error err = {0};
    int64_t ttl_s = random_below(&worker->random, 4) == 0 ? 1 : 60;
    if (engine_spawn(worker->engine, id, ttl_s, &row, &err) == 0)
        CHECK(row.state == STORE_RUNNING && strcmp(row.id, id) == 0);
    else
        CHECK(err.code != ERR_NONE && err.code != ERR_INTERNAL);
}

static void exec(struct worker *worker, const char *id)
{
    static const enum error_code codes[] = {ERR_VM_UNKNOWN, ERR_VM_GONE, ERR_VM_NOT_RUNNING};
    struct error err = {0};
    if (engine_exec(worker->engine, id, &err) < 0)
        expect(&err, codes, COUNT_OF(codes));
}

static void remove_vm(struct engine *engine, const char *id)
{
    static const enum error_code codes[] = {ERR_VM_UNKNOWN, ERR_VM_GONE, ERR_FIREWALL_LOCK};
    struct error err = {0};
    if (vmm_delete(engine->vmm, "owner", id, &err) < 0)
        expect(&err, codes, COUNT_OF(codes));
}

static void *work(void *context)
{
    struct worker *worker = context;
    for (int i = 0; i < ROUNDS; i++) {
        char id[16];
        snprintf(id, sizeof(id), "vm-%u", (unsigned)random_below(&worker->random, IDS));
        spawn(worker, id);
        exec(worker, id);
        if (random_below(&worker->random, 2) == 0)
            remove_vm(worker->engine, id);
    }
    return NULL;
}

/* Those that still live go, as often as it takes. */
static void delete_all(struct engine *engine)
{
    for (unsigned i = 0; i < IDS; i++) {
        char id[16];
        snprintf(id, sizeof(id), "vm-%u", i);
        remove_vm(engine, id);
    }
}

/* With snapshots of images templates come and go beside, and spawns are restored. */
static void storm(struct random *random, uint32_t image_snapshots)
{
    struct engine engine;
    struct worker workers[THREADS];
    struct random plans = {.state = random_next(random)};
    engine_open(&engine);
    engine_stop(&engine);
    engine.image_snapshots = image_snapshots;
    engine_restart(&engine);
    root_choose(&engine.root, choose, &plans);
    for (size_t i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.engine = &engine, .random = {.state = random_next(random)}};
        CHECK(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
    }
    for (size_t i = 0; i < THREADS; i++)
        CHECK(pthread_join(workers[i].thread, NULL) == 0);
    delete_all(&engine);
    engine_close(&engine);
}

int main(void)
{
    struct random random = random_start();
    fprintf(stderr, "MOTTE_TEST_SEED=%llu\n", (unsigned long long)random.seed);
    storm(&random, 0);
    storm(&random, 8);
    return 0;
}
