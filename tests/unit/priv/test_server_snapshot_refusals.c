/* What the root half refuses about snapshots, and what a hostile VMM cannot do to one. */
#include "break_out.h"
#include "priv/snapshot_internal.h"
#include "snapshots.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

static struct bench bench;

static void assert_no_rest(void)
{
    char rest[320];
    snapshot_rest(&bench, rest, sizeof(rest));
    cr_assert_str_eq(rest, "");
}

typedef int step(struct priv_client *client, const char *instance, struct error *err);

static enum error_code try(step *which, const struct bench_vm *vm)
{
    struct error err = {0};
    int result = which(bench.client, vm->instance, &err);
    cr_assert_eq(result == 0, err.code == ERR_NONE);
    return err.code;
}

static int publish(struct priv_client *client, const char *instance, struct error *err)
{
    struct priv_published made;
    return priv_publish(client, instance, &made, err);
}

static int open_staged(struct priv_client *client, const char *instance, struct error *err)
{
    cleanup_close int fd = priv_open(client, instance, PRIV_SOCKET_STAGED, 0, err);
    return fd < 0 ? -1 : 0;
}

static uint32_t published(void)
{
    struct error err = {0};
    uint32_t count = 0;
    cr_assert_eq(priv_snapshots_count(bench.server, &count, &err), 0, "%s", err.msg);
    return count;
}

Test(priv_snapshot_refusals, R41_steps_out_of_order_are_refused, .timeout = 60)
{
    struct bench_vm vm;
    bench_init(&bench);
    bench_serve(&bench, false);
    snapshot_guarded(&bench, &vm);
    cr_assert_eq(try(priv_stage, &vm), ERR_PRIV_REFUSED, "nothing runs");
    cr_assert_eq(try(priv_unstage, &vm), ERR_PRIV_REFUSED);
    bench_kill(&bench, &vm, NULL);
    snapshot_up(&bench, &vm);
    cr_assert_eq(try(priv_capture, &vm), ERR_PRIV_REFUSED, "without STAGE");
    cr_assert_eq(try(publish, &vm), ERR_PRIV_REFUSED, "without STAGE");
    snapshot_pause(&vm);
    cr_assert_eq(try(priv_stage, &vm), ERR_NONE);
    cr_assert_eq(try(priv_stage, &vm), ERR_PRIV_REFUSED, "twice");
    cr_assert_eq(try(open_staged, &vm), ERR_PRIV_REFUSED, "it has a place");
    cr_assert_eq(try(publish, &vm), ERR_PRIV_REFUSED, "without CAPTURE");
    cr_assert_eq(snapshot_write(&vm), 204);
    cr_assert_eq(try(priv_capture, &vm), ERR_NONE);
    cr_assert_eq(try(priv_stage, &vm), ERR_PRIV_REFUSED, "while one is captured");
    cr_assert_eq(try(priv_capture, &vm), ERR_PRIV_REFUSED, "twice");
    cr_assert_eq(published(), 0u);
    cr_assert_eq(try(publish, &vm), ERR_NONE, "what was refused had no effect");
    cr_assert_eq(try(publish, &vm), ERR_PRIV_REFUSED, "twice");
    cr_assert_eq(published(), 1u);
    bench_close(&bench);
}

/* ---- a snapshot that does not fit ---- */

static char made[ID_INSTANCE_SIZE];

static void make_one(void)
{
    struct bench_vm vm;
    struct priv_published one;
    snapshot_up(&bench, &vm);
    snapshot_make(&bench, &vm, &one);
    bench_kill(&bench, &vm, NULL);
    memcpy(made, one.snapshot, sizeof(made));
}

static enum error_code code_listed(void)
{
    struct priv_snapshot listed;
    struct error err = {0};
    cr_assert_eq(priv_snapshots(bench.client, NULL, &listed, &err), 0, "%s", err.msg);
    cr_assert_str_eq(listed.snapshot, made);
    return listed.code;
}

/* And the instance can still be booted, so that the refusal had no effect. */
static void assert_refused(enum error_code expected, const char *what)
{
    struct bench_vm vm;
    snapshot_guarded(&bench, &vm);
    cr_assert_eq(snapshot_launch(&bench, &vm, made), expected, "%s", what);
    bench_launch(&bench, &vm);
    bench_kill(&bench, &vm, NULL);
}

static void assert_fits(void)
{
    struct bench_vm vm;
    snapshot_guarded(&bench, &vm);
    cr_assert_eq(snapshot_launch(&bench, &vm, made), ERR_NONE);
    bench_kill(&bench, &vm, NULL);
}

Test(priv_snapshot_refusals, R21_a_snapshot_of_another_host_or_vmm_is_refused, .timeout = 60)
{
    bench_init(&bench);
    bench_serve(&bench, false);
    make_one();
    struct priv_identity *host = &bench.server->identity;
    const struct priv_identity real = *host;
    uint32_t *const numbers[] = {&host->family, &host->model, &host->stepping};
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        ++*numbers[i];
        assert_refused(ERR_SNAPSHOT_MISMATCH, "another processor");
        *host = real;
    }
    host->vendor[0] ^= 1;
    assert_refused(ERR_SNAPSHOT_MISMATCH, "another vendor");
    *host = real;
    host->flags[HASH_SIZE - 1] ^= 1;
    assert_refused(ERR_SNAPSHOT_MISMATCH, "other features");
    *host = real;
    host->kernel[0] ^= 1;
    cr_assert_eq(code_listed(), ERR_SNAPSHOT_MISMATCH);
    assert_refused(ERR_SNAPSHOT_MISMATCH, "another kernel");
    *host = real;
    bench.server->vmm_version[0] ^= 1;
    assert_refused(ERR_SNAPSHOT_MISMATCH, "another VMM");
    bench.server->vmm_version[0] ^= 1;
    cr_assert_eq(code_listed(), ERR_NONE);
    assert_fits();
    bench_close(&bench);
}

Test(priv_snapshot_refusals, R21_a_snapshot_of_another_shape_or_image_is_refused, .timeout = 60)
{
    struct bench_vm vm;
    const struct priv_shape other[] = {
        {2, 128, 16, PRIV_SECCOMP_MINIMAL}, {1, 256, 16, PRIV_SECCOMP_MINIMAL},
        {1, 128, 32, PRIV_SECCOMP_MINIMAL}, {1, 128, 0, PRIV_SECCOMP_MINIMAL},
        {1, 128, 16, PRIV_SECCOMP_BASIC},
    };
    bench_init(&bench);
    bench_serve(&bench, false);
    make_one();
    for (size_t i = 0; i < COUNT_OF(other); i++) {
        bench_reserve(&bench, &vm);
        bench_guard(&bench, &vm, &other[i]);
        cr_assert_eq(snapshot_launch(&bench, &vm, made), ERR_SNAPSHOT_MISMATCH, "shape %zu", i);
        bench_launch(&bench, &vm);
        bench_kill(&bench, &vm, NULL);
    }
    uint8_t image[HASH_SIZE];
    memcpy(image, bench.image, HASH_SIZE);
    bench.image[0] ^= 1;
    snapshot_guarded(&bench, &vm);
    cr_assert_eq(snapshot_launch(&bench, &vm, made), ERR_SNAPSHOT_MISMATCH, "another image");
    memcpy(bench.image, image, HASH_SIZE);
    cr_assert_eq(snapshot_launch(&bench, &vm, "aaaaaaaaaaaaaaaaaaaa"), ERR_SNAPSHOT_UNKNOWN);
    bench_launch(&bench, &vm);
    bench_kill(&bench, &vm, NULL);
    assert_fits();
    /* The image is the same, and boots another kernel now. */
    char directory[160], path[192];
    snprintf(directory, sizeof(directory), "%s/kernels/guest", bench.state);
    snprintf(path, sizeof(path), "%s/manifest", directory);
    cleanup_close int manifest = open(path, O_WRONLY | O_CLOEXEC);
    cr_assert_eq(pwrite(manifest, "vmlinux = 00000000", 18, 0), 18);
    snapshot_guarded(&bench, &vm);
    cr_assert_eq(snapshot_launch(&bench, &vm, made), ERR_SNAPSHOT_MISMATCH, "another kernel");
    bench_close(&bench);
}

static void change_file(const char *name, off_t at)
{
    char path[192], byte = 0;
    snprintf(path, sizeof(path), "%s/snapshots/%s/%s", bench.state, made, name);
    cleanup_close int fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_eq(pread(fd, &byte, 1, at), 1, "%s: %m", path);
    byte ^= 1;
    cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
}

Test(priv_snapshot_refusals, R21_a_damaged_snapshot_is_refused, .timeout = 60)
{
    static const char *const names[] = {"state", "memory", "scratch", "meta"};
    char path[192], aside[192];
    bench_init(&bench);
    bench_serve(&bench, false);
    make_one();
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        snprintf(path, sizeof(path), "%s/snapshots/%s/%s", bench.state, made, names[i]);
        snprintf(aside, sizeof(aside), "%s/aside", bench.directory);
        change_file(names[i], 100);
        assert_refused(ERR_SNAPSHOT_DAMAGED, names[i]);
        change_file(names[i], 100);
        assert_fits();
        cr_assert_eq(rename(path, aside), 0);
        assert_refused(ERR_SNAPSHOT_DAMAGED, "one that is not there");
        cr_assert_eq(symlink(aside, path), 0);
        if (strcmp(names[i], "meta") != 0)
            assert_refused(ERR_SNAPSHOT_DAMAGED, "a link in its place");
        cr_assert_eq(rename(aside, path), 0);
        assert_fits();
    }
    snprintf(path, sizeof(path), "%s/snapshots/%s/memory", bench.state, made);
    cr_assert_eq(chmod(path, 0644), 0);
    assert_refused(ERR_SNAPSHOT_DAMAGED, "one that can be written");
    cr_assert_eq(chmod(path, 0444), 0);
    cr_assert_eq(truncate(path, (128 << 20) + 1), 0);
    assert_refused(ERR_SNAPSHOT_DAMAGED, "a longer one");
    cr_assert_eq(code_listed(), ERR_NONE, "its files are looked at when they are used");
    change_file("meta", 100);
    cr_assert_eq(code_listed(), ERR_SNAPSHOT_DAMAGED);
    bench_close(&bench);
}

/* ---- a VMM that its guest has taken over ---- */

/* Each of these would put something else under the root half's mount, or take the guard away. */
static int attack_places(void *context)
{
    static const char *const places[] = {PRIV_PLACE_STATE, PRIV_PLACE_MEMORY, PRIV_RESTORE_STATE,
                                         PRIV_RESTORE_MEMORY};
    const size_t count = *(const size_t *)context;
    for (size_t i = 0; i < count; i++) {
        if (unlink(places[i]) == 0 || errno != EBUSY)
            return 10 + (int)i;
        if (rename(places[i], "/elsewhere") == 0 || errno != EBUSY)
            return 20 + (int)i;
        if (symlink("/elsewhere", places[i]) == 0)
            return 30 + (int)i;
        if (open(places[i], O_WRONLY | O_CLOEXEC) >= 0 || chmod(places[i], 0666) == 0)
            return 40 + (int)i;
        if (umount2(places[i], MNT_DETACH) == 0)
            return 50 + (int)i;
    }
    return mkdir("/elsewhere", 0700) == 0 ? 0 : 60; /* all else in it is its own */
}

Test(priv_snapshot_refusals, R21_R26_a_vmm_that_broke_out_cannot_take_a_place_away, .timeout = 60)
{
    struct bench_vm vm;
    size_t count = 2;
    struct break_out how = {
        .vm = &vm, .place = BREAK_OUT_JAIL, .then = attack_places, .context = &count};
    bench_init(&bench);
    bench_serve(&bench, false);
    make_one();
    snapshot_up(&bench, &vm);
    cr_assert_eq(break_out(&how), 0);
    bench_kill(&bench, &vm, NULL);
    snapshot_restore(&bench, &vm, made);
    count = 4;
    cr_assert_eq(break_out(&how), 0);
    bench_close(&bench);
}

Test(priv_snapshot_refusals, R21_what_a_vmm_writes_later_is_not_in_the_snapshot, .timeout = 60)
{
    enum { LEN = 4096 };
    struct bench_vm vm;
    struct priv_published one;
    struct error err = {0};
    char path[64], data[LEN];
    memset(data, 'h', sizeof(data));
    bench_init(&bench);
    bench_serve(&bench, false);
    snapshot_up(&bench, &vm);
    snapshot_pause(&vm);
    cr_assert_eq(try(priv_stage, &vm), ERR_NONE);
    snapshot_place(&vm, PRIV_PLACE_MEMORY, path, sizeof(path));
    cleanup_close int kept = open(path, O_RDWR | O_CLOEXEC); /* as it keeps one */
    cr_assert_geq(kept, 0);
    cr_assert_eq(snapshot_write(&vm), 204);
    cr_assert_eq(try(priv_capture, &vm), ERR_NONE);
    cr_assert_eq(ftruncate(kept, 300 << 20), 0); /* longer than its memory */
    cr_assert_eq(pwrite(kept, data, LEN, 200 << 20), LEN);
    cr_assert_eq(priv_publish(bench.client, vm.instance, &one, &err), 0, "%s", err.msg);
    for (off_t at = 0; at < 128 << 20; at += 1 << 20)
        cr_assert_eq(pwrite(kept, data, LEN, at), LEN);
    bench_kill(&bench, &vm, NULL);
    snapshot_restore(&bench, &vm, one.snapshot);
    bench_close(&bench);
}

Test(priv_snapshot_refusals, R21_what_is_no_snapshot_is_not_captured, .timeout = 60)
{
    static const struct {
        const char *place;
        off_t size;
    } wrong[] = {{PRIV_PLACE_MEMORY, 0},
                 {PRIV_PLACE_MEMORY, (128 << 20) - 1},
                 {PRIV_PLACE_MEMORY, (128 << 20) + 1},
                 {PRIV_PLACE_STATE, 0},
                 {PRIV_PLACE_STATE, (16 << 20) + 1}};
    struct bench_vm vm;
    char path[64];
    bench_init(&bench);
    bench_serve(&bench, false);
    snapshot_up(&bench, &vm);
    snapshot_pause(&vm);
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        cr_assert_eq(try(priv_stage, &vm), ERR_NONE);
        cr_assert_eq(snapshot_write(&vm), 204);
        snapshot_place(&vm, wrong[i].place, path, sizeof(path));
        cr_assert_eq(truncate(path, wrong[i].size), 0);
        cr_assert_eq(try(priv_capture, &vm), ERR_HYPERVISOR, "%s of %lld bytes", wrong[i].place,
                     (long long)wrong[i].size);
        assert_no_rest();
    }
    snapshot_resume(&vm);
    snapshot_assert_alive(&bench, &vm);
    bench_close(&bench);
}
