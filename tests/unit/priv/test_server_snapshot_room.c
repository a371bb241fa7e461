/* Snapshots and what is scarce: room on the disk, their number, the root half's workers. */
#include "snapshots.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>

static struct bench bench;

static void assert_no_rest(void)
{
    char rest[320];
    snapshot_rest(&bench, rest, sizeof(rest));
    cr_assert_str_eq(rest, "");
}

static void small_disk(const char *folder, const char *size)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", bench.state, folder);
    cr_assert_eq(fs_mkdir_p(path, 0700), 0);
    cr_assert_eq(mount("small", path, "tmpfs", 0, size), 0, "%m");
}

static void large_disk(const char *folder)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", bench.state, folder);
    cr_assert_eq(umount2(path, MNT_DETACH), 0);
}

Test(priv_snapshot_room, R02_without_room_none_is_begun, .timeout = 60)
{
    struct bench_vm vm;
    struct error err = {0};
    bench_init(&bench);
    small_disk("staging", "size=157m,mode=0700"); /* 128 + 16 MiB and a tenth are 158 */
    bench_serve(&bench, false);
    snapshot_up(&bench, &vm);
    cr_assert_eq(priv_stage(bench.client, vm.instance, &err), -1);
    cr_assert_eq(err.code, ERR_DISK_FULL, "%s", err.msg);
    cr_assert_not_null(strstr(err.msg, "158 MiB"), "%s", err.msg);
    assert_no_rest();
    snapshot_assert_alive(&bench, &vm);
    char path[128];
    snprintf(path, sizeof(path), "%s/staging", bench.state);
    cr_assert_eq(mount("small", path, "tmpfs", MS_REMOUNT, "size=160m"), 0, "%m");
    err = (struct error){0};
    cr_assert_eq(priv_stage(bench.client, vm.instance, &err), 0, "%s", err.msg);
    bench_stop(&bench);
    large_disk("staging");
    bench_close(&bench);
}

/* The room goes while it is being made: at the disk's copy, at the memory's. */
Test(priv_snapshot_room, R02_R20_a_disk_that_fills_up_ends_it_and_nothing_is_left, .timeout = 60)
{
    static const char *const sizes[] = {"size=512k,mode=0700", "size=2m,mode=0700"};
    bench_init(&bench);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        struct bench_vm vm;
        struct priv_published made;
        struct error err = {0};
        char path[64];
        cleanup_free char *data = malloc(1 << 20);
        memset(data, 'd', 1 << 20);
        small_disk("snapshots", sizes[i]);
        bench_serve(&bench, false);
        snapshot_up(&bench, &vm);
        snapshot_place(&vm, "/scratch", path, sizeof(path));
        cleanup_close int disk = open(path, O_WRONLY | O_CLOEXEC);
        cr_assert_eq(pwrite(disk, data, 1 << 20, 4 << 20), 1 << 20);
        snapshot_pause(&vm);
        cr_assert_eq(priv_stage(bench.client, vm.instance, &err), 0, "%s", err.msg);
        cr_assert_eq(snapshot_write(&vm), 204);
        snapshot_place(&vm, PRIV_PLACE_MEMORY, path, sizeof(path));
        cleanup_close int memory = open(path, O_WRONLY | O_CLOEXEC);
        for (off_t at = 8 << 20; at < 16 << 20; at += 1 << 20)
            cr_assert_eq(pwrite(memory, data, 1 << 20, at), 1 << 20);
        if (i == 1)
            cr_assert_eq(priv_capture(bench.client, vm.instance, &err), 0, "%s", err.msg);
        int result = i == 1 ? priv_publish(bench.client, vm.instance, &made, &err)
                            : priv_capture(bench.client, vm.instance, &err);
        cr_assert(result == -1 && err.code == ERR_DISK_FULL, "%s: %s", error_code_name(err.code),
                  err.msg);
        assert_no_rest();
        snapshot_resume(&vm);
        snapshot_assert_alive(&bench, &vm);
        bench_kill(&bench, &vm, NULL);
        bench_stop(&bench);
        large_disk("snapshots");
    }
    bench_close(&bench);
}

Test(priv_snapshot_room, R09_no_more_than_max_snapshots_are_kept_or_made, .timeout = 60)
{
    struct bench_vm vm, other;
    struct priv_published first, second;
    struct error err = {0};
    struct priv_host host;
    bench_init(&bench);
    bench.config.max_snapshots = 1;
    bench.config.image_snapshots = 1; /* there is room for both kinds */
    bench_serve(&bench, false);
    cr_assert_eq(priv_host(bench.client, &host, &err), 0);
    cr_assert_eq(host.max_snapshots, 1u);
    snapshot_up(&bench, &vm);
    snapshot_up(&bench, &other);
    snapshot_make(&bench, &vm, &first);
    snapshot_pause(&other);
    cr_assert_eq(priv_stage(bench.client, other.instance, &err), 0, "%s", err.msg);
    cr_assert_eq(priv_stage(bench.client, vm.instance, &err), -1, "one is kept and one is made");
    cr_assert_eq(err.code, ERR_CAPACITY, "%s", err.msg);
    err = (struct error){0};
    cr_assert_eq(priv_unstage(bench.client, other.instance, &err), 0);
    snapshot_make(&bench, &vm, &second);
    cr_assert_eq(priv_stage(bench.client, other.instance, &err), -1);
    cr_assert_eq(err.code, ERR_CAPACITY, "%s", err.msg);
    assert_no_rest();
    err = (struct error){0};
    cr_assert_eq(priv_forget_snapshot(bench.client, first.snapshot, &err), 0);
    cr_assert_eq(priv_stage(bench.client, other.instance, &err), 0, "%s", err.msg);
    bench_close(&bench);
}

/* ---- PUBLISH takes as long as the disk needs ---- */

enum { LARGE_MIB = 1024 };

struct publishing {
    const struct bench_vm *vm;
    pthread_t thread;
    struct error err;
    bool done; /* under the lock */
    pthread_mutex_t lock;
};

static void *publish(void *context)
{
    struct publishing *publishing = context;
    struct priv_published made;
    priv_publish(bench.client, publishing->vm->instance, &made, &publishing->err);
    pthread_mutex_lock(&publishing->lock);
    publishing->done = true;
    pthread_mutex_unlock(&publishing->lock);
    return NULL;
}

static bool is_done(struct publishing *publishing)
{
    pthread_mutex_lock(&publishing->lock);
    bool done = publishing->done;
    pthread_mutex_unlock(&publishing->lock);
    return done;
}

/* A memory full of what is not zero, captured. Firecracker's own part is not needed for this. */
static void capture_large(struct bench_vm *vm)
{
    const struct priv_shape shape = {
        .vcpus = 1, .memory_mib = LARGE_MIB, .disk_mib = 0, .seccomp = PRIV_SECCOMP_MINIMAL};
    struct error err = {0};
    char path[64];
    bench_reserve(&bench, vm);
    bench_guard(&bench, vm, &shape);
    bench_launch(&bench, vm);
    vm->api = priv_open(bench.client, vm->instance, PRIV_SOCKET_API, 0, &err);
    cr_assert_geq(vm->api, 0, "%s", err.msg); /* so it is in its jail */
    cr_assert_eq(priv_stage(bench.client, vm->instance, &err), 0, "%s", err.msg);
    snapshot_place(vm, PRIV_PLACE_STATE, path, sizeof(path));
    cr_assert_eq(truncate(path, 4096), 0);
    snapshot_place(vm, PRIV_PLACE_MEMORY, path, sizeof(path));
    cleanup_close int memory = open(path, O_WRONLY | O_CLOEXEC);
    cleanup_free char *data = malloc(1 << 20);
    memset(data, 'm', 1 << 20);
    for (int i = 0; i < LARGE_MIB; i++)
        cr_assert_eq(write(memory, data, 1 << 20), 1 << 20, "%m");
    cr_assert_eq(priv_capture(bench.client, vm->instance, &err), 0, "%s", err.msg);
}

static void await_copy(const char *instance)
{
    char path[160];
    struct stat st = {0};
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    snprintf(path, sizeof(path), "%s/snapshots/.%s/memory", bench.state, instance);
    while (stat(path, &st) < 0 || st.st_blocks == 0) {
        cr_assert_gt(clock_left_ms(deadline), 0);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

Test(priv_snapshot_room, R03_publishing_delays_nobody_and_ends_with_its_vm, .timeout = 120)
{
    struct bench_vm vm, other;
    struct publishing publishing = {.vm = &vm, .lock = PTHREAD_MUTEX_INITIALIZER};
    char left[128];
    bench_init(&bench);
    bench_serve(&bench, false);
    capture_large(&vm);
    cr_assert_eq(pthread_create(&publishing.thread, NULL, publish, &publishing), 0);
    await_copy(vm.instance);
    bench_reserve(&bench, &other);
    bench_guard(&bench, &other, &BENCH_SHAPE);
    bench_launch(&bench, &other);
    bench_kill(&bench, &other, NULL);
    cr_assert_not(is_done(&publishing), "it was done before it could be in the way");
    bench_kill(&bench, &vm, NULL);
    cr_assert_eq(pthread_join(publishing.thread, NULL), 0);
    cr_assert_eq(publishing.err.code, ERR_CANCELLED, "%s", publishing.err.msg);
    bench_traces(&bench, vm.instance, left, sizeof(left));
    cr_assert_str_eq(left, "");
    assert_no_rest();
    bench_close(&bench);
}
