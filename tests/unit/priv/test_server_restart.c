/* What the root half knows after its own death: VMs that still run are adopted, everything else is
 * only to be cleaned up. */
#include "bench.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

static void list_one(struct bench *bench, const struct bench_vm *vm, struct priv_instance *ret)
{
    struct error err = {0};
    cr_assert_eq(priv_list(bench->client, 0, ret, &err), 0, "%s", err.msg);
    cr_assert_str_eq(ret->instance, vm->instance);
    cr_assert_eq(ret->uid, vm->uid);
}

Test(priv_restart, R02_a_running_vm_is_adopted_with_all_its_guards, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    struct priv_instance found;
    struct priv_killed killed;
    struct stat st;
    struct error err = {0};
    char traces[128];
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    bench_stop(&bench);
    bench_serve(&bench, false);
    list_one(&bench, &vm, &found);
    cr_assert(found.alive && found.state == PRIV_LAUNCHED && found.shape.memory_mib == 128);
    cr_assert_eq(memcmp(found.token, vm.launched.token, PRIV_TOKEN_SIZE), 0);
    cr_assert_eq(priv_check(bench.client, vm.instance, &err), 0, "%s", err.msg);
    cleanup_close int console = priv_open(bench.client, vm.instance, PRIV_SOCKET_CONSOLE, 0, &err);
    cr_assert(console >= 0 && fstat(console, &st) == 0 && S_ISFIFO(st.st_mode), "%s", err.msg);
    cr_assert_eq(fcntl(console, F_GETFL) & O_ACCMODE, O_RDONLY);
    cleanup_close int log = priv_open(bench.client, vm.instance, PRIV_SOCKET_LOG, 0, &err);
    cr_assert(log >= 0 && fstat(log, &st) == 0 && S_ISFIFO(st.st_mode), "%s", err.msg);
    cr_assert_eq(fcntl(log, F_GETFL) & O_ACCMODE, O_RDONLY);
    cleanup_close int api = priv_open(bench.client, vm.instance, PRIV_SOCKET_API, 0, &err);
    cr_assert_geq(api, 0, "%s", err.msg);
    cr_assert_eq(bench_api(api, "GET", "/", ""), 200);
    cleanup_close int pidfd = priv_open(bench.client, vm.instance, PRIV_SOCKET_PIDFD, 0, &err);
    cr_assert_geq(pidfd, 0, "%s", err.msg);
    bench_kill(&bench, &vm, &killed);
    cr_assert(killed.was_running);
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    cr_assert_eq(poll(&p, 1, 0), 1, "the pidfd was another's");
    waitpid(-1, NULL, WNOHANG); /* here the earlier server was this very process */
    bench_traces(&bench, vm.instance, traces, sizeof(traces));
    cr_assert_str_eq(traces, "");
    bench_close(&bench);
}

/* The record of a VM with one field changed, as if another process had its pid. */
static void falsify(struct bench *bench, struct bench_vm *vm, void (*change)(struct priv_record *))
{
    struct priv_record record;
    struct error err = {0};
    char path[128];
    snprintf(path, sizeof(path), "%s/priv", bench->run);
    cleanup_close int records = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_eq(priv_record_read(records, vm->instance, &record, &err), 0, "%s", err.msg);
    change(&record);
    vm->uid = record.uid;
    cr_assert_eq(priv_record_write(records, &record, &err), 0, "%s", err.msg);
}

/* What a motted wrote that knew nothing of snapshots. */
static void write_earlier(const struct bench *bench, const struct bench_vm *vm)
{
    enum { EARLIER = offsetof(struct priv_record, snapshot) };
    struct priv_record record;
    struct error err = {0};
    char path[128];
    snprintf(path, sizeof(path), "%s/priv", bench->run);
    cleanup_close int records = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_eq(priv_record_read(records, vm->instance, &record, &err), 0, "%s", err.msg);
    record.size = EARLIER;
    cleanup_close int fd = openat(records, vm->instance, O_WRONLY | O_TRUNC | O_CLOEXEC);
    cr_assert_eq(fs_write_all(fd, &record, EARLIER), 0, "%m");
}

Test(priv_restart, R02_a_vm_of_the_version_before_snapshots_is_adopted, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    struct priv_instance found;
    struct error err = {0};
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    bench_stop(&bench);
    write_earlier(&bench, &vm);
    bench_serve(&bench, false);
    list_one(&bench, &vm, &found);
    cr_assert(found.alive && found.snapshot[0] == '\0' && found.generation == 0);
    cr_assert_eq(priv_check(bench.client, vm.instance, &err), 0, "%s", err.msg);
    cr_assert_eq(priv_stage(bench.client, vm.instance, &err), -1);
    cr_assert_eq(err.code, ERR_SNAPSHOT_MISMATCH, "%s", err.msg);
    bench_kill(&bench, &vm, NULL);
    waitpid(-1, NULL, WNOHANG); /* here the earlier server was this very process */
    bench_close(&bench);
}

static void other_boot(struct priv_record *record)
{
    record->boot_id[0] = record->boot_id[0] == 'a' ? 'b' : 'a';
}

static void other_start(struct priv_record *record)
{
    record->start_time++;
}

static void other_namespace(struct priv_record *record)
{
    record->netns++;
}

static void other_uid(struct priv_record *record)
{
    record->uid++;
}

static void this_process(struct priv_record *record)
{
    record->pid = getpid();
}

Test(priv_restart, R02_a_process_that_is_not_the_recorded_one_is_not_adopted, .timeout = 120)
{
    static void (*const changes[])(struct priv_record *) = {
        other_boot, other_start, other_namespace, other_uid, this_process};
    struct bench bench;
    bench_init(&bench);
    for (size_t i = 0; i < COUNT_OF(changes); i++) {
        struct bench_vm vm;
        struct priv_instance found;
        struct error err = {0};
        char traces[128];
        bench_serve(&bench, false);
        bench_up(&bench, &vm);
        bench_stop(&bench);
        falsify(&bench, &vm, changes[i]);
        bench_serve(&bench, false);
        list_one(&bench, &vm, &found);
        cr_assert_not(found.alive, "change %zu", i);
        cr_assert_eq(priv_open(bench.client, vm.instance, PRIV_SOCKET_API, 0, &err), -1);
        cr_assert_eq(err.code, ERR_PRIV_REFUSED);
        bench_kill(&bench, &vm, NULL); /* by its cgroup; this process must survive it */
        while (waitpid(-1, NULL, 0) > 0)
            ;
        bench_traces(&bench, vm.instance, traces, sizeof(traces));
        cr_assert_str_eq(traces, "", "change %zu left %s", i, traces);
        bench_stop(&bench);
    }
    bench_close(&bench);
}

/* A process of somebody else's, as a record could name it after its pid went round. */
static pid_t stranger(void)
{
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;)
        pause();
}

Test(priv_restart, R02_a_process_that_is_not_where_a_vmm_is_gets_no_signal, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    struct priv_instance found;
    struct priv_record record;
    struct error err = {0};
    char path[128], traces[128];
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    bench_stop(&bench);
    snprintf(path, sizeof(path), "%s/priv", bench.run);
    cleanup_close int records = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_eq(priv_record_read(records, vm.instance, &record, &err), 0, "%s", err.msg);
    record.pid = stranger();
    cr_assert_eq(priv_proc_start(record.pid, &record.start_time, &err), 0, "%s", err.msg);
    cr_assert_eq(priv_record_write(records, &record, &err), 0, "%s", err.msg);
    bench_serve(&bench, false);
    list_one(&bench, &vm, &found);
    cr_assert_not(found.alive);
    bench_kill(&bench, &vm, NULL);
    pid_t ended = waitpid(record.pid, NULL, WNOHANG);
    kill(record.pid, SIGKILL);
    cr_assert_eq(ended, 0, "the stranger lived");
    while (waitpid(-1, NULL, 0) > 0)
        ;
    bench_traces(&bench, vm.instance, traces, sizeof(traces));
    cr_assert_str_eq(traces, "", "its cgroup names the true one");
    bench_close(&bench);
}

/* Overwrites its own words, as it can. */
static void forget_its_name(pid_t pid)
{
    enum { ARG_START = 48 };
    char path[32], text[2048], zeros[4096] = {0};
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    cr_assert_gt(fs_read_at(AT_FDCWD, path, text, sizeof(text)), 0);
    char *at = strrchr(text, ')');
    for (int field = 2; field < ARG_START; field++)
        at = strchr(at + 1, ' ');
    char *rest = NULL;
    unsigned long start = strtoul(at, &rest, 10), end = strtoul(rest, NULL, 10);
    cr_assert(start > 0 && end > start && end - start <= sizeof(zeros));
    snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
    cleanup_close int memory = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_eq(pwrite(memory, zeros, end - start, (off_t)start), (ssize_t)(end - start));
}

Test(priv_restart, R02_a_vmm_that_says_it_is_another_is_not_adopted, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    struct priv_instance found;
    struct priv_killed killed;
    char traces[128];
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    bench_stop(&bench);
    forget_its_name(bench_pid(&vm));
    bench_serve(&bench, false);
    list_one(&bench, &vm, &found);
    cr_assert_not(found.alive);
    bench_kill(&bench, &vm, &killed); /* but it is ours */
    cr_assert(killed.was_running);
    while (waitpid(-1, NULL, 0) > 0)
        ;
    bench_traces(&bench, vm.instance, traces, sizeof(traces));
    cr_assert_str_eq(traces, "");
    bench_close(&bench);
}

Test(priv_restart, R02_a_vmm_that_left_its_cgroup_is_not_adopted, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    struct priv_instance found;
    struct priv_killed killed;
    char pid[16], traces[128];
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    const struct priv_cgroups *cgroups = &bench.server->cgroups;
    snprintf(pid, sizeof(pid), "%d", (int)bench_pid(&vm));
    cr_assert_eq(fs_write_at(cgroups->mount[0], "cgroup.procs", pid), 0, "%m");
    bench_stop(&bench);
    bench_serve(&bench, false);
    list_one(&bench, &vm, &found);
    cr_assert_not(found.alive);
    bench_kill(&bench, &vm, &killed); /* it is still where only its instance is: its namespace */
    cr_assert(killed.was_running);
    while (waitpid(-1, NULL, 0) > 0)
        ;
    bench_traces(&bench, vm.instance, traces, sizeof(traces));
    cr_assert_str_eq(traces, "");
    bench_close(&bench);
}

Test(priv_restart, R20_a_half_made_instance_can_only_be_removed, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    struct priv_instance found;
    struct priv_launched launched;
    struct error err = {0};
    char traces[128];
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_reserve(&bench, &vm);
    bench_guard(&bench, &vm, &BENCH_SHAPE);
    bench_stop(&bench);
    bench_serve(&bench, false);
    list_one(&bench, &vm, &found);
    cr_assert(!found.alive && found.state == PRIV_DEAD);
    cr_assert_eq(priv_launch(bench.client, vm.instance, bench.image, &launched, &err), -1);
    cr_assert_eq(err.code, ERR_PRIV_REFUSED);
    bench_kill(&bench, &vm, NULL);
    bench_traces(&bench, vm.instance, traces, sizeof(traces));
    cr_assert_str_eq(traces, "");
    bench_close(&bench);
}

Test(priv_restart, R20_a_damaged_record_is_cleaned_up_by_its_name, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    struct priv_instance found;
    struct error err = {0};
    char path[160], traces[128];
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    bench_stop(&bench);
    snprintf(path, sizeof(path), "%s/priv/%s", bench.run, vm.instance);
    cr_assert_eq(truncate(path, 20), 0);
    bench_serve(&bench, false);
    while (waitpid(-1, NULL, 0) > 0)
        ;
    bench_traces(&bench, vm.instance, traces, sizeof(traces));
    cr_assert_str_eq(traces, "");
    cr_assert_eq(priv_list(bench.client, 0, &found, &err), 0);
    cr_assert_eq(found.instance[0], '\0');
    bench_close(&bench);
}

/* Reading a directory fails with EISDIR, as a disk would fail with EIO: nothing is known then. */
Test(priv_restart, R02_a_record_that_cannot_be_read_stops_the_start_and_ends_nobody, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    struct priv_instance found;
    struct error err = {0};
    char path[160], kept[160];
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    bench_stop(&bench);
    snprintf(path, sizeof(path), "%s/priv/%s", bench.run, vm.instance);
    snprintf(kept, sizeof(kept), "%s/kept", bench.run);
    cr_assert(rename(path, kept) == 0 && mkdir(path, 0700) == 0);
    cr_assert_eq(priv_server_open(&bench.config, &bench.server, &err), -1);
    cr_assert_eq(err.sys, EISDIR, "%s", err.msg);
    cr_assert(rmdir(path) == 0 && rename(kept, path) == 0);
    bench_serve(&bench, false);
    list_one(&bench, &vm, &found);
    cr_assert(found.alive);
    bench_kill(&bench, &vm, NULL);
    bench_close(&bench);
}

Test(priv_restart, R20_purge_removes_everything, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vms[3];
    struct error err = {0};
    char traces[128], path[128];
    bench_init(&bench);
    bench_serve(&bench, false);
    for (size_t i = 0; i < COUNT_OF(vms); i++)
        bench_up(&bench, &vms[i]);
    bench_stop(&bench);
    struct priv_config config = bench.config;
    config.hypervisor = 0;
    cr_assert_eq(priv_server_open(&config, &bench.server, &err), 0, "%s", err.msg);
    cr_assert_eq(priv_server_purge(bench.server, &err), 0, "%s", err.msg);
    priv_server_free(bench.server);
    bench.server = NULL;
    while (waitpid(-1, NULL, 0) > 0)
        ;
    for (size_t i = 0; i < COUNT_OF(vms); i++) {
        bench_traces(&bench, vms[i].instance, traces, sizeof(traces));
        cr_assert_str_eq(traces, "");
    }
    snprintf(path, sizeof(path), "/sys/fs/cgroup/memory/%s", bench.cgroup);
    cr_assert_eq(access(path, F_OK), -1);
    cr_assert_neq(system("iptables-legacy-save | grep -q MOTTE"), 0, "rules are left");
    bench_close(&bench);
}
