/*
 * R02: one inventory used by eight threads at once. A plain program, so that ThreadSanitizer can
 * run it: exits 0, or says what went wrong.
 */
#include "tests/unit/base/random.h"
#include "tests/unit/store/fixture.h"

#include <pthread.h>
#include <stdatomic.h>

enum { THREADS = 8, ROUNDS = 60, SHARED_IDS = 4 };

struct shared {
    struct store *store;
    uint64_t seed;
    atomic_int number, failed, collided;
};

static void fail(struct shared *shared, const char *what, const struct error *err)
{
    fprintf(stderr, "%s: %s (%s), seed %llu\n", what, err->msg, error_code_name(err->code),
            (unsigned long long)shared->seed);
    atomic_fetch_add(&shared->failed, 1);
}

/* A life from insert to end. Ids are shared among threads, so some are taken. */
static void live(struct shared *shared, struct random *random)
{
    char id[16];
    struct error err = {0};
    struct store_vm back;
    snprintf(id, sizeof(id), "vm-%d", (int)random_below(random, SHARED_IDS));
    struct store_vm vm = fixture_vm("a", id);
    if (store_vm_insert(shared->store, &vm, &err) < 0) {
        if (err.code != ERR_ID_TAKEN)
            fail(shared, "insert", &err);
        atomic_fetch_add(&shared->collided, 1);
        return;
    }
    if (store_vm_running(shared->store, &vm, &err) < 0 && err.code != ERR_CANCELLED)
        fail(shared, "running", &err);
    err = (struct error){0};
    if (store_vm_by_instance(shared->store, vm.instance, &back, &err) < 0 ||
        back.state < STORE_RUNNING || strcmp(back.chain, vm.chain) != 0)
        fail(shared, "one's own write is not read back", &err);
    err = (struct error){0};
    if (store_vm_deleting(shared->store, "a", id, &back, &err) < 0)
        fail(shared, "deleting", &err);
    else if (strcmp(back.instance, vm.instance) != 0)
        fail(shared, "deleted another's", &err);
    if (store_vm_end(shared->store, vm.instance, STORE_EXITED, "deleted", "", "tail", &err) < 0)
        fail(shared, "end", &err);
}

static void look(struct shared *shared)
{
    struct error err = {0};
    struct store_vm *rows = NULL;
    struct store_totals totals;
    size_t count = 0;
    bool more = false;
    struct store_filter filter = {.owner = "a", .label_key = "team", .limit = 3};
    if (store_vm_list(shared->store, &filter, &rows, &count, &more, &err) < 0 ||
        store_totals(shared->store, &totals, &err) < 0)
        fail(shared, "reading", &err);
    if (count > SHARED_IDS)
        fail(shared, "two VMs under one id", &err);
    free(rows);
}

static void *work(void *context)
{
    struct shared *shared = context;
    int number = atomic_fetch_add(&shared->number, 1);
    struct random random = {.state = shared->seed + (uint64_t)number};
    for (int i = 0; i < ROUNDS; i++) {
        live(shared, &random);
        look(shared);
    }
    return NULL;
}

int main(void)
{
    struct fixture f;
    struct error err = {0};
    if (fixture_open(&f, &err) < 0) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    struct shared shared = {.store = f.store, .seed = random_start().seed};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, work, &shared) != 0)
            abort();
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    struct store_totals totals;
    if (store_totals(f.store, &totals, &err) < 0 || totals.vcpus != 0)
        fail(&shared, "something lives on", &err);
    if (atomic_load(&shared.collided) == 0)
        fail(&shared, "the threads never met", &err);
    fixture_release(&f);
    return atomic_load(&shared.failed) == 0 ? 0 : 1;
}
