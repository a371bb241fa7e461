/* motted itself: what it refuses to start with, what it hands to the front and what it gives up;
 * and a real VM through the confined root half. */
#include "daemon.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

static void assert_ends_with(struct daemon *daemon, const char *words)
{
    char text[4096];
    daemon_start(daemon);
    int status = daemon_wait(daemon, text, sizeof(text));
    cr_assert_eq(status, 1, "status %d: %s", status, text);
    cr_assert_not_null(strstr(text, words), "`%s` is not in: %s", words, text);
}

Test(motted, R41_front_has_no_privilege_and_the_root_half_few, .timeout = 60)
{
    struct bench bench;
    struct daemon daemon;
    struct stat st;
    char text[8192], path[128], status[8192];
    bench_init(&bench);
    daemon_usual(&daemon, &bench);
    daemon_start(&daemon);
    cleanup_close int channel = daemon_connect(&bench, text, sizeof(text));
    cr_assert_not_null(strstr(text, "--default-image=python --boot-timeout-ms=60000"), "%s", text);
    cr_assert_not_null(strstr(text, "--image-snapshots=8"), "%s", text);
    cr_assert(priv_proc_ids_are(text, "Uid", 65534) && priv_proc_ids_are(text, "Gid", 65534));
    cr_assert_eq(strtoull(priv_proc_field(text, "CapEff"), NULL, 16), 0ULL);
    cr_assert_eq(strtoull(priv_proc_field(text, "CapPrm"), NULL, 16), 0ULL);
    cr_assert_eq(*priv_proc_field(text, "NoNewPrivs"), '1');
    cr_assert_eq(*priv_proc_field(text, "Groups"), '\n', "supplementary groups");
    snprintf(path, sizeof(path), "/proc/%d/status", (int)daemon.pid);
    cr_assert_gt(fs_read_at(AT_FDCWD, path, status, sizeof(status)), 0);
    cr_assert_eq(strtoull(priv_proc_field(status, "CapBnd"), NULL, 16), 0x82c30ebULL,
                 "CapBnd %.20s", priv_proc_field(status, "CapBnd"));
    cr_assert_eq(*priv_proc_field(status, "Seccomp"), '2');
    cr_assert_eq(*priv_proc_field(status, "NoNewPrivs"), '1');
    snprintf(path, sizeof(path), "%s/priv", bench.run);
    cr_assert(stat(path, &st) == 0 && st.st_uid == 0 && (st.st_mode & 0777) == 0700);
    snprintf(path, sizeof(path), "%s/front", bench.state);
    cr_assert(stat(path, &st) == 0 && st.st_uid == 65534 && (st.st_mode & 0777) == 0700);
    snprintf(path, sizeof(path), "%s/motte.sock", bench.run);
    cr_assert(stat(path, &st) == 0 && st.st_uid == 0 && (st.st_mode & 0777) == 0660);
    kill(daemon.pid, SIGTERM);
    cr_assert_eq(daemon_wait(&daemon, text, sizeof(text)), 0, "%s", text);
    bench_close(&bench);
}

/* The filter that motted itself has is inherited: before the start every thread has one already,
 * and that must not pass for the VMM's own. */
static void boot_with_checks(struct bench *bench, struct bench_vm *vm)
{
    struct error err = {0};
    bench_reserve(bench, vm);
    bench_guard(bench, vm, &BENCH_SHAPE);
    bench_launch(bench, vm);
    cleanup_close int api = priv_open(bench->client, vm->instance, PRIV_SOCKET_API, 0, &err);
    cr_assert_geq(api, 0, "%s", err.msg);
    cr_assert_eq(priv_check(bench->client, vm->instance, &err), -1);
    cr_assert_eq(err.code, ERR_GUARD);
    cr_assert_not_null(strstr(err.msg, "1 seccomp filters where 1 are inherited"), "%s", err.msg);
    bench_boot(bench, vm);
}

Test(motted, R26_a_vm_runs_under_the_confined_root_half_and_outlives_it, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    struct daemon daemon;
    struct priv_instance found;
    struct error err = {0};
    char text[8192], traces[128];
    bench_init(&bench);
    for (int round = 0; round < 2; round++) {
        daemon_usual(&daemon, &bench);
        daemon_start(&daemon);
        int channel = daemon_connect(&bench, text, sizeof(text));
        cr_assert_eq(priv_client_new(channel, &bench.client, &err), 0, "%s", err.msg);
        if (round == 0)
            boot_with_checks(&bench, &vm);
        cr_assert_eq(priv_check(bench.client, vm.instance, &err), 0, "%s", err.msg);
        cr_assert_eq(priv_list(bench.client, 0, &found, &err), 0);
        cr_assert(strcmp(found.instance, vm.instance) == 0 && found.alive);
        if (round == 1)
            bench_kill(&bench, &vm, NULL);
        kill(daemon.pid, SIGTERM);
        priv_client_free(bench.client);
        bench.client = NULL;
        cr_assert_eq(daemon_wait(&daemon, text, sizeof(text)), 0, "%s", text);
    }
    bench_traces(&bench, vm.instance, traces, sizeof(traces));
    cr_assert_str_eq(traces, "");
    bench_close(&bench);
}

Test(motted, R26_qemu_runs_under_the_confined_root_half, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    struct daemon daemon;
    struct error err = {0};
    char text[8192], traces[128];
    bench_init(&bench);
    daemon_usual(&daemon, &bench);
    daemon_add(&daemon, "--hypervisor=qemu");
    daemon_add(&daemon, "--dev");
    daemon_start(&daemon);
    int channel = daemon_connect(&bench, text, sizeof(text));
    cr_assert_eq(priv_client_new(channel, &bench.client, &err), 0, "%s", err.msg);
    bench_reserve(&bench, &vm);
    bench_guard(&bench, &vm, &BENCH_SHAPE);
    bench_launch(&bench, &vm);
    vm.api = priv_open(bench.client, vm.instance, PRIV_SOCKET_API, 0, &err);
    cr_assert_geq(vm.api, 0, "%s", err.msg);
    cr_assert_eq(priv_check(bench.client, vm.instance, &err), 0, "%s", err.msg);
    bench_kill(&bench, &vm, NULL);
    priv_client_free(bench.client);
    bench.client = NULL;
    kill(daemon.pid, SIGTERM);
    cr_assert_eq(daemon_wait(&daemon, text, sizeof(text)), 0, "%s", text);
    cr_assert_not_null(strstr(text, "emulation is not a security border"), "%s", text);
    bench_traces(&bench, vm.instance, traces, sizeof(traces));
    cr_assert_str_eq(traces, "");
    bench_close(&bench);
}

Test(motted, one_run_dir_has_one_motted_and_a_dead_front_ends_it, .timeout = 60)
{
    struct bench bench;
    struct daemon first, second;
    char text[8192];
    bench_init(&bench);
    daemon_usual(&first, &bench);
    daemon_start(&first);
    cleanup_close int channel = daemon_connect(&bench, text, sizeof(text));
    daemon_usual(&second, &bench);
    assert_ends_with(&second, "another motted runs with the run-dir");
    pid_t front = (pid_t)strtol(priv_proc_field(text, "Pid"), NULL, 10);
    cr_assert_gt(front, 1);
    close(TAKE_FD(channel)); /* the relay gave us a copy of its end */
    cr_assert_eq(kill(front, SIGKILL), 0);
    cr_assert_eq(daemon_wait(&first, text, sizeof(text)), 128 + SIGKILL, "%s", text);
    bench_close(&bench);
}

Test(motted, bad_starts_end_with_a_sentence, .timeout = 60)
{
    static const struct {
        const char *argument, *words;
    } cases[] = {
        {"--listen=tcp:127.0.0.1:0", "give --token-file"},
        {"--metrics-listen=tcp:0.0.0.0:9", "for 127.0.0.1 and [::1] only"},
        {"--metrics-listen=tcp:[2001:db8::1]:9", "for 127.0.0.1 and [::1] only"},
        {"--listen=unix:relative", "absolute path"},
        {"--front-user=no-such-user-here", "useradd --system"},
        {"--front-user=root", "must not run as root"},
        {"--uid-base=65000", "overlap"},
        {"--firecracker=/nonexistent/firecracker", "/nonexistent/firecracker"},
        {"--hypervisor=qemu", "--dev"},
        {"--memory-overcommit=nan", "from 0.1 to 16"},
        {"--max-io-mib-s=1048577", "from 0 to 1048576"},
        {"--max-iops=-1", "from 0 to 100000000"},
        {"--metrics-listen=:9090", "use unix:/PATH, tcp:ADDRESS:PORT"},
        {"--nonsense=1", "no such option"},
        {"--hlep", "no such option"},
        {"--max_vms=5", "there is max-vms"},
        {"--memory=512", "there is max-memory-mib, max-tenant-memory-mib"},
        {"frobnicate", "no command; see motted --help"},
        {"--without=everything", "none of firewall, cgroup, seccomp"},
        {"--config=/nonexistent/conf", "/nonexistent/conf"},
        {"--max-vms", "wants a value"},
    };
    struct bench bench;
    bench_init(&bench);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct daemon daemon;
        daemon_usual(&daemon, &bench);
        daemon_add(&daemon, "%s", cases[i].argument);
        assert_ends_with(&daemon, cases[i].words);
    }
    bench_close(&bench);
}

Test(motted, config_file_is_read_and_must_be_roots, .timeout = 60)
{
    struct bench bench;
    struct daemon daemon;
    char path[128], text[8192];
    static const char lines[] = "# a comment\ndefault-image = other\nboot-timeout-ms = 1234\n";
    bench_init(&bench);
    snprintf(path, sizeof(path), "%s/motted.conf", bench.directory);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    cr_assert(fd >= 0 && fs_write_all(fd, lines, sizeof(lines) - 1) == 0);
    daemon_usual(&daemon, &bench);
    daemon_add(&daemon, "--config=%s", path);
    daemon_add(&daemon, "--boot-timeout-ms=4321");
    daemon_start(&daemon);
    cleanup_close int channel = daemon_connect(&bench, text, sizeof(text));
    cr_assert_not_null(strstr(text, "--default-image=other --boot-timeout-ms=4321"), "%s", text);
    kill(daemon.pid, SIGTERM);
    cr_assert_eq(daemon_wait(&daemon, text, sizeof(text)), 0);
    cr_assert_eq(fchmod(fd, 0666), 0);
    close(fd);
    daemon_usual(&daemon, &bench);
    daemon_add(&daemon, "--config=%s", path);
    assert_ends_with(&daemon, "nobody else can write");
    bench_close(&bench);
}

Test(motted, R20_purge_needs_neither_front_nor_hypervisor, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    struct daemon daemon;
    char text[8192], traces[128], path[128];
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    bench_stop(&bench);
    memset(&daemon, 0, sizeof(daemon));
    daemon_add(&daemon, "motted");
    daemon_add(&daemon, "--purge");
    daemon_add(&daemon, "--run-dir=%s", bench.run);
    daemon_add(&daemon, "--state-dir=%s", bench.state);
    daemon_add(&daemon, "--cgroup=%s", bench.cgroup);
    daemon_add(&daemon, "--front-user=no-such-user-here");
    daemon_start(&daemon);
    cr_assert_eq(daemon_wait(&daemon, text, sizeof(text)), 0, "%s", text);
    cr_assert_eq(waitpid(-1, NULL, 0) > 0, 1); /* the VMM was this process's child */
    bench_traces(&bench, vm.instance, traces, sizeof(traces));
    cr_assert_str_eq(traces, "");
    snprintf(path, sizeof(path), "%s/priv", bench.run);
    cr_assert_eq(access(path, F_OK), -1);
    bench_close(&bench);
}
