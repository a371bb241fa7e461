/* The two places of a snapshot in a VMM's jail. They are mounts from the start, so that the VMM, whose
 * uid owns the directory they lie in, can neither remove nor replace them. To mount over them one has
 * to be in the VMM's mount namespace: a child enters it, a copy of a threaded process as in child.c,
 * so nothing but system calls. It waits for nothing, hence may keep its copies of our descriptors. */
#include "priv/snapshot_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

enum { CHILD_TIMEOUT_MS = 5000, COVERS_MAX = 8, NULL_MAJOR = 1, NULL_MINOR = 3 };

struct visit {
    int vmm;                /* pidfd */
    uint32_t uid;           /* the VM's */
    int trees[PRIV_PLACES]; /* detached mounts, or -1: uncover */
};

/* The VMM may write it: only a staged file is such. */
static bool is_cover(const char *place, uint32_t uid)
{
    struct stat st;
    return fstatat(AT_FDCWD, place, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
           st.st_uid == uid;
}

static int uncover(const char *place, uint32_t uid)
{
    for (int i = 0; i < COVERS_MAX && is_cover(place, uid); i++)
        if (umount2(place, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
            return -1;
    return 0;
}

/* Before its jailer has changed its root it sees the host's files, and nothing of them is meant. */
static int cover(int tree, const char *place)
{
    struct stat st;
    if (fstatat(AT_FDCWD, place, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -1;
    if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(NULL_MAJOR, NULL_MINOR)) {
        errno = EBUSY;
        return -1;
    }
    return move_mount(tree, "", AT_FDCWD, place, MOVE_MOUNT_F_EMPTY_PATH);
}

/* setns also makes the namespace's root, which is the jail's, the working directory. */
__attribute__((noreturn)) static void visit(const struct visit *visit)
{
    int result = prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (result == 0)
        result = setns(visit->vmm, CLONE_NEWNS);
    for (size_t i = 0; i < PRIV_PLACES && result == 0; i++) {
        const char *place = priv_snapshot_places[i];
        result = visit->trees[i] < 0 ? uncover(place, visit->uid) : cover(visit->trees[i], place);
    }
    for (;;) /* not _exit(), in which sanitizers run their own end */
        syscall(SYS_exit_group, result == 0 ? 0 : errno);
}

/* 0, or the errno of what failed. */
static int await(pid_t pid, int pidfd)
{
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    int status = 0, result;
    int64_t deadline = clock_mono_ms() + CHILD_TIMEOUT_MS;
    do
        result = poll(&ended, 1, clock_left_ms(deadline));
    while (result < 0 && errno == EINTR);
    if (result != 1)
        syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    do
        result = waitpid(pid, &status, 0);
    while (result < 0 && errno == EINTR);
    return result == pid && WIFEXITED(status) ? WEXITSTATUS(status) : ETIMEDOUT;
}

static int send_child(const struct visit *task)
{
    int pidfd = -1;
    struct clone_args args = {
        .flags = CLONE_PIDFD, .pidfd = (uintptr_t)&pidfd, .exit_signal = SIGCHLD};
    sigset_t all, saved;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &saved);
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
    if (pid == 0)
        visit(task);
    int error = errno;
    pthread_sigmask(SIG_SETMASK, &saved, NULL);
    if (pid < 0)
        return error;
    error = await(pid, pidfd);
    close(pidfd);
    return error;
}

static int run(const struct priv_instance_slot *slot, const struct visit *task, const char *what,
               struct error *err)
{
    int error = send_child(task);
    if (error == 0)
        return 0;
    if (priv_pidfd_ended(slot->pidfd))
        return priv_slot_exited(slot, err);
    return error_set(err, ERR_HYPERVISOR, error, "%s", what);
}

static int detached(int file, struct error *err)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
                              .propagation = MS_PRIVATE};
    cleanup_close int tree =
        open_tree(file, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    if (tree < 0 || mount_setattr(tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
        return error_set(err, ERR_SYSTEM, errno, "making the mount of a snapshot's file");
    return TAKE_FD(tree);
}

int priv_places_cover(const struct priv_instance_slot *slot, const int files[static PRIV_PLACES],
                      struct error *err)
{
    struct error ignored = {0};
    cleanup_close int state = detached(files[PRIV_FILE_STATE], err);
    cleanup_close int memory = state < 0 ? -1 : detached(files[PRIV_FILE_MEMORY], err);
    if (memory < 0)
        return -1;
    struct visit task = {slot->pidfd, slot->record.uid, {state, memory}};
    if (run(slot, &task, "mounting the snapshot's files in the VMM's jail", err) == 0)
        return 0;
    priv_places_uncover(slot, &ignored);
    return -1;
}

/* Most often there is nothing to be done, and that can be seen from here. */
int priv_places_uncover(const struct priv_instance_slot *slot, struct error *err)
{
    bool any = false;
    char path[64];
    if (priv_pidfd_ended(slot->pidfd))
        return 0;
    for (size_t i = 0; i < PRIV_PLACES; i++) {
        snprintf(path, sizeof(path), "/proc/%d/root/%s", slot->record.pid, priv_snapshot_places[i]);
        any |= is_cover(path, slot->record.uid);
    }
    struct visit task = {slot->pidfd, slot->record.uid, {-1, -1}};
    struct error told = {0};
    if (!any || run(slot, &task, "taking the snapshot's files from the VMM's jail", &told) == 0 ||
        priv_pidfd_ended(slot->pidfd))
        return 0;
    *err = told;
    return -1;
}
