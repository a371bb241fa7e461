/*
 * R02: many claim at once, others take back: each VM of the pool goes to one of them alone. A plain
 * program, so that ThreadSanitizer can run it: exits 0, or says what went wrong.
 */
#include "tests/unit/store/fixture.h"

#include <pthread.h>
#include <stdatomic.h>

enum { THREADS = 8, POOLED = 120 };

struct shared {
    struct store *store;
    struct store_vm pooled[POOLED];
    atomic_int owners[POOLED], number, failed, claimed, retired;
};

static void fail(struct shared *shared, const char *what, const struct error *err)
{
    fprintf(stderr, "%s: %s (%s)\n", what, err->msg, error_code_name(err->code));
    atomic_fetch_add(&shared->failed, 1);
}

static void have(struct shared *shared, const char *instance)
{
    for (int i = 0; i < POOLED; i++)
        if (strcmp(shared->pooled[i].instance, instance) == 0 &&
            atomic_fetch_add(&shared->owners[i], 1) != 0)
            fail(shared, "it has two owners", &(struct error){0});
}

/* False when there are no more. */
static bool claim(struct shared *shared, const char *owner, int turn)
{
    char id[16];
    struct error err = {0};
    bool found = false;
    snprintf(id, sizeof(id), "vm-%d", turn);
    struct store_vm wish = shared->pooled[0], vm;
    snprintf(wish.owner, sizeof(wish.owner), "%s", owner);
    snprintf(wish.id, sizeof(wish.id), "%s", id);
    if (store_vm_claim(shared->store, &wish, FIXTURE_POOLED_LABELS, &vm, &found, &err) < 0) {
        fail(shared, "claim", &err);
        return false;
    }
    if (!found)
        return false;
    atomic_fetch_add(&shared->claimed, 1);
    have(shared, vm.instance);
    struct store_vm back;
    if (store_vm_get(shared->store, owner, id, &back, &err) < 0 ||
        strcmp(back.instance, vm.instance) != 0)
        fail(shared, "one's own claim is not read back", &err);
    return true;
}

static void retire(struct shared *shared, int i)
{
    struct error err = {0};
    bool done = false;
    if (store_vm_retire(shared->store, shared->pooled[i].instance, &done, &err) < 0)
        fail(shared, "retire", &err);
    if (!done)
        return;
    atomic_fetch_add(&shared->retired, 1);
    have(shared, shared->pooled[i].instance);
}

/* One thread in four takes back, from the newest on. */
static void *work(void *context)
{
    struct shared *shared = context;
    int number = atomic_fetch_add(&shared->number, 1), turn = 0;
    char owner[16];
    snprintf(owner, sizeof(owner), "owner-%d", number);
    if (number % 4 == 3)
        for (int i = POOLED; i-- > 0;)
            retire(shared, i);
    else
        while (claim(shared, owner, turn))
            turn++;
    return NULL;
}

int main(void)
{
    struct fixture f;
    struct error err = {0};
    static struct shared shared;
    if (fixture_open(&f, &err) < 0) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    shared.store = f.store;
    for (int i = 0; i < POOLED; i++)
        shared.pooled[i] = fixture_add_pooled(f.store);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, work, &shared) != 0)
            abort();
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    if (atomic_load(&shared.claimed) + atomic_load(&shared.retired) != POOLED)
        fail(&shared, "some have no owner", &err);
    fixture_release(&f);
    return atomic_load(&shared.failed) == 0 ? 0 : 1;
}
