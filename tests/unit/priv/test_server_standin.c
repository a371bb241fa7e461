/* Guards that nobody can take from a running VMM: the record of a real VM is pointed at a process
 * of the test's own that has every guard but one. Just that line must fail. */
#include "report.h"

#include <criterion/criterion.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum guard {
    SECCOMP,
    NO_NEW_PRIVS,
    CAPABILITIES,
    UID,
    NET,
    MNT,
    PID,
    IPC,
    UTS,
    CORE,
    FSIZE,
    NOFILE,
    MEMLOCK,
    ALL
};

static const struct {
    const char *line;
    unsigned long flag; /* the namespace, for clone(2) */
    enum priv_line_state state;
} guards[ALL] = {
    [SECCOMP] = {"seccomp", 0, PRIV_LINE_ABSENT},
    [NO_NEW_PRIVS] = {"no_new_privs", 0, PRIV_LINE_ABSENT},
    [CAPABILITIES] = {"capabilities", 0, PRIV_LINE_WRONG},
    [UID] = {"uid", 0, PRIV_LINE_WRONG},
    [NET] = {"namespace_net", CLONE_NEWNET, PRIV_LINE_ABSENT},
    [MNT] = {"namespace_mnt", CLONE_NEWNS, PRIV_LINE_ABSENT},
    [PID] = {"namespace_pid", CLONE_NEWPID, PRIV_LINE_ABSENT},
    [IPC] = {"namespace_ipc", CLONE_NEWIPC, PRIV_LINE_ABSENT},
    [UTS] = {"namespace_uts", CLONE_NEWUTS, PRIV_LINE_ABSENT},
    [CORE] = {"core_dumps", 0, PRIV_LINE_WRONG},
    [FSIZE] = {"file_size", 0, PRIV_LINE_WRONG},
    [NOFILE] = {"open_files", 0, PRIV_LINE_WRONG},
    [MEMLOCK] = {"locked_memory", 0, PRIV_LINE_WRONG},
};

static struct bench bench;
static struct bench_vm vm;

static bool limit(enum guard without)
{
    static const __rlimit_resource_t resources[PRIV_RLIMITS] = {RLIMIT_CORE, RLIMIT_FSIZE,
                                                                RLIMIT_NOFILE, RLIMIT_MEMLOCK};
    uint64_t values[PRIV_RLIMITS];
    priv_rlimits(bench.server, &BENCH_SHAPE, values);
    for (size_t i = 0; i < PRIV_RLIMITS; i++) {
        rlim_t hard = values[i] + (without == CORE + i);
        if (setrlimit(resources[i], &(struct rlimit){values[i], hard}) < 0)
            return false;
    }
    return true;
}

static bool filter(void)
{
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {.len = 1, .filter = &allow};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* The child's side. Bare system calls: the C library does not know that it was cloned, and would
 * ask threads that are not there to change their ids too. */
__attribute__((noreturn)) static void stand(enum guard without, int ready)
{
    uid_t uid = vm.uid + (without == UID);
    bool done = limit(without);
    done = done && (without == SECCOMP || filter());
    done = done && (without == NO_NEW_PRIVS || prctl(PR_SET_NO_NEW_PRIVS, 1UL, 0UL, 0UL, 0UL) == 0);
    done = done && (without != CAPABILITIES || prctl(PR_SET_KEEPCAPS, 1UL) == 0);
    done = done && syscall(SYS_setgroups, 0, NULL) == 0 &&
           syscall(SYS_setresgid, uid, uid, uid) == 0 && syscall(SYS_setresuid, uid, uid, uid) == 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (write(ready, done ? "y" : "n", 1) == 1)
        for (;;)
            pause();
    _exit(1);
}

static pid_t make(enum guard without)
{
    unsigned long flags = SIGCHLD;
    char answer = 'n';
    int ends[2];
    for (size_t i = 0; i < ALL; i++)
        flags |= i == without ? 0 : guards[i].flag;
    cr_assert_eq(pipe(ends), 0);
    pid_t pid = (pid_t)syscall(SYS_clone, flags, NULL, NULL, NULL, NULL);
    if (pid == 0)
        stand(without, ends[1]);
    cr_assert_gt(pid, 0, "%m");
    cr_assert_eq(read(ends[0], &answer, 1), 1);
    close(ends[0]);
    close(ends[1]);
    cr_assert_eq(answer, 'y');
    return pid;
}

static uint64_t netns_of(pid_t pid)
{
    struct stat st;
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
    cr_assert_eq(stat(path, &st), 0);
    return st.st_ino;
}

static void point_record_at(pid_t pid, uint64_t netns)
{
    struct priv_instance_slot *slot = priv_slot_find(bench.server, vm.instance);
    pthread_mutex_lock(&bench.server->lock);
    slot->record.pid = (int32_t)pid;
    slot->record.netns = netns;
    pthread_mutex_unlock(&bench.server->lock);
}

static void report_without(enum guard without, struct report *ret)
{
    pid_t own = bench_pid(&vm), pid = make(without);
    point_record_at(pid, netns_of(pid));
    report_read(&bench, &vm, ret);
    point_record_at(own, netns_of(own));
    cr_assert_eq(kill(pid, SIGKILL), 0);
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
}

Test(priv_standin, R22_R26_a_process_that_lacks_one_guard_fails_by_that_line_only, .timeout = 60)
{
    struct report report;
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    for (enum guard without = 0; without <= ALL; without++) {
        report_without(without, &report);
        for (enum guard i = 0; i < ALL; i++) {
            const struct priv_line *line = report_line(&report, guards[i].line);
            enum priv_line_state wanted = i == without ? guards[i].state : PRIV_LINE_OK;
            cr_assert_eq(line->state, wanted, "without %s, %s is %u: %s",
                         without == ALL ? "nothing" : guards[without].line, line->name, line->state,
                         line->detail);
        }
    }
    bench_close(&bench);
}

/* In another network namespace than the one it was given, though not in ours. */
Test(priv_standin, R26_a_vmm_that_changed_its_network_namespace_fails, .timeout = 60)
{
    char wrong[256];
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    pid_t own = bench_pid(&vm);
    point_record_at(own, netns_of(own) + 1);
    cr_assert_str_eq(report_wrong(&bench, &vm, wrong, sizeof(wrong)), " namespace_net");
    point_record_at(own, netns_of(own));
    cr_assert_str_eq(report_wrong(&bench, &vm, wrong, sizeof(wrong)), "");
    bench_close(&bench);
}
