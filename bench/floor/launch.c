/* A jail around any VMM, up to its exec: what Motte makes, whatever the hypervisor. */
#include "bench/floor/floor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static int make_tmpfs(void)
{
    cleanup_close int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);
    bench_must(fs >= 0 && fsconfig(fs, FSCONFIG_SET_STRING, "size", "16m", 0) == 0 &&
                   fsconfig(fs, FSCONFIG_SET_STRING, "nr_inodes", "256", 0) == 0 &&
                   fsconfig(fs, FSCONFIG_SET_STRING, "mode", "0755", 0) == 0 &&
                   fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0,
               "a tmpfs");
    int base = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID);
    bench_must(base >= 0, "mounting a tmpfs");
    return base;
}

void floor_jail_init(struct floor_jail *jail)
{
    memset(jail, 0, sizeof(*jail));
    jail->base = make_tmpfs();
    jail->null = open("/dev/null", O_RDWR | O_CLOEXEC);
}

static int make_target(int root, int file, const char *name)
{
    struct stat st;
    if (fstat(file, &st) < 0)
        return -1;
    if (S_ISDIR(st.st_mode))
        return mkdirat(root, name, 0755);
    cleanup_close int target = openat(root, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    return target < 0 ? -1 : 0;
}

void floor_jail_bind(const struct floor_vm *vm, struct floor_jail *jail, int file, const char *name,
                     uint64_t flags)
{
    struct mount_attr attr = {.attr_set = flags};
    int tree = open_tree(file, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    bench_must(tree >= 0 && jail->bind_count < FLOOR_BINDS &&
                   mount_setattr(tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)) == 0 &&
                   make_target(vm->root, file, name) == 0,
               name);
    jail->binds[jail->bind_count].tree = tree;
    jail->binds[jail->bind_count++].name = name;
}

/* ---- the child's side, system calls only -------------------------------------------------------- */

enum { STATE = 3, SYNC }; /* STATE: of a QEMU that is restored */

static int cut_capabilities(bool all)
{
    const uint64_t jailer = 1ULL << CAP_SYS_ADMIN | 1ULL << CAP_MKNOD | 1ULL << CAP_CHOWN |
                            1ULL << CAP_SETUID | 1ULL << CAP_SETGID | 1ULL << CAP_DAC_OVERRIDE;
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        if ((all || !(jailer & 1ULL << cap)) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            return -1;
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static int set_limits(uint64_t memory, uint64_t files)
{
    const struct {
        __rlimit_resource_t what;
        uint64_t value;
    } limits[] = {
        {RLIMIT_CORE, 0}, {RLIMIT_FSIZE, memory}, {RLIMIT_NOFILE, files}, {RLIMIT_MEMLOCK, 0}};
    for (size_t i = 0; i < COUNT_OF(limits); i++)
        if (setrlimit(limits[i].what, &(struct rlimit){limits[i].value, limits[i].value}) < 0)
            return -1;
    return 0;
}

static int enter_jail(const struct floor_vm *vm, const struct floor_jail *jail)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        move_mount(jail->base, "", AT_FDCWD, vm->floor->work, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return -1;
    for (size_t i = 0; i < jail->bind_count; i++)
        if (move_mount(jail->binds[i].tree, "", vm->root, jail->binds[i].name,
                       MOVE_MOUNT_F_EMPTY_PATH) < 0)
            return -1;
    return fchdir(vm->root);
}

static int redirect(const struct floor_jail *jail)
{
    int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (score < 0 || write(score, "0", 1) != 1 || dup2(jail->null, 0) < 0 ||
        dup2(jail->output, 1) < 0 || dup2(jail->output, 2) < 0)
        return -1;
    close(score);
    return setsid() < 0 ? -1 : 0;
}

/* A copy of another's socket pair, kept while it waits here, would make that other's exec look
 * late: all are closed but its own, which moves to SYNC. */
static int close_others(const struct floor_jail *jail)
{
    return dup3(jail->sync[1], SYNC, O_CLOEXEC) == SYNC && close(STATE) == 0
               ? (int)syscall(SYS_close_range, SYNC + 1, ~0U, 0)
               : -1;
}

static int wait_for_parent(void)
{
    char go;
    return read(SYNC, &go, 1) == 1 ? 0 : -1;
}

/* `what` is a string of the program's own: the parent, which this is a copy of, has it there too. */
struct failure {
    const char *what;
    int error;
};

static void must(int sync, int result, const char *what)
{
    const struct failure failure = {what, errno};
    if (result >= 0)
        return;
    (void)!write(sync, &failure, sizeof(failure));
    _exit(127);
}

/* What the jailer does for a Firecracker. STATE is the least number that is free. */
static int change_root(void)
{
    if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/vm") < 0)
        return -1;
    return open("/restore.state", O_RDONLY | O_NOFOLLOW) == STATE ? 0 : -1;
}

/* Not libc's calls: they ask threads that are not here to follow. */
static int change_ids(uint32_t uid)
{
    return syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, uid, uid, uid) < 0
               ? -1
               : (int)syscall(SYS_setresuid, uid, uid, uid);
}

__attribute__((noreturn)) static void run_child(const struct floor_vm *vm,
                                                const struct floor_jail *jail)
{
    const int early = jail->sync[1];
    const bool drop = vm->floor->emulated;
    char path[] = "PATH=/usr/bin";
    char *environment[] = {path, NULL};
    if (!vm->floor->unified)
        must(early, floor_cgroup_enter(vm), "the child: entering its cgroup");
    must(early, enter_jail(vm, jail), "the child: mounting its jail");
    must(early, redirect(jail), "the child: redirecting its output");
    must(early, close_others(jail), "the child: closing what is not its own");
    must(SYNC, set_limits(vm->floor->memory_max, jail->files), "the child: setting its limits");
    must(SYNC, wait_for_parent(), "the child: waiting for its parent");
    if (drop)
        must(SYNC, change_root(), "the child: changing its root");
    must(SYNC, cut_capabilities(drop), "the child: dropping capabilities");
    if (drop) {
        must(SYNC, change_ids(vm->slot.uid), "the child: becoming the VM's user");
        must(SYNC, priv_seccomp_load(&vm->floor->program), "the child: loading its filter");
    }
    must(SYNC, execve(jail->argv[0], jail->argv, environment), jail->argv[0]);
    _exit(127);
}

/* Its end of the pair closes by itself when exec succeeds. */
static void await_exec(int sync)
{
    struct failure failure;
    ssize_t n = recv(sync, &failure, sizeof(failure), 0);
    if (n == (ssize_t)sizeof(failure))
        errno = failure.error;
    bench_must(n == 0, n == (ssize_t)sizeof(failure) ? failure.what : "waiting for a child");
}

static void close_jail(struct floor_jail *jail)
{
    close(jail->base);
    close(jail->sync[1]);
    close(jail->output);
    close(jail->null);
    for (size_t i = 0; i < jail->bind_count; i++)
        close(jail->binds[i].tree);
}

void floor_jail_launch(struct floor_vm *vm, struct floor_jail *jail)
{
    struct clone_args args = {.flags = CLONE_PIDFD | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET |
                                       CLONE_NEWIPC | CLONE_NEWUTS,
                              .pidfd = (uintptr_t)&vm->pidfd,
                              .exit_signal = SIGCHLD};
    cleanup_close int cgroup = -1;
    bench_must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, jail->sync) == 0, "a pair");
    if (vm->floor->unified) {
        cgroup = openat(vm->floor->cgroups[0], vm->slot.instance, O_RDONLY | O_CLOEXEC);
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (__u64)cgroup;
    }
    vm->pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
    if (vm->pid == 0)
        run_child(vm, jail);
    bench_must(vm->pid > 0, "a process and its namespaces");
    close_jail(jail);
    ssize_t told = send(jail->sync[0], "g", 1, MSG_NOSIGNAL); /* EPIPE: it tells below why */
    bench_must(told == 1 || errno == EPIPE, "telling a child to go on");
    await_exec(jail->sync[0]);
    close(jail->sync[0]);
}
