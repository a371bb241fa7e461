/* The child between clone3 and exec: a copy of a threaded process, so nothing but system calls. It
 * takes no lock, no memory, and calls no libc function that does; the ids are set by raw calls,
 * because libc's signal the threads that do not exist here. */
#include "priv/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

enum stage {
    STAGE_SIGNALS = 1,
    STAGE_CGROUP,
    STAGE_MOUNTS,
    STAGE_JAIL,
    STAGE_OUTPUT,
    STAGE_OOM,
    STAGE_SLICE,
    STAGE_LIMITS,
    STAGE_GO,
    STAGE_ROOT,
    STAGE_MEMORY,
    STAGE_STATE,
    STAGE_CAPABILITIES,
    STAGE_IDS,
    STAGE_FILTER,
    STAGE_EXEC,
    STAGE_COUNT,
};

const char *priv_child_stage(int32_t stage)
{
    static const char *const names[STAGE_COUNT] = {
        [STAGE_SIGNALS] = "resetting signals",
        [STAGE_CGROUP] = "entering its cgroup",
        [STAGE_MOUNTS] = "making its mounts private",
        [STAGE_JAIL] = "mounting the jail",
        [STAGE_OUTPUT] = "redirecting its output",
        [STAGE_OOM] = "resetting oom_score_adj",
        [STAGE_SLICE] = "resetting its time slice",
        [STAGE_LIMITS] = "setting its limits",
        [STAGE_GO] = "waiting for its parent",
        [STAGE_ROOT] = "changing its root",
        [STAGE_MEMORY] = "handing on its memory",
        [STAGE_STATE] = "opening what it is restored from",
        [STAGE_CAPABILITIES] = "dropping capabilities",
        [STAGE_IDS] = "becoming the VM's user",
        [STAGE_FILTER] = "loading its seccomp filter",
        [STAGE_EXEC] = "executing the VMM",
    };
    return stage > 0 && stage < STAGE_COUNT ? names[stage] : "starting";
}

enum error_code priv_child_error(int32_t stage)
{
    return stage == STAGE_CGROUP ? ERR_CGROUP : ERR_LAUNCH;
}

void priv_child_init(struct priv_child *child)
{
    memset(child, 0, sizeof(*child));
    priv_jail_init(&child->jail);
    child->null = child->output = child->sync = child->memory = -1;
    for (size_t i = 0; i < COUNT_OF(child->entries); i++)
        child->entries[i] = -1;
}

void priv_child_release(struct priv_child *child)
{
    priv_jail_release(&child->jail);
    for (size_t i = 0; i < child->argc; i++)
        free(child->argv[i]);
    cleanup_close_func(&child->null);
    cleanup_close_func(&child->output);
    cleanup_close_func(&child->sync);
    cleanup_close_func(&child->memory);
    for (size_t i = 0; i < COUNT_OF(child->entries); i++)
        cleanup_close_func(&child->entries[i]);
    priv_child_init(child);
}

int priv_child_arg(struct priv_child *child, const char *fmt, ...)
{
    va_list args;
    if (child->argc + 1 >= PRIV_ARGS_MAX)
        return -1;
    va_start(args, fmt);
    int n = vasprintf(&child->argv[child->argc], fmt, args);
    va_end(args);
    if (n < 0) {
        child->argv[child->argc] = NULL;
        return -1;
    }
    child->argc++;
    return 0;
}

/* Ignored signals stay ignored over exec. */
static int reset_signals(void)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    for (int number = 1; number < NSIG; number++)
        if (number != SIGKILL && number != SIGSTOP)
            (void)sigaction(number, &action, NULL); /* libc keeps two for itself */
    sigset_t none;
    sigemptyset(&none);
    return sigprocmask(SIG_SETMASK, &none, NULL);
}

static int mount_jail(const struct priv_child *child)
{
    const struct priv_jail *jail = &child->jail;
    if (move_mount(jail->base, "", AT_FDCWD, child->base_path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return -1;
    for (size_t i = 0; i < jail->mount_count; i++)
        if (move_mount(jail->mounts[i].tree, "", jail->root, jail->mounts[i].target,
                       MOVE_MOUNT_F_EMPTY_PATH) < 0)
            return -1;
    return 0;
}

static int redirect(const struct priv_child *child)
{
    if (dup2(child->null, 0) < 0 || dup2(child->output, 1) < 0 || dup2(child->output, 2) < 0)
        return -1;
    setsid();
    return 0;
}

/* All but those that are still needed. It matters: a copy of another launch's socket pair, kept
 * by a child that waits, would hide the root half's death from that other child, and both would
 * wait for ever. */
static int close_others(const struct priv_child *child)
{
    const int kept[] = {child->jail.root, child->sync, child->memory};
    unsigned from = 3;
    for (;;) {
        unsigned next = ~0U; /* the least of them that is left */
        for (size_t i = 0; i < COUNT_OF(kept); i++)
            if (kept[i] >= 0 && (unsigned)kept[i] >= from && (unsigned)kept[i] < next)
                next = (unsigned)kept[i];
        if (next == ~0U)
            return (int)syscall(SYS_close_range, from, ~0U, 0);
        if (next > from && syscall(SYS_close_range, from, next - 1, 0) < 0)
            return -1;
        from = next + 1;
    }
}

static int reset_oom(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = write(fd, "0", 1);
    close(fd);
    return n == 1 ? 0 : -1;
}

static int set_limits(const struct priv_child *child)
{
    static const int resources[PRIV_RLIMITS] = {
        [PRIV_RLIMIT_CORE] = RLIMIT_CORE,
        [PRIV_RLIMIT_FSIZE] = RLIMIT_FSIZE,
        [PRIV_RLIMIT_NOFILE] = RLIMIT_NOFILE,
        [PRIV_RLIMIT_MEMLOCK] = RLIMIT_MEMLOCK,
    };
    for (size_t i = 0; i < PRIV_RLIMITS; i++)
        if (setrlimit((__rlimit_resource_t)resources[i],
                      &(struct rlimit){child->rlimits[i], child->rlimits[i]}) < 0)
            return -1;
    return 0;
}

/* We are in the cgroup, and the parent has written the record: only now may a VMM exist. */
static int wait_for_parent(const struct priv_child *child)
{
    char go;
    errno = ECANCELED;
    return read(child->sync, &go, 1) == 1 ? 0 : -1;
}

static int change_root(const struct priv_child *child)
{
    if (fchdir(child->jail.root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ||
        umount2(".", MNT_DETACH) < 0)
        return -1;
    return chdir("/vm");
}

/* Over whatever has that number, which is nothing that is still needed. */
static int lend(int fd, int number)
{
    return fd == number ? fcntl(fd, F_SETFD, 0) : dup2(fd, number);
}

/* QEMU knows it by its number in /proc, where there is nothing else but what QEMU itself is. */
static int lend_memory(const struct priv_child *child)
{
    if (child->memory < 0)
        return 0;
    if (mount("proc", "/proc", "proc", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "subset=pid") <
        0)
        return -1;
    return lend(child->memory, PRIV_MEMORY_FD);
}

/* QEMU cannot be told a path to be restored from, only a descriptor. */
static int lend_state(const struct priv_child *child)
{
    if (child->restore == NULL)
        return 0;
    int fd = open(PRIV_RESTORE_STATE, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -1 : lend(fd, PRIV_RESTORE_FD);
}

/* What exec could give back is cut to `keep`; the jailer needs six, QEMU none. */
static int cut_capabilities(const struct priv_child *child)
{
    const uint64_t jailer = 1ULL << CAP_SYS_ADMIN | 1ULL << CAP_MKNOD | 1ULL << CAP_CHOWN |
                            1ULL << CAP_SETUID | 1ULL << CAP_SETGID | 1ULL << CAP_DAC_OVERRIDE;
    uint64_t keep = child->drop ? 0 : jailer;
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        if (!(keep & 1ULL << cap) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            return -1;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return -1;
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/* From root to another uid: the kernel clears all capability sets. */
static int change_ids(const struct priv_child *child)
{
    uint32_t uid = child->uid;
    return syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, uid, uid, uid) < 0 ||
                   syscall(SYS_setresuid, uid, uid, uid) < 0
               ? -1
               : 0;
}

__attribute__((noreturn)) static void fail(const struct priv_child *child, enum stage stage)
{
    struct priv_child_report report = {(int32_t)stage, errno};
    (void)!send(child->sync, &report, sizeof(report), MSG_NOSIGNAL);
    _exit(127);
}

static void check(const struct priv_child *child, enum stage stage, int result)
{
    if (result < 0)
        fail(child, stage);
}

void priv_child_run(const struct priv_child *child)
{
    char path[] = "PATH=/usr/bin";
    char *environment[] = {path, NULL};
    check(child, STAGE_SIGNALS, reset_signals());
    check(child, STAGE_CGROUP, priv_cgroup_enter(child->entries));
    check(child, STAGE_MOUNTS, mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    check(child, STAGE_JAIL, mount_jail(child));
    check(child, STAGE_OUTPUT, redirect(child));
    check(child, STAGE_OUTPUT, close_others(child));
    check(child, STAGE_OOM, reset_oom());
    check(child, STAGE_SLICE, clock_slice(0));
    check(child, STAGE_LIMITS, set_limits(child));
    check(child, STAGE_GO, wait_for_parent(child));
    if (child->drop) {
        check(child, STAGE_ROOT, change_root(child));
        check(child, STAGE_MEMORY, lend_memory(child));
        check(child, STAGE_STATE, lend_state(child));
    }
    check(child, STAGE_CAPABILITIES, cut_capabilities(child));
    if (child->drop)
        check(child, STAGE_IDS, change_ids(child));
    if (child->filter != NULL && priv_seccomp_load(child->filter) < 0)
        fail(child, STAGE_FILTER);
    execve(child->program, child->argv, environment);
    fail(child, STAGE_EXEC);
}
