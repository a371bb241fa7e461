/* Snapshots on real Firecracker: made, listed, run from, removed; and that nothing is left of one that
 * was not finished. */
#include "report.h"
#include "snapshots.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

static void assert_no_rest(const struct bench *bench)
{
    char rest[320];
    snapshot_rest(bench, rest, sizeof(rest));
    cr_assert_str_eq(rest, "");
}

static void assert_nothing_left(const struct bench *bench, const char *instance)
{
    char left[128];
    bench_traces(bench, instance, left, sizeof(left));
    cr_assert_str_eq(left, "", "left of %s: %s", instance, left);
    assert_no_rest(bench);
}

static size_t list(struct bench *bench, struct priv_snapshot *ret_last)
{
    struct error err = {0};
    struct priv_snapshot at;
    size_t count = 0;
    cr_assert_eq(priv_snapshots(bench->client, NULL, &at, &err), 0, "%s", err.msg);
    for (; at.snapshot[0] != '\0'; count++) {
        *ret_last = at;
        cr_assert_eq(priv_snapshots(bench->client, ret_last->snapshot, &at, &err), 0);
    }
    return count;
}

/* A mark on the VM's disk, written as root behind its back. */
static void mark_disk(const struct bench_vm *vm, const char *mark)
{
    char path[64];
    snapshot_place(vm, "/scratch", path, sizeof(path));
    cleanup_close int disk = open(path, O_WRONLY | O_CLOEXEC);
    cr_assert_eq(pwrite(disk, mark, 4, 1 << 20), 4, "%m");
}

static void assert_disk(const struct bench_vm *vm, const char *mark)
{
    char path[64], text[5] = "";
    struct stat st;
    snapshot_place(vm, "/scratch", path, sizeof(path));
    cleanup_close int disk = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert_eq(pread(disk, text, 4, 1 << 20), 4, "%m");
    cr_assert_str_eq(text, mark);
    cr_assert(fstat(disk, &st) == 0 && st.st_size == 16 << 20 && st.st_uid == vm->uid);
}

static void assert_file(const struct bench *bench, const char *snapshot, const char *name,
                        mode_t mode, off_t size, off_t allocated_max)
{
    char path[192];
    struct stat st;
    snprintf(path, sizeof(path), "%s/snapshots/%s/%s", bench->state, snapshot, name);
    cr_assert_eq(lstat(path, &st), 0, "%s: %m", path);
    cr_assert(S_ISREG(st.st_mode) && st.st_uid == 0 && st.st_gid == 0 && st.st_nlink == 1);
    cr_assert_eq(st.st_mode & 07777, mode, "%s: mode %o", name, st.st_mode & 07777);
    cr_assert(size == 0 || st.st_size == size, "%s: %lld bytes", name, (long long)st.st_size);
    cr_assert_leq(st.st_blocks * 512, allocated_max, "%s takes %lld bytes", name,
                  (long long)st.st_blocks * 512);
}

static void assert_readonly(const struct bench_vm *vm, const char *place)
{
    char path[64];
    snapshot_place(vm, place, path, sizeof(path));
    cr_assert_eq(open(path, O_RDWR | O_CLOEXEC), -1, "%s", place);
    cr_assert_eq(errno, EROFS, "%s: %m", place);
}

Test(priv_snapshots, R21_R26_a_vm_is_restored_behind_all_guards, .timeout = 60)
{
    struct bench bench;
    struct bench_vm first, second, third;
    struct priv_published made;
    struct priv_snapshot listed;
    struct report report;
    char wrong[512];
    bench_init(&bench);
    bench_serve(&bench, false);
    snapshot_up(&bench, &first);
    mark_disk(&first, "then");
    snapshot_make(&bench, &first, &made);
    snapshot_assert_alive(&bench, &first); /* it runs on */
    assert_no_rest(&bench);
    assert_file(&bench, made.snapshot, "memory", 0444, 128 << 20, 8 << 20);
    assert_file(&bench, made.snapshot, "state", 0444, 0, 1 << 20);
    assert_file(&bench, made.snapshot, "scratch", 0400, 16 << 20, 1 << 20);
    assert_file(&bench, made.snapshot, "meta", 0400, 0, 1 << 20);
    cr_assert(made.bytes > 0 && made.bytes < 10 << 20);
    mark_disk(&first, "now!"); /* the snapshot's is another */
    bench_kill(&bench, &first, NULL);
    snapshot_restore(&bench, &second, made.snapshot);
    snapshot_restore(&bench, &third, made.snapshot); /* two at once from the same files */
    cr_assert_neq(memcmp(second.launched.token, third.launched.token, PRIV_TOKEN_SIZE), 0);
    cr_assert_eq(memcmp(second.launched.snapshot_token, first.launched.token, PRIV_TOKEN_SIZE), 0);
    cr_assert_eq(second.launched.generation, 1u);
    snapshot_assert_alive(&bench, &second);
    assert_disk(&second, "then");
    mark_disk(&second, "2nd!");
    assert_disk(&third, "then");
    cr_assert_str_eq(report_wrong(&bench, &third, wrong, sizeof(wrong)), "");
    report_read(&bench, &third, &report);
    cr_assert_eq(report_line(&report, "snapshot_digest")->state, PRIV_LINE_OK);
    cr_assert_eq(report_line(&report, "snapshot_read_only")->state, PRIV_LINE_OK);
    assert_readonly(&third, PRIV_RESTORE_MEMORY);
    assert_readonly(&third, PRIV_RESTORE_STATE);
    cr_assert_eq(list(&bench, &listed), 1u);
    cr_assert(strcmp(listed.snapshot, made.snapshot) == 0 && listed.code == ERR_NONE);
    cr_assert(strcmp(listed.instance, first.instance) == 0 && listed.bytes == made.bytes);
    cr_assert_eq(memcmp(listed.digest, made.digest, HASH_SIZE), 0);
    cr_assert_eq(memcmp(listed.image, bench.image, HASH_SIZE), 0);
    cr_assert_eq(listed.shape.memory_mib, 128u);
    bench_kill(&bench, &second, NULL);
    bench_kill(&bench, &third, NULL);
    assert_nothing_left(&bench, third.instance);
    bench_close(&bench);
}

Test(priv_snapshots, R02_a_restored_vm_is_adopted_and_snapshotted_again, .timeout = 60)
{
    struct bench bench;
    struct bench_vm first, second, third;
    struct priv_published made, again;
    struct priv_instance found;
    struct priv_snapshot listed;
    struct error err = {0};
    char wrong[512];
    bench_init(&bench);
    bench_serve(&bench, false);
    snapshot_up(&bench, &first);
    snapshot_make(&bench, &first, &made);
    bench_kill(&bench, &first, NULL);
    snapshot_restore(&bench, &second, made.snapshot);
    bench_stop(&bench);
    bench_serve(&bench, false);
    cr_assert_eq(priv_list(bench.client, 0, &found, &err), 0, "%s", err.msg);
    cr_assert(found.alive && found.generation == 1 && strcmp(found.snapshot, made.snapshot) == 0);
    cr_assert_eq(priv_forget_snapshot(bench.client, made.snapshot, &err), 0, "%s", err.msg);
    cr_assert_eq(priv_forget_snapshot(bench.client, made.snapshot, &err), 0, "gone is success");
    cr_assert_eq(list(&bench, &listed), 0u);
    /* It does not notice, and what lies beneath it can still be told. */
    cr_assert_str_eq(report_wrong(&bench, &second, wrong, sizeof(wrong)), "");
    snapshot_make(&bench, &second, &again);
    cr_assert_eq(list(&bench, &listed), 1u);
    cr_assert_eq(listed.generation, 1u);
    snapshot_restore(&bench, &third, again.snapshot);
    cr_assert_eq(third.launched.generation, 2u);
    bench_close(&bench);
    while (waitpid(-1, NULL, WNOHANG) > 0) /* here the earlier server was this very process */
        ;
}

/* What a VM that booted has touched; what one that was restored has touched since, over what it was
 * restored from, also when that is deleted. Each is whole: the guest runs on from it. */
Test(priv_snapshots, R21_a_snapshot_of_what_differs_is_whole, .timeout = 60)
{
    enum { GENERATIONS = 3 };
    struct bench bench;
    struct bench_vm vm;
    struct priv_published made = {0};
    bench_init(&bench);
    bench_serve(&bench, false);
    for (int i = 0; i < GENERATIONS; i++) {
        struct error err = {0};
        if (i == 0)
            snapshot_up(&bench, &vm);
        else
            snapshot_restore(&bench, &vm, made.snapshot);
        cr_assert_eq(vm.launched.generation, (uint32_t)i);
        if (i > 0)
            cr_assert_eq(priv_forget_snapshot(bench.client, made.snapshot, &err), 0);
        snapshot_pause(&vm);
        cr_assert_eq(priv_stage(bench.client, vm.instance, &err), 0, "%s", err.msg);
        cr_assert_eq(snapshot_write_as(&vm, "Diff"), 204);
        cr_assert_eq(priv_capture(bench.client, vm.instance, &err), 0, "%s", err.msg);
        cr_assert_eq(priv_publish(bench.client, vm.instance, &made, &err), 0, "%s", err.msg);
        assert_file(&bench, made.snapshot, "memory", 0444, 128 << 20, 8 << 20);
        bench_kill(&bench, &vm, NULL);
    }
    snapshot_restore(&bench, &vm, made.snapshot);
    snapshot_assert_alive(&bench, &vm);
    bench_close(&bench);
}

/* In the VM's own place, as its uid, in its mount namespace. */
static void assert_writable(const struct bench_vm *vm, bool writable)
{
    char path[64];
    struct stat st;
    snapshot_place(vm, PRIV_PLACE_MEMORY, path, sizeof(path));
    cr_assert_eq(stat(path, &st), 0, "%m");
    cr_assert_eq(S_ISREG(st.st_mode) && st.st_uid == vm->uid, writable);
    cr_assert(!writable || (st.st_nlink == 0 && (st.st_mode & 07777) == 0600));
}

Test(priv_snapshots, R26_only_while_staged_there_is_a_file_to_write, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    struct report report;
    struct error err = {0};
    char wrong[512], path[64];
    bench_init(&bench);
    bench_serve(&bench, false);
    snapshot_up(&bench, &vm);
    snapshot_pause(&vm);
    snapshot_place(&vm, PRIV_PLACE_STATE, path, sizeof(path));
    cr_assert_eq(open(path, O_RDONLY | O_CLOEXEC), -1);
    cr_assert_eq(errno, EACCES, "nobody can open what is there: %m");
    assert_writable(&vm, false);
    cr_assert_neq(snapshot_write(&vm), 204);
    for (int i = 0; i < 3; i++) { /* taken back and again */
        cr_assert_eq(priv_stage(bench.client, vm.instance, &err), 0, "%s", err.msg);
        assert_writable(&vm, true);
        assert_no_rest(&bench); /* the files have no names */
        cr_assert_str_eq(report_wrong(&bench, &vm, wrong, sizeof(wrong)), "");
        cr_assert_eq(priv_unstage(bench.client, vm.instance, &err), 0, "%s", err.msg);
        cr_assert_eq(priv_unstage(bench.client, vm.instance, &err), 0, "%s", err.msg);
        assert_writable(&vm, false);
    }
    cr_assert_eq(priv_stage(bench.client, vm.instance, &err), 0, "%s", err.msg);
    cr_assert_eq(snapshot_write(&vm), 204);
    cr_assert_eq(priv_capture(bench.client, vm.instance, &err), 0, "%s", err.msg);
    assert_writable(&vm, false);
    report_read(&bench, &vm, &report);
    cr_assert_eq(report_line(&report, "snapshot_read_only")->state, PRIV_LINE_OK);
    cr_assert_eq(priv_unstage(bench.client, vm.instance, &err), 0, "%s", err.msg);
    assert_no_rest(&bench);
    snapshot_resume(&vm);
    snapshot_assert_alive(&bench, &vm);
    bench_kill(&bench, &vm, NULL);
    assert_nothing_left(&bench, vm.instance);
    bench_close(&bench);
}

Test(priv_snapshots, R20_kill_at_each_step_leaves_nothing, .timeout = 60)
{
    enum { STEPS = 3 };
    struct bench bench;
    struct error err = {0};
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_settle(&bench);
    size_t fds = bench_fds();
    for (int steps = 1; steps <= STEPS; steps++) {
        struct bench_vm vm;
        snapshot_up(&bench, &vm);
        snapshot_pause(&vm);
        cr_assert_eq(priv_stage(bench.client, vm.instance, &err), 0, "%s", err.msg);
        cr_assert(steps < 2 || snapshot_write(&vm) == 204);
        cr_assert(steps < 3 || priv_capture(bench.client, vm.instance, &err) == 0, "%s", err.msg);
        bench_kill(&bench, &vm, NULL);
        assert_nothing_left(&bench, vm.instance);
    }
    cr_assert(bench_fds_are(fds), "descriptors were kept");
    bench_close(&bench);
}

/* The root half is gone and comes back, at each step. */
Test(priv_snapshots, R20_R02_a_restart_at_each_step_leaves_nothing, .timeout = 60)
{
    enum { STEPS = 2 };
    struct bench bench;
    struct error err = {0};
    bench_init(&bench);
    for (int steps = 1; steps <= STEPS; steps++) {
        struct bench_vm vm;
        struct priv_published made;
        bench_serve(&bench, false);
        snapshot_up(&bench, &vm);
        snapshot_pause(&vm);
        cr_assert_eq(priv_stage(bench.client, vm.instance, &err), 0, "%s", err.msg);
        cr_assert(steps < 2 || (snapshot_write(&vm) == 204 &&
                                priv_capture(bench.client, vm.instance, &err) == 0));
        bench_stop(&bench);
        /* What a kill -9 in the middle of STAGE and of FORGET_SNAPSHOT would have left. */
        char path[160];
        snprintf(path, sizeof(path), "%s/snapshots/.%s/more", bench.state, vm.instance);
        cr_assert_eq(fs_mkdir_p(path, 0700), 0);
        snprintf(path, sizeof(path), "%s/staging/%s.state", bench.state, vm.instance);
        cleanup_close int name = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        bench_serve(&bench, false);
        assert_no_rest(&bench);
        assert_writable(&vm, false);
        cr_assert_eq(priv_check(bench.client, vm.instance, &err), 0, "%s", err.msg);
        snapshot_resume(&vm);
        snapshot_make(&bench, &vm, &made); /* and all begins anew */
        bench_kill(&bench, &vm, NULL);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
        assert_nothing_left(&bench, vm.instance);
        bench_stop(&bench);
    }
    bench_close(&bench);
}

static bool make_writable(const char *point)
{
    struct mount_attr attr = {.attr_clr = MOUNT_ATTR_RDONLY};
    return mount_setattr(AT_FDCWD, point, 0, &attr, sizeof(attr)) == 0;
}

static bool make_readonly(const char *point)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    return mount_setattr(AT_FDCWD, point, 0, &attr, sizeof(attr)) == 0;
}

/* In the VMM's mount namespace, as only the host's root can. */
static void in_its_mounts(const struct bench_vm *vm, bool (*act)(const char *), const char *point)
{
    int status = -1;
    pid_t pid = fork();
    if (pid == 0)
        _exit(setns(vm->launched.pidfd, CLONE_NEWNS) < 0 || !act(point));
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0, "at %s", point);
}

static void assert_wrong(struct bench *bench, const struct bench_vm *vm, const char *lines)
{
    struct error err = {0};
    char wrong[512];
    cr_assert_str_eq(report_wrong(bench, vm, wrong, sizeof(wrong)), lines);
    cr_assert_eq(priv_check(bench->client, vm->instance, &err), lines[0] == '\0' ? 0 : -1);
}

Test(priv_snapshots, R21_a_writable_or_changed_snapshot_fails_its_line, .timeout = 60)
{
    static const char *const points[] = {PRIV_RESTORE_STATE, PRIV_RESTORE_MEMORY, PRIV_PLACE_STATE,
                                         PRIV_PLACE_MEMORY};
    struct bench bench;
    struct bench_vm vm;
    struct priv_published made;
    char path[192];
    bench_init(&bench);
    bench_serve(&bench, false);
    snapshot_up(&bench, &vm);
    snapshot_make(&bench, &vm, &made);
    bench_kill(&bench, &vm, NULL);
    snapshot_restore(&bench, &vm, made.snapshot);
    for (size_t i = 0; i < COUNT_OF(points); i++) {
        in_its_mounts(&vm, make_writable, points[i]);
        assert_wrong(&bench, &vm, " snapshot_read_only");
        in_its_mounts(&vm, make_readonly, points[i]);
        assert_wrong(&bench, &vm, "");
    }
    snprintf(path, sizeof(path), "%s/snapshots/%s/memory", bench.state, made.snapshot);
    cleanup_close int memory = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_eq(pwrite(memory, "X", 1, 64 << 20), 1, "%m");
    assert_wrong(&bench, &vm, " snapshot_digest");
    cr_assert_eq(pwrite(memory, "", 1, 64 << 20), 1);
    assert_wrong(&bench, &vm, "");
    bench_close(&bench);
}
