/* What a VM may read and write in a second: on which disk, read back, felt, changed at a restart,
 * and said where it cannot be. The state directory must lie on a disk: /tmp does. */
#include "report.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/wait.h>

static struct bench bench;
static struct bench_vm vm;

static void up(void)
{
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
}

static bool unified(void)
{
    return bench.server->cgroups.version == 2;
}

static size_t place(void)
{
    return unified() ? 0 : PRIV_CGROUP_IO;
}

static const char *device(void)
{
    return bench.server->cgroups.io.device;
}

static void assert_wrong(const char *wanted)
{
    char wrong[512];
    struct error err = {0};
    cr_assert_str_eq(report_wrong(&bench, &vm, wrong, sizeof(wrong)), wanted);
    int checked = priv_check(bench.client, vm.instance, &err);
    cr_assert_eq(checked, *wanted == '\0' ? 0 : -1, "%s", err.msg);
    cr_assert_eq(err.code, *wanted == '\0' ? ERR_NONE : ERR_CGROUP, "%s", err.msg);
}

static void assert_not_applicable(const char *why)
{
    struct report report;
    report_read(&bench, &vm, &report);
    const struct priv_line *line = report_line(&report, "cgroup_io");
    cr_assert_eq(line->state, PRIV_LINE_NOT_APPLICABLE, "%s", line->detail);
    cr_assert_not_null(strstr(line->detail, why), "%s", line->detail);
    assert_wrong("");
}

/* As the kernel's file says it: version 1's `file`, or version 2's `io.max`. */
static void assert_file(const char *file, const char *one, const char *two)
{
    char text[128], wanted[128];
    bench_cgroup(&bench, vm.instance, unified() ? "io.max" : file, text, sizeof(text));
    snprintf(wanted, sizeof(wanted), "%s %s", device(), unified() ? two : one);
    cr_assert_str_eq(text, *one == '\0' ? "" : wanted);
}

static void run(const char *words)
{
    char command[512];
    snprintf(command, sizeof(command), "cd %s && %s", bench.directory, words);
    cr_assert_eq(system(command), 0, "%s", command);
}

Test(priv_io, R26_a_changed_io_limit_fails_its_line, .timeout = 60)
{
    static const char all[] = "rbps=536870912 wbps=536870912 riops=20000 wiops=20000";
    static const struct {
        const char *file, *own, *two;
    } limits[] = {
        {"blkio.throttle.read_bps_device", "536870912", "rbps"},
        {"blkio.throttle.write_bps_device", "536870912", "wbps"},
        {"blkio.throttle.read_iops_device", "20000", "riops"},
        {"blkio.throttle.write_iops_device", "20000", "wiops"},
    };
    up();
    cleanup_close int directory =
        priv_cgroup_directory(&bench.server->cgroups, place(), vm.instance);
    for (size_t i = 0; i < COUNT_OF(limits); i++) {
        static const char *const others[] = {"0", "1000000000"}; /* lifted; another */
        const char *file = unified() ? "io.max" : limits[i].file;
        char text[128];
        assert_file(limits[i].file, limits[i].own, all);
        for (size_t j = 0; j < COUNT_OF(others); j++) {
            const char *other = unified() && j == 0 ? "max" : others[j];
            snprintf(text, sizeof(text), "%s %s%s%s", device(), unified() ? limits[i].two : "",
                     unified() ? "=" : "", other);
            cr_assert_eq(fs_write_at(directory, file, text), 0, "%s: %m", text);
            assert_wrong(" cgroup_io");
        }
        snprintf(text, sizeof(text), "%s %s", device(), unified() ? all : limits[i].own);
        cr_assert_eq(fs_write_at(directory, file, text), 0, "%s: %m", text);
        assert_wrong("");
    }
    bench_close(&bench);
}

/* A process in the VMM's place writes `count` blocks past the page cache. */
static double write_ms(const char *block, const char *count)
{
    char to[128], blocks[32], counts[32];
    snprintf(to, sizeof(to), "of=%s/hog", bench.state);
    snprintf(blocks, sizeof(blocks), "bs=%s", block);
    snprintf(counts, sizeof(counts), "count=%s", count);
    int64_t start = clock_mono_ms();
    pid_t pid = fork();
    if (pid == 0) {
        if (bench_enter(&bench, vm.instance) == 0)
            execlp("dd", "dd", "if=/dev/zero", to, blocks, counts, "oflag=direct", "status=none",
                   (char *)NULL);
        _exit(99);
    }
    int status = -1;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0);
    return (double)(clock_mono_ms() - start);
}

/* 2 s each by the limit; the kernel's first slice of time comes on top. */
Test(priv_io, R26_the_io_limit_bites, .timeout = 60)
{
    enum { TWO_SECONDS = 1700 };
    bench_init(&bench);
    bench.config.max_io_mib_s = 8;
    bench.config.max_iops = 0;
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    double bytes_ms = write_ms("1M", "16");
    struct priv_usage usage = {0};
    struct error err = {0};
    cr_assert_eq(priv_usage(bench.client, vm.instance, &usage, &err), 0, "%s", err.msg);
    cr_assert(usage.has_io && usage.wrote_bytes >= 16 << 20, "%llu bytes are counted",
              (unsigned long long)usage.wrote_bytes);
    assert_file("blkio.throttle.read_bps_device", "8388608",
                "rbps=8388608 wbps=8388608 riops=max wiops=max");
    bench_stop(&bench);
    bench.config.max_io_mib_s = 0;
    bench.config.max_iops = 50;
    bench_serve(&bench, false);
    double operations_ms = write_ms("4k", "100");
    fprintf(stderr, "16 MiB at 8 MiB/s: %.0f ms, 100 operations at 50/s: %.0f ms\n", bytes_ms,
            operations_ms);
    cr_assert_geq(bytes_ms, TWO_SECONDS);
    cr_assert_geq(operations_ms, TWO_SECONDS);
    bench_close(&bench);
}

/* Moves the VM out of the directory and removes it: as a host had it that had no io. */
static void forget_io(void)
{
    char pid[16];
    const struct priv_cgroups *cgroups = &bench.server->cgroups;
    snprintf(pid, sizeof(pid), "%d", (int)bench_pid(&vm));
    cr_assert_eq(fs_write_at(cgroups->mount[PRIV_CGROUP_IO], "cgroup.procs", pid), 0, "%m");
    cr_assert_eq(unlinkat(cgroups->root[PRIV_CGROUP_IO], vm.instance, AT_REMOVEDIR), 0, "%m");
    assert_wrong(" cgroup_member cgroup_io");
}

Test(priv_io, R02_R26_a_vm_that_runs_on_gets_the_limits_of_the_next_start, .timeout = 60)
{
    char traces[128];
    up();
    if (!unified())
        forget_io();
    bench_stop(&bench);
    bench.config.max_io_mib_s = 100;
    bench_serve(&bench, false);
    assert_wrong("");
    assert_file("blkio.throttle.write_bps_device", "104857600",
                "rbps=104857600 wbps=104857600 riops=20000 wiops=20000");
    bench_stop(&bench);
    bench.config.max_io_mib_s = bench.config.max_iops = 0;
    bench_serve(&bench, false);
    assert_not_applicable("max-io-mib-s and max-iops are 0");
    assert_file("blkio.throttle.write_bps_device", "", "");
    bench_kill(&bench, &vm, NULL);
    bench_traces(&bench, vm.instance, traces, sizeof(traces));
    cr_assert_str_eq(traces, "");
    bench_close(&bench);
}

Test(priv_io, R26_without_a_disk_of_its_own_the_line_is_not_applicable, .timeout = 60)
{
    bench_init(&bench);
    run("mkdir new && mount -t tmpfs none new && cp -a state/. new/ && mount --move new state && "
        "rmdir new");
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    assert_not_applicable("no block device");
    bench_kill(&bench, &vm, NULL);
    bench_stop(&bench);
    cr_assert_eq(umount2(bench.state, MNT_DETACH), 0, "%m");
    bench_close(&bench);
}

/* Version 1 without its blkio, in the test's own mount namespace: the VM's other limits stand, and
 * a later start with blkio finds the VM. With version 2 `io` cannot be taken away for a test. */
Test(priv_io, R26_without_a_controller_the_line_is_not_applicable, .timeout = 60)
{
    static const char blkio[] = "/sys/fs/cgroup/blkio";
    struct error err = {0};
    bench_init(&bench);
    bool there = access(blkio, F_OK) == 0 && umount2(blkio, MNT_DETACH) == 0;
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    cr_assert(unified() || bench.server->cgroups.count == PRIV_CGROUP_IO);
    if (there)
        assert_not_applicable("no cgroup controller");
    cr_assert_eq(priv_check(bench.client, vm.instance, &err), 0, "%s", err.msg);
    bench_close(&bench);
}

/* A loop device with one partition, and a file system in it. */
Test(priv_io, R26_a_partition_is_limited_on_its_disk, .timeout = 60)
{
    char point[96], number[96], wanted[24];
    struct error err = {0};
    bench_init(&bench);
    run("truncate -s 32M disk && mkdir point && losetup -fP --show disk >loop && "
        "addpart $(cat loop) 1 2048 40000 && mkfs.ext4 -q $(cat loop)p1 && "
        "mount $(cat loop)p1 point && losetup -d $(cat loop) && "
        "cat /sys/block/$(basename $(cat loop))/dev >number");
    bench_serve(&bench, false);
    snprintf(point, sizeof(point), "%s/point", bench.directory);
    cleanup_close int state = open(point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct priv_cgroups cgroups = bench.server->cgroups;
    cr_assert_eq(priv_cgroups_limit_io(&cgroups, state, 1, 1, &err), 0, "%s", err.msg);
    snprintf(number, sizeof(number), "%s/number", bench.directory);
    cr_assert_gt(fs_read_at(AT_FDCWD, number, wanted, sizeof(wanted)), 0);
    wanted[strcspn(wanted, "\n")] = '\0';
    cr_assert_str_eq(cgroups.io.device, wanted);
    cr_assert_eq(strncmp(wanted, "7:", 2), 0);
    struct priv_shape shape = BENCH_SHAPE;
    bench_reserve(&bench, &vm); /* its id is free for a cgroup: the kernel takes this disk */
    cr_assert_eq(priv_cgroup_make(&cgroups, vm.instance, &shape, 64, &err), 0, "%s", err.msg);
    cr_assert_eq(priv_cgroup_destroy(&cgroups, vm.instance, &err), 0, "%s", err.msg);
    cleanup_close_func(&state);
    cr_assert_eq(umount2(point, 0), 0, "%m");
    bench_close(&bench);
}
