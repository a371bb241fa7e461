/* The isolation report of a real VM: all is well, and then guard after guard is taken away from
 * outside. Guards that nobody can take from a running process: test_server_standin.c. */
#include "report.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

static struct bench bench;
static struct bench_vm vm;

static void up(void)
{
    bench_init(&bench);
    bench.config.firewall_probe_ms = 3600000; /* what is wrong stays wrong until it is seen */
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
}

static const struct priv_line *line_of(const struct report *report, const char *name)
{
    const struct priv_line *line = report_line(report, name);
    cr_assert_not_null(line, "no line %s", name);
    return line;
}

/* Exactly this is wrong, and CHECK fails as well. */
static void assert_wrong(const char *wanted, enum error_code code)
{
    char wrong[512];
    struct error err = {0};
    cr_assert_str_eq(report_wrong(&bench, &vm, wrong, sizeof(wrong)), wanted);
    cr_assert_eq(priv_check(bench.client, vm.instance, &err), -1);
    cr_assert_eq(err.code, code, "%s", err.msg);
}

static void assert_well(void)
{
    char wrong[512];
    struct error err = {0};
    cr_assert_str_eq(report_wrong(&bench, &vm, wrong, sizeof(wrong)), "");
    cr_assert_eq(priv_check(bench.client, vm.instance, &err), 0, "%s", err.msg);
}

Test(priv_isolation, R22_every_line_of_a_sound_vm_is_ok, .timeout = 60)
{
    static const char *const names[] = {"seccomp",       "no_new_privs",       "capabilities",
                                        "uid",           "namespace_net",      "namespace_mnt",
                                        "namespace_pid", "namespace_ipc",      "namespace_uts",
                                        "core_dumps",    "file_size",          "open_files",
                                        "locked_memory", "image_read_only",    "kernel_read_only",
                                        "image_digest",  "snapshot_read_only", "snapshot_digest",
                                        "cgroup_member", "cgroup_memory",      "cgroup_swap",
                                        "cgroup_cpu",    "cgroup_pids",        "cgroup_io",
                                        "firewall_ipv4", "firewall_ipv6"};
    struct report report;
    up();
    report_read(&bench, &vm, &report);
    cr_assert_eq(report.count, COUNT_OF(names));
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        cr_assert_str_eq(report.lines[i].name, names[i]);
        bool restored = strcmp(names[i], "snapshot_digest") == 0; /* it booted */
        cr_assert_eq(report.lines[i].state, restored ? PRIV_LINE_NOT_APPLICABLE : PRIV_LINE_OK,
                     "%s: %s", names[i], report.lines[i].detail);
    }
    /* VMM, API and one vCPU */
    cr_assert_eq(line_of(&report, "seccomp")->value, 3);
    cr_assert_eq(line_of(&report, "capabilities")->value, 3);
    cr_assert_eq(line_of(&report, "uid")->value, vm.uid);
    cr_assert_geq(line_of(&report, "cgroup_pids")->value, 3); /* and the kernel's for KVM */
    cr_assert_gt(line_of(&report, "cgroup_memory")->value, 1 << 20);
    cr_assert(line_of(&report, "cgroup_cpu")->has_value); /* version 1: 0 for the first 10 ms */
    cr_assert_eq(line_of(&report, "cgroup_swap")->value, 0);
    cr_assert(line_of(&report, "firewall_ipv4")->has_value);
    cr_assert_not(line_of(&report, "core_dumps")->has_value);
    cr_assert_eq(line_of(&report, "file_size")->value, 192 << 20); /* its memory, and the VMM's */
    cr_assert_eq(line_of(&report, "open_files")->value, 2048);
    cr_assert_eq(line_of(&report, "locked_memory")->value, 0);
    struct stat st;
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)bench_pid(&vm));
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(line_of(&report, "namespace_net")->value, (int64_t)st.st_ino);
    bench_close(&bench);
}

Test(priv_isolation, R22_before_its_filter_is_loaded_a_vmm_fails_by_that_line_only, .timeout = 60)
{
    struct error err = {0};
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_reserve(&bench, &vm);
    bench_guard(&bench, &vm, &BENCH_SHAPE);
    bench_launch(&bench, &vm);
    vm.api = priv_open(bench.client, vm.instance, PRIV_SOCKET_API, 0, &err);
    cr_assert_geq(vm.api, 0, "%s", err.msg);
    assert_wrong(" seccomp", ERR_GUARD);
    bench_close(&bench);
}

/* What the VMM was told to load is the level's own file, byte for byte. */
Test(priv_isolation, R22_R23_the_jail_has_the_filter_of_the_level, .timeout = 60)
{
    struct priv_shape shape = BENCH_SHAPE;
    struct error err = {0};
    bench_init(&bench);
    bench_serve(&bench, false);
    for (shape.seccomp = PRIV_SECCOMP_MINIMAL; shape.seccomp <= PRIV_SECCOMP_BASIC;
         shape.seccomp++) {
        enum { FILE_MAX = 1 << 20 };
        char path[64];
        uint8_t *wanted = NULL;
        size_t len = 0;
        cleanup_free char *found = malloc(FILE_MAX);
        bench_reserve(&bench, &vm);
        bench_guard(&bench, &vm, &shape);
        bench_launch(&bench, &vm);
        bench_boot(&bench, &vm);
        cr_assert_eq(priv_seccomp_firecracker_file((enum priv_seccomp)shape.seccomp, "1.12.1",
                                                   &wanted, &len, &err),
                     0, "%s", err.msg);
        snprintf(path, sizeof(path), "/proc/%d/root/seccomp.bpf", (int)bench_pid(&vm));
        cr_assert_eq(fs_read_at(AT_FDCWD, path, found, FILE_MAX), (ssize_t)len);
        cr_expect_arr_eq(found, wanted, len, "level %u", shape.seccomp);
        free(wanted);
        bench_kill(&bench, &vm, NULL);
    }
    bench_close(&bench);
}

/* ---- firewall ---- */

static void rules(const char *program, const char *arguments)
{
    char command[256];
    snprintf(command, sizeof(command), "%s -w 5 -t security %s", program, arguments);
    cr_assert_eq(system(command), 0, "%s", command);
}

Test(priv_isolation, R19_a_flushed_chain_fails_its_family, .timeout = 60)
{
    char chain[NETFILTER_CHAIN_MAX + 1], flush[64], repair[64];
    up();
    netfilter_chain_name(vm.instance, chain);
    snprintf(flush, sizeof(flush), "-F %s", chain);
    snprintf(repair, sizeof(repair), "-A %s -j DROP", chain);
    rules("ip6tables-legacy", flush);
    assert_wrong(" firewall_ipv6", ERR_FIREWALL_DRIFT);
    rules("ip6tables-legacy", repair);
    assert_well();
    /* With IPv4 not right nothing is known of IPv6, and what is not known is not ok. */
    rules("iptables-legacy", flush);
    assert_wrong(" firewall_ipv4 firewall_ipv6", ERR_FIREWALL_DRIFT);
    rules("iptables-legacy", repair);
    assert_well();
    bench_close(&bench);
}

Test(priv_isolation, R19_a_deleted_jump_fails_its_family, .timeout = 60)
{
    up();
    rules("ip6tables-legacy", "-D OUTPUT 1");
    assert_wrong(" firewall_ipv6", ERR_FIREWALL_DRIFT);
    bench_close(&bench);
}

/* A packet of the VM's uid from outside its namespace ends in its chain, and the line tells. */
Test(priv_isolation, R16_dropped_packets_are_counted, .timeout = 60)
{
    struct report report;
    char command[256];
    up();
    report_read(&bench, &vm, &report);
    cr_assert_eq(line_of(&report, "firewall_ipv4")->value, 0);
    snprintf(command, sizeof(command),
             "ip link set lo up && setpriv --reuid=%u --clear-groups "
             "bash -c 'echo x >/dev/udp/127.0.0.1/9' 2>/dev/null",
             vm.uid);
    cr_assert_neq(system(command), 0, "the packet was not stopped");
    report_read(&bench, &vm, &report);
    cr_assert_eq(line_of(&report, "firewall_ipv4")->value, 1);
    bench_close(&bench);
}

/* ---- cgroup ---- */

static void set_limit(size_t at, const char *file, const char *text)
{
    cleanup_close int directory = priv_cgroup_directory(&bench.server->cgroups, at, vm.instance);
    cr_assert_eq(fs_write_at(directory, file, text), 0, "%s: %m", file);
}

Test(priv_isolation, R26_a_changed_limit_fails_its_line, .timeout = 60)
{
    static const struct {
        size_t at;
        const char *file, *other, *own, *wrong;
    } one[] = {
        {PRIV_CGROUP_MEMORY, "memory.limit_in_bytes", "199229440", "201326592", " cgroup_memory"},
        {PRIV_CGROUP_MEMORY, "memory.memsw.limit_in_bytes", "999292928", "201326592",
         " cgroup_swap"},
        {PRIV_CGROUP_MEMORY, "memory.swappiness", "60", "0", " cgroup_swap"},
        {PRIV_CGROUP_CPU, "cpu.cfs_quota_us", "-1", "100000", " cgroup_cpu"},
        {PRIV_CGROUP_CPU, "cpu.cfs_period_us", "50000", "100000", " cgroup_cpu"},
        {PRIV_CGROUP_PIDS, "pids.max", "max", "64", " cgroup_pids"},
    };
    static const struct {
        const char *file, *other, *own, *wrong;
    } two[] = {
        {"memory.max", "max", "201326592", " cgroup_memory"},
        {"memory.swap.max", "max", "0", " cgroup_swap"},
        {"cpu.max", "max", "100000 100000", " cgroup_cpu"},
        {"pids.max", "max", "64", " cgroup_pids"},
    };
    up();
    bool unified = bench.server->cgroups.version == 2;
    for (size_t i = 0; i < (unified ? COUNT_OF(two) : COUNT_OF(one)); i++) {
        size_t at = unified ? 0 : one[i].at;
        const char *file = unified ? two[i].file : one[i].file;
        set_limit(at, file, unified ? two[i].other : one[i].other);
        assert_wrong(unified ? two[i].wrong : one[i].wrong, ERR_CGROUP);
        set_limit(at, file, unified ? two[i].own : one[i].own);
        assert_well();
    }
    bench_close(&bench);
}

Test(priv_isolation, R26_a_vmm_moved_out_of_its_cgroup_fails, .timeout = 60)
{
    up();
    char pid[16];
    const struct priv_cgroups *cgroups = &bench.server->cgroups;
    size_t last = cgroups->count - 1; /* one hierarchy is enough */
    snprintf(pid, sizeof(pid), "%d", (int)bench_pid(&vm));
    cr_assert_eq(fs_write_at(cgroups->mount[last], "cgroup.procs", pid), 0, "%m");
    assert_wrong(" cgroup_member", ERR_CGROUP);
    bench_close(&bench);
}

/* ---- rlimits ---- */

/* As the VMM can. */
static void limit_softly(__rlimit_resource_t resource, rlim_t soft, rlim_t hard)
{
    pid_t target = bench_pid(&vm), pid = fork();
    int status = -1;
    if (pid == 0)
        _exit(setresgid(vm.uid, vm.uid, vm.uid) < 0 || setresuid(vm.uid, vm.uid, vm.uid) < 0 ||
              prlimit(target, resource, &(struct rlimit){soft, hard}, NULL) < 0);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0);
}

/* The soft one; a hard one can be raised by few, and by no VMM: test_server_standin.c. */
Test(priv_isolation, R26_a_changed_rlimit_fails_its_line, .timeout = 60)
{
    const rlim_t size = 192 << 20, files = 2048;
    up();
    limit_softly(RLIMIT_FSIZE, size - 1, size);
    assert_wrong(" file_size", ERR_GUARD);
    limit_softly(RLIMIT_FSIZE, size, size);
    assert_well();
    limit_softly(RLIMIT_NOFILE, files - 1, files);
    assert_wrong(" open_files", ERR_GUARD);
    limit_softly(RLIMIT_NOFILE, files, files);
    assert_well();
    bench_close(&bench);
}

/* ---- files ---- */

/* In the VMM's mount namespace, as only the host's root can. */
static void in_its_mounts(bool (*act)(const char *point), const char *point)
{
    char path[64];
    int status = -1;
    snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)bench_pid(&vm));
    cleanup_close int namespace = open(path, O_RDONLY | O_CLOEXEC);
    pid_t pid = fork();
    if (pid == 0)
        _exit(setns(namespace, CLONE_NEWNS) < 0 || !act(point));
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0, "at %s", point);
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

static bool cover_with_kernel(const char *point)
{
    return mount("/kernel", point, NULL, MS_BIND, NULL) == 0;
}

Test(priv_isolation, R21_a_writable_or_covered_image_fails_its_line, .timeout = 60)
{
    up();
    in_its_mounts(make_writable, "/disk");
    assert_wrong(" image_read_only", ERR_GUARD);
    in_its_mounts(make_readonly, "/disk");
    in_its_mounts(make_writable, "/kernel");
    assert_wrong(" kernel_read_only", ERR_GUARD);
    in_its_mounts(make_readonly, "/kernel");
    assert_well();
    in_its_mounts(cover_with_kernel, "/disk");
    assert_wrong(" image_digest", ERR_IMAGE_CHANGED);
    bench_close(&bench);
}

/* Root writes into the catalogue's own file, and keeps its name, size and inode. */
Test(priv_isolation, R21_a_changed_image_file_fails_its_line, .timeout = 60)
{
    char path[160];
    up();
    snprintf(path, sizeof(path), "%s/images/test/disk", bench.state);
    cleanup_close int disk = open(path, O_WRONLY | O_CLOEXEC);
    cr_assert_eq(pwrite(disk, "X", 1, 4000), 1);
    assert_wrong(" image_digest", ERR_IMAGE_CHANGED);
    cr_assert_eq(pwrite(disk, "d", 1, 4000), 1);
    assert_well();
    /* A running VM keeps its image when the catalogue drops it. */
    cr_assert_eq(unlink(path), 0);
    assert_well();
    bench_close(&bench);
}

/* ---- what the operator left out ---- */

Test(priv_isolation, R18_a_guard_left_out_is_not_applicable, .timeout = 60)
{
    struct report report;
    bench_init(&bench);
    bench.config.without = PRIV_GUARD_FIREWALL | PRIV_GUARD_CGROUP | PRIV_GUARD_SECCOMP;
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    report_read(&bench, &vm, &report);
    for (size_t i = 0; i < report.count; i++) {
        const struct priv_line *line = &report.lines[i];
        bool left_out = strcmp(line->name, "seccomp") == 0 ||
                        strncmp(line->name, "cgroup_", 7) == 0 ||
                        strncmp(line->name, "firewall_", 9) == 0;
        if (strcmp(line->name, "snapshot_digest") == 0) /* it booted */
            continue;
        cr_assert_eq(line->state, left_out ? PRIV_LINE_NOT_APPLICABLE : PRIV_LINE_OK, "%s: %s",
                     line->name, line->detail);
        cr_assert_not(left_out && line->has_value, "%s", line->name);
    }
    bench_close(&bench);
}

/* The VM has its rules and its limits still, but nobody who could look at them: to be told, not to
 * fall over. Its filter is seen. */
Test(priv_isolation, R18_a_service_started_without_a_guard_says_what_it_cannot_see, .timeout = 60)
{
    struct report report;
    up();
    bench_stop(&bench);
    bench.config.without = PRIV_GUARD_FIREWALL | PRIV_GUARD_CGROUP | PRIV_GUARD_SECCOMP;
    bench_serve(&bench, false);
    report_read(&bench, &vm, &report);
    cr_assert_eq(line_of(&report, "seccomp")->state, PRIV_LINE_OK);
    cr_assert_eq(line_of(&report, "firewall_ipv4")->state, PRIV_LINE_NOT_APPLICABLE);
    cr_assert_eq(line_of(&report, "cgroup_pids")->state, PRIV_LINE_NOT_APPLICABLE);
    assert_well();
    bench_stop(&bench);
    bench.config.without = 0;
    bench_serve(&bench, false);
    assert_well();
    bench_close(&bench);
}
