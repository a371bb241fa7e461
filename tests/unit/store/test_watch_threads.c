/*
 * Waiting for a VM: each that waits is woken by what it waits for, and by nothing later. A plain
 * program, so that ThreadSanitizer can run it: exits 0, or says what went wrong.
 */
#include "tests/unit/store/fixture.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

enum { VMS = 8, WAITERS = 4, ROUNDS = 40, LONG_MS = 60000, BOOT_MS = 1000 };

struct shared {
    struct store *store;
    struct store_vm vms[VMS];
    atomic_int failed, seen_running, seen_paused, seen_end;
};

struct waiter {
    struct shared *shared;
    const char *instance;
};

static void fail(struct shared *shared, const char *what, const struct error *err)
{
    fprintf(stderr, "%s: %s (%s)\n", what, err->msg, error_code_name(err->code));
    atomic_fetch_add(&shared->failed, 1);
}

struct given_up {
    struct store *store;
    atomic_bool over;
};

/* True when it came to that. */
static bool wait_for(struct waiter *waiter, enum store_state state, atomic_int *seen)
{
    struct store_vm vm;
    struct error err = {0};
    int64_t begin = clock_mono_ms();
    const struct store_wait wait = {.state = state, .until_ms = begin + LONG_MS};
    int result = store_vm_wait(waiter->shared->store, waiter->instance, &wait, &vm, &err);
    if (clock_mono_ms() >= begin + LONG_MS)
        fail(waiter->shared, "it was not woken", &err);
    if (result == 0 && vm.state == state) {
        atomic_fetch_add(seen, 1);
        return true;
    }
    if (result == 0 || err.code != ERR_VM_GONE)
        fail(waiter->shared, "waiting", &err);
    return false;
}

static void *wait_all(void *context)
{
    struct waiter *waiter = context;
    struct shared *shared = waiter->shared;
    wait_for(waiter, STORE_RUNNING, &shared->seen_running);
    while (wait_for(waiter, STORE_PAUSED, &shared->seen_paused) &&
           wait_for(waiter, STORE_RUNNING, &shared->seen_running))
        ;
    wait_for(waiter, STORE_EXITED, &shared->seen_end); /* answered: it is gone */
    return NULL;
}

static void *change(void *context)
{
    struct waiter *waiter = context;
    struct shared *shared = waiter->shared;
    struct store_vm vm = {0}, back;
    struct error err = {0};
    for (int i = 0; i < VMS; i++)
        if (strcmp(shared->vms[i].instance, waiter->instance) == 0)
            vm = shared->vms[i];
    bool failed = store_vm_running(shared->store, &vm, &err) < 0;
    for (int i = 0; i < ROUNDS && !failed; i++)
        failed = store_vm_paused(shared->store, vm.instance, i % 2 == 0, BOOT_MS, &back, &err) < 0;
    if (failed)
        fail(shared, "changing", &err);
    struct error ending = {0};
    if (store_vm_end(shared->store, vm.instance, STORE_EXITED, "deleted", "", "", &ending) < 0)
        fail(shared, "ending", &ending);
    return NULL;
}

static void run(struct shared *shared)
{
    struct waiter waiters[VMS][WAITERS + 1];
    pthread_t threads[VMS][WAITERS + 1];
    for (int i = 0; i < VMS; i++)
        for (int j = 0; j <= WAITERS; j++) {
            waiters[i][j] = (struct waiter){shared, shared->vms[i].instance};
            if (pthread_create(&threads[i][j], NULL, j < WAITERS ? wait_all : change,
                               &waiters[i][j]) != 0)
                abort();
        }
    for (int i = 0; i < VMS; i++)
        for (int j = 0; j <= WAITERS; j++)
            pthread_join(threads[i][j], NULL);
}

/* What does not come: until the time is up, or the service stops. */
static void *stop_later(void *context)
{
    struct shared *shared = context;
    store_wait_no_more(shared->store);
    return NULL;
}

static bool is_over(void *context)
{
    return atomic_load((atomic_bool *)context);
}

static void *end_later(void *context)
{
    struct given_up *given_up = context;
    poll(NULL, 0, 50);
    store_wait_again(given_up->store); /* nothing is over yet: this wakes nobody for good */
    poll(NULL, 0, 50);
    atomic_store(&given_up->over, true);
    store_wait_again(given_up->store);
    return NULL;
}

static void who_gives_up_is_told_what_is(struct shared *shared)
{
    struct store_vm vm = fixture_add(shared->store, "a", "given-up"), back;
    struct given_up given_up = {.store = shared->store};
    struct error err = {0};
    pthread_t ender;
    int64_t begin = clock_mono_ms();
    const struct store_wait wait = {.state = STORE_RUNNING,
                                    .until_ms = begin + LONG_MS,
                                    .over = is_over,
                                    .context = &given_up.over};
    if (pthread_create(&ender, NULL, end_later, &given_up) != 0)
        abort();
    if (store_vm_wait(shared->store, vm.instance, &wait, &back, &err) < 0 ||
        back.state != STORE_CREATING || !atomic_load(&given_up.over) ||
        clock_mono_ms() >= begin + LONG_MS)
        fail(shared, "it was not given up", &err);
    pthread_join(ender, NULL);
}

static void bounds(struct shared *shared)
{
    struct store_vm vm = fixture_add(shared->store, "a", "stays"), back;
    struct error err = {0};
    pthread_t stopper;
    int64_t begin = clock_mono_ms();
    struct store_wait wait = {.state = STORE_RUNNING, .until_ms = begin + 50};
    if (store_vm_wait(shared->store, vm.instance, &wait, &back, &err) < 0 ||
        back.state != STORE_CREATING || clock_mono_ms() < begin + 50)
        fail(shared, "its time", &err);
    if (pthread_create(&stopper, NULL, stop_later, shared) != 0)
        abort();
    wait.until_ms = begin + LONG_MS;
    if (store_vm_wait(shared->store, vm.instance, &wait, &back, &err) < 0 ||
        clock_mono_ms() >= begin + LONG_MS)
        fail(shared, "its end", &err);
    pthread_join(stopper, NULL);
}

int main(void)
{
    struct fixture f;
    struct error err = {0};
    if (fixture_open(&f, &err) < 0) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    struct shared shared = {.store = f.store};
    for (int i = 0; i < VMS; i++) {
        char id[16];
        snprintf(id, sizeof(id), "vm-%d", i);
        shared.vms[i] = fixture_add(f.store, "a", id);
    }
    run(&shared);
    if (atomic_load(&shared.seen_running) == 0 || atomic_load(&shared.seen_end) != 0)
        fail(&shared, "nobody was told in time", &err);
    who_gives_up_is_told_what_is(&shared);
    bounds(&shared);
    fixture_release(&f);
    return atomic_load(&shared.failed) == 0 ? 0 : 1;
}
