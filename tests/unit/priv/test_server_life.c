/* The root half's server on real Firecracker: a VM's life, its guards as the kernel tells them, and
 * that nothing is left of it. */
#include "bench.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

static void read_proc(pid_t pid, const char *file, char *out, size_t size)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
    cr_assert_gt(fs_read_at(AT_FDCWD, path, out, size), 0, "%s: %m", path);
}

static void namespace_of(pid_t pid, const char *name, char *out, size_t size)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)pid, name);
    ssize_t n = readlink(path, out, size - 1);
    cr_assert_gt(n, 0);
    out[n] = '\0';
}

static void assert_nothing_left(const struct bench *bench, const char *instance)
{
    char left[128];
    bench_traces(bench, instance, left, sizeof(left));
    cr_assert_str_eq(left, "", "left of %s: %s", instance, left);
}

Test(priv_server, R26_a_vmm_is_alone_and_nothing_is_left_of_it, .timeout = 60)
{
    static const char *const names[] = {"net", "mnt", "pid", "ipc", "uts"};
    struct bench bench;
    struct bench_vm vm;
    struct priv_killed killed;
    char ours[64], theirs[64], status[8192], traces[128], text[4096];
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    pid_t pid = bench_pid(&vm);
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        namespace_of(getpid(), names[i], ours, sizeof(ours));
        namespace_of(pid, names[i], theirs, sizeof(theirs));
        cr_assert_str_neq(ours, theirs);
    }
    read_proc(pid, "status", status, sizeof(status));
    cr_assert(priv_proc_ids_are(status, "Uid", vm.uid) && priv_proc_ids_are(status, "Gid", vm.uid));
    cr_assert_eq(strtoull(priv_proc_field(status, "CapEff"), NULL, 16), 0ULL);
    cr_assert_eq(strtoull(priv_proc_field(status, "CapBnd"), NULL, 16), 0x82000c3ULL,
                 "more than the jailer needs: %.20s", priv_proc_field(status, "CapBnd"));
    cr_assert_eq(*priv_proc_field(status, "NoNewPrivs"), '1');
    cr_assert_eq(*priv_proc_field(status, "Seccomp"), '2');
    read_proc(pid, "oom_score_adj", text, sizeof(text));
    cr_assert_str_eq(text, "0\n");
    read_proc(pid, "net/dev", text, sizeof(text));
    cr_assert_null(strstr(text, "eth"), "a network device: %s", text);
    bench_traces(&bench, vm.instance, traces, sizeof(traces));
    cr_assert_str_eq(traces, "process cgroup chain record ");
    bench_kill(&bench, &vm, &killed);
    cr_assert(killed.was_running && killed.has_status && WIFSIGNALED(killed.status));
    assert_nothing_left(&bench, vm.instance);
    bench_close(&bench);
}

Test(priv_server, R26_cgroup_limits_are_set_and_checked, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    struct error err = {0};
    char text[64];
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    bool unified = bench.server->cgroups.version == 2;
    bench_cgroup(&bench, vm.instance, unified ? "memory.max" : "memory.limit_in_bytes", text,
                 sizeof(text));
    cr_assert_str_eq(text, "201326592"); /* 128 + 64 MiB */
    bench_cgroup(&bench, vm.instance, "pids.max", text, sizeof(text));
    cr_assert_str_eq(text, "64");
    bench_cgroup(&bench, vm.instance, unified ? "cpu.max" : "cpu.cfs_quota_us", text, sizeof(text));
    cr_assert_str_eq(text, unified ? "100000 100000" : "100000");
    cleanup_close int directory =
        priv_cgroup_directory(&bench.server->cgroups, unified ? 0 : PRIV_CGROUP_PIDS, vm.instance);
    cr_assert_eq(fs_write_at(directory, "pids.max", "65"), 0);
    cr_assert_eq(priv_check(bench.client, vm.instance, &err), -1);
    cr_assert_eq(err.code, ERR_CGROUP, "%s", err.msg);
    bench_close(&bench);
}

/* A process in the VMM's place: joins its cgroup, then does what `act` does. */
static int hog(struct bench *bench, const char *instance, int (*act)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        if (bench_enter(bench, instance) < 0)
            _exit(99);
        _exit(act());
    }
    int status = 0;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return status;
}

/* Its children stay; KILL has to find them. */
static int bomb(void)
{
    enum { FAR_TOO_MANY = 200 };
    int made = 0;
    for (pid_t pid = 1; made < FAR_TOO_MANY && pid > 0; made += pid > 0) {
        pid = fork();
        if (pid == 0)
            for (;;)
                pause();
    }
    return made;
}

static int eat(void)
{
    enum { TOO_MUCH = 256 << 20 };
    char *memory = malloc(TOO_MUCH);
    for (size_t i = 0; memory != NULL && i < TOO_MUCH; i += 4096)
        ((volatile char *)memory)[i] = 1;
    return 97;
}

Test(priv_server, R26_cgroup_limits_bite_and_kill_takes_strays_along, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    struct priv_killed killed;
    struct error err = {0};
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_reserve(&bench, &vm);
    bench_guard(&bench, &vm, &BENCH_SHAPE);
    int status = hog(&bench, vm.instance, bomb);
    cr_assert(WIFEXITED(status));
    cr_assert_eq(WEXITSTATUS(status), PRIV_PIDS_MAX - 1, "%d children", WEXITSTATUS(status));
    cr_assert_eq(priv_kill(bench.client, vm.instance, NULL, &err), 0, "%s", err.msg);
    assert_nothing_left(&bench, vm.instance);
    bench_reserve(&bench, &vm);
    bench_guard(&bench, &vm, &BENCH_SHAPE);
    status = hog(&bench, vm.instance, eat);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %d", status);
    cr_assert_eq(priv_kill(bench.client, vm.instance, &killed, &err), 0, "%s", err.msg);
    cr_assert_geq(killed.oom_kills, 1u);
    bench_close(&bench);
}

Test(priv_server, R21_image_is_readonly_and_the_scratch_disk_has_no_name, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    struct stat st;
    char path[128], mounts[8192];
    struct priv_shape shape = BENCH_SHAPE;
    shape.disk_mib = 16;
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_reserve(&bench, &vm);
    bench_guard(&bench, &vm, &shape);
    bench_launch(&bench, &vm);
    bench_boot(&bench, &vm);
    pid_t pid = bench_pid(&vm);
    snprintf(path, sizeof(path), "/proc/%d/root/disk", (int)pid);
    cr_assert_eq(open(path, O_RDWR | O_CLOEXEC), -1);
    cr_assert_eq(errno, EROFS);
    snprintf(path, sizeof(path), "/proc/%d/root/scratch", (int)pid);
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_size, 16 << 20);
    cr_assert_eq(st.st_uid, vm.uid);
    cr_assert_eq(st.st_nlink, 0u, "the disk still has a name");
    read_proc(pid, "mountinfo", mounts, sizeof(mounts));
    cr_assert_null(strstr(mounts, " /proc "), "the jail shows /proc");
    bench_kill(&bench, &vm, NULL);
    assert_nothing_left(&bench, vm.instance);
    bench_close(&bench);
}

Test(priv_server, R19_check_fails_when_the_rules_are_flushed, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    struct error err = {0};
    bench_init(&bench);
    bench.config.firewall_probe_ms = 3600000; /* nothing is repaired meanwhile */
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    cr_assert_eq(system("iptables-legacy -t security -F 2>/dev/null || iptables-legacy -F"), 0);
    cr_assert_eq(priv_check(bench.client, vm.instance, &err), -1);
    cr_assert_eq(err.code, ERR_FIREWALL_DRIFT, "%s", err.msg);
    bench_close(&bench);
}

Test(priv_server, a_dead_vmm_is_told_with_its_last_words, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    struct priv_killed killed;
    struct error err = {0};
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    bench_die(&vm);
    cr_assert_eq(priv_open(bench.client, vm.instance, PRIV_SOCKET_API, 0, &err), -1);
    cr_assert_eq(err.code, ERR_VMM_EXITED);
    cr_assert_not_null(strstr(err.msg, "it last wrote: "), "%s", err.msg);
    err = (struct error){0};
    cr_assert_eq(priv_check(bench.client, vm.instance, &err), -1);
    cr_assert_eq(err.code, ERR_VMM_EXITED);
    bench_kill(&bench, &vm, &killed);
    cr_assert_not(killed.was_running);
    cr_assert(killed.has_status && WIFSIGNALED(killed.status) &&
              WTERMSIG(killed.status) == SIGKILL);
    bench_close(&bench);
}

Test(priv_server, R18_without_a_guard_it_is_not_made_and_not_checked, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    struct priv_host host;
    struct error err = {0};
    char traces[128];
    bench_init(&bench);
    bench.config.without = PRIV_GUARD_FIREWALL | PRIV_GUARD_CGROUP | PRIV_GUARD_SECCOMP;
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    bench_traces(&bench, vm.instance, traces, sizeof(traces));
    cr_assert_str_eq(traces, "process record ");
    cr_assert_eq(priv_host(bench.client, &host, &err), 0);
    cr_assert_eq(host.without, bench.config.without);
    cr_assert_eq(host.cgroup_version, 0u);
    bench_kill(&bench, &vm, NULL);
    assert_nothing_left(&bench, vm.instance);
    bench_close(&bench);
}

/* Started stopped (-S), so any ELF serves as its kernel. */
static void greet(int socket_path)
{
    char text[512];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", socket_path);
    cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0, "%m");
    struct pollfd p = {.fd = fd, .events = POLLIN};
    cr_assert_eq(poll(&p, 1, PATIENCE_MS), 1);
    ssize_t n = recv(fd, text, sizeof(text) - 1, 0);
    cr_assert_gt(n, 0);
    text[n] = '\0';
    cr_assert_not_null(strstr(text, "QMP"), "%s", text);
}

Test(priv_server, R26_qemu_runs_jailed_and_passes_the_check, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    struct stat st;
    struct error err = {0};
    char path[64], traces[128];
    bench_init(&bench);
    bench.config.hypervisor = PRIV_QEMU;
    bench.config.emulated = true;
    bench_serve(&bench, false);
    bench_reserve(&bench, &vm);
    struct priv_shape shape = BENCH_SHAPE;
    shape.disk_mib = 16;
    bench_guard(&bench, &vm, &shape);
    bench_launch(&bench, &vm);
    cr_assert_eq(vm.launched.hello, -1);
    cr_assert_eq(vm.launched.log, -1);
    cleanup_close int api = priv_open(bench.client, vm.instance, PRIV_SOCKET_API, 0, &err);
    cr_assert_geq(api, 0, "%s", err.msg);
    greet(api);
    cleanup_close int events = priv_open(bench.client, vm.instance, PRIV_SOCKET_EVENTS, 0, &err);
    cr_assert_geq(events, 0, "%s", err.msg);
    greet(events); /* while nobody is kept out of the other */
    for (uint32_t i = 0; i < 8; i++) {
        cleanup_close int port = priv_open(bench.client, vm.instance, PRIV_SOCKET_PORT, i, &err);
        cr_assert_geq(port, 0, "port %u: %s", i, err.msg);
        cr_assert(fstat(port, &st) == 0 && (st.st_mode & 0777) == 0660 &&
                  st.st_gid == bench.config.front_gid && st.st_uid == vm.uid);
    }
    cr_assert_eq(priv_open(bench.client, vm.instance, PRIV_SOCKET_PORT, 8, &err), -1);
    cr_assert_eq(err.code, ERR_PRIV_REFUSED);
    err = (struct error){0};
    cr_assert_eq(priv_check(bench.client, vm.instance, &err), 0, "%s", err.msg);
    snprintf(path, sizeof(path), "/proc/%d/root/home", (int)bench_pid(&vm));
    cr_assert_eq(access(path, F_OK), -1, "the jail shows the host's /home");
    bench_kill(&bench, &vm, NULL);
    bench_traces(&bench, vm.instance, traces, sizeof(traces));
    cr_assert_str_eq(traces, "");
    bench_close(&bench);
}
