/* Snapshots of a QEMU, which is lent descriptors: what is lent, to whom, and what is made of it. What
 * QEMU would write is written here; its guest does not run. */
#include "priv/snapshot_internal.h"
#include "report.h"
#include "snapshots.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

static struct bench bench;

static void begin(void)
{
    bench_init(&bench);
    bench.config.hypervisor = PRIV_QEMU;
    bench.config.emulated = true;
    bench_serve(&bench, false);
}

static void up(struct bench_vm *vm)
{
    struct error err = {0};
    snapshot_guarded(&bench, vm);
    bench_launch(&bench, vm);
    vm->api = priv_open(bench.client, vm->instance, PRIV_SOCKET_API, 0, &err);
    cr_assert_geq(vm->api, 0, "%s", err.msg);
}

static int open_staged(const struct bench_vm *vm, enum error_code expected)
{
    struct error err = {0};
    int fd = priv_open(bench.client, vm->instance, PRIV_SOCKET_STAGED, 0, &err);
    cr_assert_eq(err.code, expected, "%s", err.msg);
    return fd;
}

/* Staged, with that much written, and the descriptor kept as a VMM could. */
static int stage(const struct bench_vm *vm, off_t size)
{
    struct error err = {0};
    cr_assert_eq(priv_stage(bench.client, vm->instance, &err), 0, "%s", err.msg);
    int fd = open_staged(vm, ERR_NONE);
    cr_assert_eq(ftruncate(fd, size), 0, "%m");
    cr_assert(size == 0 || pwrite(fd, "then", 4, 0) == 4);
    return fd;
}

static void make(const struct bench_vm *vm, struct priv_published *ret)
{
    struct error err = {0};
    cleanup_close int kept = stage(vm, 1 << 20);
    cr_assert_eq(priv_capture(bench.client, vm->instance, &err), 0, "%s", err.msg);
    cr_assert_eq(priv_publish(bench.client, vm->instance, ret, &err), 0, "%s", err.msg);
    cr_assert_eq(pwrite(kept, "now!", 4, 0), 4, "nobody can keep it from that");
}

static void published(const struct priv_published *made, const char *name, char out[static 192])
{
    snprintf(out, 192, "%s/snapshots/%s/%s", bench.state, made->snapshot, name);
}

static void assert_no_rest(void)
{
    char rest[320];
    snapshot_rest(&bench, rest, sizeof(rest));
    cr_assert_str_eq(rest, "");
}

Test(priv_snapshot_qemu, R26_a_qemu_is_lent_a_file_only_while_one_is_staged, .timeout = 60)
{
    struct bench_vm vm;
    struct error err = {0};
    struct stat st;
    char place[64];
    begin();
    up(&vm);
    open_staged(&vm, ERR_PRIV_REFUSED);
    cleanup_close int fd = stage(&vm, 4096);
    assert_no_rest();
    cr_assert_eq(fcntl(fd, F_GETFL) & O_ACCMODE, O_WRONLY);
    cr_assert(fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 0);
    cr_assert(st.st_uid == 0 && st.st_gid == 0 && (st.st_mode & 07777) == 0600, "root's alone");
    snapshot_place(&vm, PRIV_PLACE_STATE, place, sizeof(place));
    cr_assert(lstat(place, &st) < 0 && errno == ENOENT, "nothing of it is in the jail");
    cr_assert_eq(priv_check(bench.client, vm.instance, &err), 0, "%s", err.msg);
    cr_assert_eq(priv_capture(bench.client, vm.instance, &err), 0, "%s", err.msg);
    open_staged(&vm, ERR_PRIV_REFUSED);
    cr_assert_eq(priv_unstage(bench.client, vm.instance, &err), 0, "%s", err.msg);
    open_staged(&vm, ERR_PRIV_REFUSED);
    cleanup_close int again = stage(&vm, 4096);
    cr_assert_eq(priv_unstage(bench.client, vm.instance, &err), 0, "%s", err.msg);
    assert_no_rest();
    bench_kill(&bench, &vm, NULL);
    bench_close(&bench);
}

Test(priv_snapshot_qemu, R21_what_a_qemu_writes_has_bounds, .timeout = 60)
{
    const off_t most = (128 << 20) + (128 << 20) / 256 + PRIV_STATE_MAX;
    const off_t wrong[] = {0, most + 1};
    struct bench_vm vm;
    struct priv_published made;
    begin();
    up(&vm);
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        struct error err = {0};
        cleanup_close int fd = stage(&vm, wrong[i]);
        cr_assert_eq(priv_capture(bench.client, vm.instance, &err), -1);
        cr_assert_eq(err.code, ERR_HYPERVISOR, "%s", err.msg);
    }
    struct error err = {0};
    cleanup_close int fd = stage(&vm, most);
    cr_assert_eq(priv_capture(bench.client, vm.instance, &err), 0, "%s", err.msg);
    cr_assert_eq(ftruncate(fd, most + 1), 0);
    cr_assert_eq(priv_publish(bench.client, vm.instance, &made, &err), -1, "it went on");
    cr_assert_eq(err.code, ERR_HYPERVISOR, "%s", err.msg);
    assert_no_rest();
    bench_close(&bench);
}

/* The descriptor that it waits with, and what lies in its jail to be read back. */
static void assert_lent(const struct bench_vm *vm, const char *path)
{
    struct stat st, lent, mounted;
    char text[512], at[64];
    snprintf(at, sizeof(at), "/proc/%d/fd/%d", (int)bench_pid(vm), PRIV_RESTORE_FD);
    cr_assert(stat(path, &st) == 0 && stat(at, &lent) == 0, "%m");
    cr_assert(st.st_ino == lent.st_ino && st.st_dev == lent.st_dev);
    snprintf(at, sizeof(at), "/proc/%d/fdinfo/%d", (int)bench_pid(vm), PRIV_RESTORE_FD);
    cr_assert_gt(fs_read_at(AT_FDCWD, at, text, sizeof(text)), 0);
    const char *flags = strstr(text, "flags:\t");
    cr_assert_not_null(flags);
    cr_assert_eq(strtoul(flags + strlen("flags:\t"), NULL, 8) & O_ACCMODE, (unsigned long)O_RDONLY);
    snapshot_place(vm, PRIV_RESTORE_STATE, at, sizeof(at));
    cr_assert(stat(at, &mounted) == 0 && mounted.st_ino == st.st_ino);
    cr_assert_eq(open(at, O_RDWR | O_CLOEXEC), -1);
    cr_assert_eq(errno, EROFS, "%m");
}

static void assert_adopted(const struct bench_vm *vm, const struct priv_published *from)
{
    struct priv_instance found;
    struct error err = {0};
    for (uint32_t i = 0; i < 2; i++) {
        cr_assert_eq(priv_list(bench.client, i, &found, &err), 0, "%s", err.msg);
        if (strcmp(found.instance, vm->instance) == 0)
            break;
    }
    cr_assert_str_eq(found.instance, vm->instance);
    cr_assert(found.alive && found.state == PRIV_LAUNCHED);
    cr_assert(found.generation == 1 && strcmp(found.snapshot, from->snapshot) == 0);
    cr_assert_eq(priv_check(bench.client, vm->instance, &err), 0, "%s", err.msg);
}

Test(priv_snapshot_qemu, R21_R26_a_qemu_is_restored_from_what_was_published, .timeout = 60)
{
    struct bench_vm first, second;
    struct priv_published made;
    struct report report;
    struct stat st;
    char path[192], text[8] = "", wrong[512];
    begin();
    up(&first);
    make(&first, &made);
    assert_no_rest();
    published(&made, "memory", path);
    cr_assert(lstat(path, &st) < 0 && errno == ENOENT, "it is in the state");
    published(&made, "state", path);
    cr_assert(lstat(path, &st) == 0 && st.st_uid == 0 && (st.st_mode & 07777) == 0444);
    cr_assert_eq(st.st_size, 1 << 20);
    cleanup_close int state = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert(pread(state, text, 4, 0) == 4 && strcmp(text, "then") == 0, "%s", text);
    snapshot_guarded(&bench, &second);
    cr_assert_eq(snapshot_launch(&bench, &second, made.snapshot), ERR_NONE);
    struct error err = {0};
    second.api = priv_open(bench.client, second.instance, PRIV_SOCKET_API, 0, &err);
    cr_assert_geq(second.api, 0, "%s", err.msg);
    cr_assert_eq(memcmp(second.launched.snapshot_token, first.launched.token, PRIV_TOKEN_SIZE), 0);
    assert_lent(&second, path);
    cr_assert_str_eq(report_wrong(&bench, &second, wrong, sizeof(wrong)), "");
    report_read(&bench, &second, &report);
    cr_assert_eq(report_line(&report, "snapshot_digest")->state, PRIV_LINE_OK);
    cr_assert_eq(report_line(&report, "snapshot_read_only")->state, PRIV_LINE_OK);
    report_read(&bench, &first, &report);
    cr_assert_eq(report_line(&report, "snapshot_digest")->state, PRIV_LINE_NOT_APPLICABLE);
    cr_assert_eq(report_line(&report, "snapshot_read_only")->state, PRIV_LINE_NOT_APPLICABLE);
    bench_stop(&bench);
    bench_serve(&bench, false);
    assert_adopted(&second, &made);
    cleanup_close int changed = open(path, O_WRONLY | O_CLOEXEC);
    cr_assert_eq(pwrite(changed, "lies", 4, 0), 4);
    report_read(&bench, &second, &report);
    cr_assert_eq(report_line(&report, "snapshot_digest")->state, PRIV_LINE_WRONG);
    bench_close(&bench);
}

static void assert_launch(const struct priv_published *made, enum error_code expected)
{
    struct bench_vm vm;
    snapshot_guarded(&bench, &vm);
    cr_assert_eq(snapshot_launch(&bench, &vm, made->snapshot), expected);
    bench_kill(&bench, &vm, NULL);
}

Test(priv_snapshot_qemu, R21_a_snapshot_of_another_machine_or_clock_is_refused, .timeout = 60)
{
    struct bench_vm vm;
    struct priv_published made;
    begin();
    up(&vm);
    make(&vm, &made);
    bench.server->machine[0] ^= 1;
    assert_launch(&made, ERR_SNAPSHOT_MISMATCH);
    bench.server->machine[0] ^= 1;
    const uint32_t khz = bench.server->tsc_khz;
    bench.server->tsc_khz = khz + khz / 1000;
    assert_launch(&made, ERR_SNAPSHOT_MISMATCH);
    bench.server->tsc_khz = khz - khz / 1000;
    assert_launch(&made, ERR_SNAPSHOT_MISMATCH);
    bench.server->tsc_khz = khz + khz / 100000; /* as it is measured */
    assert_launch(&made, ERR_NONE);
    bench_stop(&bench);
    bench_serve(&bench, false);
    assert_launch(&made, ERR_NONE);
    bench_close(&bench);
}
