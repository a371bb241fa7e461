/* Clones of two templates, launched and ended by many at once: each memory is read by one and waited for
 * by the others. A plain program for ThreadSanitizer. */
#include "snapshots.h"

enum { TEMPLATES = 2, THREADS = 6, ROUNDS = 3, STATE_SIZE = 4096 };

static struct bench bench;
static struct priv_published made[TEMPLATES];

static void must(int result, const struct error *err)
{
    if (result < 0)
        fprintf(stderr, "%s: %s\n", error_code_name(err->code), err->msg);
    CHECK(result >= 0);
}

/* No QEMU loads it here: what it says of its devices does not matter. */
static void make(struct priv_published *ret)
{
    struct bench_vm vm;
    struct error err = {0};
    snapshot_guarded(&bench, &vm);
    must(priv_launch_template(bench.client, vm.instance, bench.image, &vm.launched, &err), &err);
    must(priv_stage(bench.client, vm.instance, &err), &err);
    cleanup_close int file = priv_open(bench.client, vm.instance, PRIV_SOCKET_STAGED, 0, &err);
    must(file, &err);
    CHECK(ftruncate(file, STATE_SIZE) == 0);
    must(priv_capture(bench.client, vm.instance, &err), &err);
    must(priv_publish(bench.client, vm.instance, ret, &err), &err);
    bench_kill(&bench, &vm, NULL);
}

static void *live(void *context)
{
    const size_t *first = context;
    for (size_t i = 0; i < ROUNDS; i++) {
        struct bench_vm vm;
        struct error err = {0};
        const char *snapshot = made[(*first + i) % TEMPLATES].snapshot;
        snapshot_guarded(&bench, &vm);
        must(priv_launch_snapshot(bench.client, vm.instance, bench.image, snapshot, &vm.launched,
                                  &err),
             &err);
        CHECK(vm.launched.apart);
        bench_kill(&bench, &vm, NULL);
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    size_t numbers[THREADS];
    struct error err = {0};
    bench_init(&bench);
    bench.config.hypervisor = PRIV_QEMU;
    bench.config.emulated = true;
    bench_serve(&bench, false);
    for (size_t i = 0; i < TEMPLATES; i++)
        make(&made[i]);
    for (size_t i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&threads[i], NULL, live, &numbers[i]) == 0);
    }
    for (size_t i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    for (size_t i = 0; i < TEMPLATES; i++)
        must(priv_forget_snapshot(bench.client, made[i].snapshot, &err), &err);
    CHECK(bench.server->memories == NULL);
    bench_close(&bench);
    return 0;
}
