/* 16 VMs at once through one server, from as many threads; a plain program for ThreadSanitizer.
 * Tells the medians of what each step took. */
#include "bench.h"

enum { VMS = 16, ROUNDS = 3 };

struct life {
    struct bench *bench;
    struct bench_vm vm;
    double kill_ms;
    pthread_t thread;
};

static void *live(void *context)
{
    struct life *life = context;
    bench_up(life->bench, &life->vm);
    return NULL;
}

static void *die(void *context)
{
    struct life *life = context;
    int64_t start = clock_mono_us();
    bench_kill(life->bench, &life->vm, NULL);
    life->kill_ms = (double)(clock_mono_us() - start) / 1000;
    return NULL;
}

static void all(struct life *lives, void *(*act)(void *))
{
    for (size_t i = 0; i < VMS; i++)
        CHECK(pthread_create(&lives[i].thread, NULL, act, &lives[i]) == 0);
    for (size_t i = 0; i < VMS; i++)
        CHECK(pthread_join(lives[i].thread, NULL) == 0);
}

static int compare(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double median(const struct life *lives, size_t offset)
{
    double values[VMS];
    for (size_t i = 0; i < VMS; i++)
        memcpy(&values[i], (const char *)&lives[i] + offset, sizeof(double));
    qsort(values, VMS, sizeof(double), compare);
    return values[VMS / 2];
}

static void tell(const struct life *lives, int64_t us)
{
    printf("%d VMs in %.0f ms; medians in ms: guard %.1f launch %.1f open %.1f hello %.1f "
           "check %.1f kill %.1f\n",
           VMS, (double)us / 1000, median(lives, offsetof(struct life, vm.guard_ms)),
           median(lives, offsetof(struct life, vm.launch_ms)),
           median(lives, offsetof(struct life, vm.open_ms)),
           median(lives, offsetof(struct life, vm.hello_ms)),
           median(lives, offsetof(struct life, vm.check_ms)),
           median(lives, offsetof(struct life, kill_ms)));
}

int main(void)
{
    struct bench bench;
    static struct life lives[VMS];
    char traces[128];
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_settle(&bench);
    size_t before = bench_fds();
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < VMS; i++)
            lives[i].bench = &bench;
        int64_t start = clock_mono_us();
        all(lives, live);
        int64_t us = clock_mono_us() - start;
        for (size_t i = 0; i < VMS; i++)
            for (size_t j = 0; j < i; j++)
                CHECK(lives[i].vm.uid != lives[j].vm.uid);
        all(lives, die);
        for (size_t i = 0; i < VMS; i++) {
            bench_traces(&bench, lives[i].vm.instance, traces, sizeof(traces));
            CHECK(traces[0] == '\0');
        }
        tell(lives, us);
        CHECK(bench_fds_are(before));
    }
    bench_close(&bench);
    return 0;
}
