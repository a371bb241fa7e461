/* Snapshots of more VMs at once than may copy, while others ask what there is; a plain program for
 * ThreadSanitizer. Tells the medians of what each step took. */
#include "snapshots.h"

#include <stdatomic.h>

enum { VMS = PRIV_COPYING_MAX + 2, ROUNDS = 2, STEPS = 4 };

struct life {
    struct bench *bench;
    double ms[STEPS]; /* STAGE, CAPTURE, PUBLISH, LAUNCH */
    pthread_t thread;
};

struct asker {
    struct bench *bench;
    atomic_bool stop;
    pthread_t thread;
};

static void made_in(double *ms, int64_t *since, int result, const struct error *err)
{
    int64_t now = clock_mono_us();
    if (result < 0)
        fprintf(stderr, "%s: %s\n", error_code_name(err->code), err->msg);
    CHECK(result == 0);
    *ms = (double)(now - *since) / 1000;
    *since = now;
}

static void *live(void *context)
{
    struct life *life = context;
    struct priv_client *client = life->bench->client;
    struct bench_vm vm;
    struct priv_published made;
    struct error err = {0};
    snapshot_up(life->bench, &vm);
    snapshot_pause(&vm);
    int64_t since = clock_mono_us();
    made_in(&life->ms[0], &since, priv_stage(client, vm.instance, &err), &err);
    CHECK(snapshot_write(&vm) == 204);
    since = clock_mono_us();
    made_in(&life->ms[1], &since, priv_capture(client, vm.instance, &err), &err);
    snapshot_resume(&vm);
    since = clock_mono_us();
    made_in(&life->ms[2], &since, priv_publish(client, vm.instance, &made, &err), &err);
    bench_kill(life->bench, &vm, NULL);
    snapshot_restore(life->bench, &vm, made.snapshot);
    bench_kill(life->bench, &vm, NULL);
    snapshot_guarded(life->bench, &vm); /* and once more, now that its files are known */
    since = clock_mono_us();
    made_in(&life->ms[3], &since,
            priv_launch_snapshot(client, vm.instance, life->bench->image, made.snapshot,
                                 &vm.launched, &err),
            &err);
    bench_kill(life->bench, &vm, NULL);
    CHECK(priv_forget_snapshot(client, made.snapshot, &err) == 0);
    return NULL;
}

static void *ask(void *context)
{
    struct asker *asker = context;
    while (!atomic_load(&asker->stop)) {
        struct priv_snapshot at = {0};
        struct priv_instance listed;
        struct error err = {0};
        do {
            const struct priv_snapshot last = at;
            CHECK(priv_snapshots(asker->bench->client,
                                 last.snapshot[0] == '\0' ? NULL : last.snapshot, &at, &err) == 0);
            CHECK(at.code == ERR_NONE);
        } while (at.snapshot[0] != '\0');
        CHECK(priv_list(asker->bench->client, 0, &listed, &err) == 0);
    }
    return NULL;
}

static int compare(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double median(const struct life *lives, size_t step)
{
    double values[VMS];
    for (size_t i = 0; i < VMS; i++)
        values[i] = lives[i].ms[step];
    qsort(values, VMS, sizeof(double), compare);
    return values[VMS / 2];
}

int main(void)
{
    struct bench bench;
    static struct life lives[VMS];
    struct asker asker = {.bench = &bench};
    char rest[320];
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_settle(&bench);
    size_t before = bench_fds();
    CHECK(pthread_create(&asker.thread, NULL, ask, &asker) == 0);
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < VMS; i++) {
            lives[i].bench = &bench;
            CHECK(pthread_create(&lives[i].thread, NULL, live, &lives[i]) == 0);
        }
        for (size_t i = 0; i < VMS; i++)
            CHECK(pthread_join(lives[i].thread, NULL) == 0);
        printf("%d VMs of 128 MiB; medians in ms: stage %.1f capture %.1f publish %.1f launch from "
               "it %.1f\n",
               VMS, median(lives, 0), median(lives, 1), median(lives, 2), median(lives, 3));
    }
    atomic_store(&asker.stop, true);
    CHECK(pthread_join(asker.thread, NULL) == 0);
    snapshot_rest(&bench, rest, sizeof(rest));
    CHECK(rest[0] == '\0');
    CHECK(bench_fds_are(before));
    bench_close(&bench);
    return 0;
}
