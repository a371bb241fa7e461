/*
 * Errors are those that this call gets from a kernel that lacks something: room (ENOSPC),
 * descriptors (EMFILE), memory (ENOMEM, ENOBUFS; EAGAIN for a process, ENOLCK for a lock), or a
 * working disk (EIO). EINTR is in one row only: no program of Motte's has a signal handler, so
 * every other call is started again by the kernel.
 */
#include "calls.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

/* A table is read by column. */
/* clang-format off */
#define CHANGES(call, what, at, dir, ...) {SYS_##call, #call, what, at, dir, false, {__VA_ARGS__}}
#define READS(call, what, at, dir, ...)   {SYS_##call, #call, what, at, dir, true, {__VA_ARGS__}}

const struct call calls[] = {
    CHANGES(mkdir, WHAT_PATH, 0, NONE, ENOSPC, ENOMEM),
    CHANGES(mkdirat, WHAT_PATH, 1, 0, ENOSPC, ENOMEM),
    CHANGES(rmdir, WHAT_PATH, 0, NONE, ENOMEM),
    CHANGES(unlink, WHAT_PATH, 0, NONE, EIO),
    CHANGES(unlinkat, WHAT_PATH, 1, 0, ENOMEM),
    CHANGES(rename, WHAT_PATH, 1, NONE, ENOSPC),
    CHANGES(renameat, WHAT_PATH, 3, 2, ENOSPC),
    CHANGES(renameat2, WHAT_PATH, 3, 2, ENOSPC),
    CHANGES(linkat, WHAT_PATH, 3, 2, ENOSPC),
    CHANGES(symlinkat, WHAT_PATH, 2, 1, ENOSPC),
    CHANGES(mknodat, WHAT_PATH, 1, 0, ENOSPC),
    CHANGES(openat, WHAT_OPEN, 1, 0, ENOSPC, EMFILE),
    CHANGES(openat2, WHAT_OPEN, 1, 0, ENOSPC, EMFILE),
    CHANGES(chmod, WHAT_PATH, 0, NONE, ENOMEM),
    CHANGES(fchmod, WHAT_FD, 0, NONE, EIO),
    CHANGES(fchmodat, WHAT_PATH, 1, 0, ENOMEM),
    CHANGES(chown, WHAT_PATH, 0, NONE, ENOMEM),
    CHANGES(fchown, WHAT_FD, 0, NONE, EIO),
    CHANGES(fchownat, WHAT_PATH, 1, 0, ENOMEM),
    CHANGES(ftruncate, WHAT_FD, 0, NONE, EIO),
    CHANGES(fallocate, WHAT_FD, 0, NONE, ENOSPC, EIO),
    CHANGES(fsync, WHAT_FD, 0, NONE, EIO, ENOSPC),
    CHANGES(fdatasync, WHAT_FD, 0, NONE, EIO, ENOSPC),
    CHANGES(write, WHAT_FILE, 0, NONE, ENOSPC, POINT_SHORT, EIO),
    CHANGES(pwrite64, WHAT_FILE, 0, NONE, ENOSPC, POINT_SHORT, EIO),
    CHANGES(writev, WHAT_FILE, 0, NONE, ENOSPC, EIO),
    CHANGES(pwritev, WHAT_FILE, 0, NONE, ENOSPC, EIO),
    CHANGES(sendmsg, WHAT_FILE, 0, NONE, ENOBUFS),
    CHANGES(sendto, WHAT_FILE, 0, NONE, ENOBUFS),
    CHANGES(mount, WHAT_PATH, 1, NONE, ENOMEM),
    CHANGES(umount2, WHAT_PATH, 0, NONE, ENOMEM),
    CHANGES(fsmount, WHAT_PLAIN, 0, NONE, EMFILE, ENOMEM),
    CHANGES(open_tree, WHAT_PATH, 1, 0, EMFILE, ENOMEM),
    CHANGES(move_mount, WHAT_PATH, 3, 2, ENOMEM),
    CHANGES(mount_setattr, WHAT_PLAIN, 0, NONE, ENOMEM),
    CHANGES(pivot_root, WHAT_PLAIN, 0, NONE, ENOMEM),
    CHANGES(setns, WHAT_PLAIN, 0, NONE, ENOMEM),
    CHANGES(unshare, WHAT_PLAIN, 0, NONE, ENOSPC, ENOMEM),
    CHANGES(clone, WHAT_CLONE, 0, NONE, EAGAIN, ENOMEM),
    CHANGES(clone3, WHAT_CLONE, 0, NONE, EAGAIN, ENOMEM),
    CHANGES(vfork, WHAT_PLAIN, 0, NONE, EAGAIN, ENOMEM),
    CHANGES(execve, WHAT_PATH, 0, NONE, ENOMEM),
    CHANGES(kill, WHAT_PLAIN, 0, NONE, 0),
    CHANGES(pidfd_send_signal, WHAT_PLAIN, 0, NONE, 0),
    CHANGES(wait4, WHAT_PLAIN, 0, NONE, 0),
    CHANGES(waitid, WHAT_PLAIN, 0, NONE, 0),
    CHANGES(bind, WHAT_PLAIN, 0, NONE, ENOSPC, ENOMEM),
    CHANGES(listen, WHAT_PLAIN, 0, NONE, 0),
    CHANGES(connect, WHAT_PLAIN, 0, NONE, ENOMEM, ECONNREFUSED),
    CHANGES(setsockopt, WHAT_TABLE, 0, NONE, ENOMEM),

    READS(mmap, WHAT_PLAIN, 0, NONE, ENOMEM),
    READS(mremap, WHAT_PLAIN, 0, NONE, ENOMEM),
    READS(openat, WHAT_PATH, 1, 0, EMFILE, ENOMEM, EIO),
    READS(openat2, WHAT_PATH, 1, 0, EMFILE, ENOMEM, EIO),
    READS(read, WHAT_FD, 0, NONE, EIO),
    READS(pread64, WHAT_FD, 0, NONE, EIO),
    READS(getdents64, WHAT_FD, 0, NONE, EIO, ENOMEM),
    READS(newfstatat, WHAT_PATH, 1, 0, ENOMEM, EIO),
    READS(readlink, WHAT_PATH, 0, NONE, ENOMEM, EIO),
    READS(readlinkat, WHAT_PATH, 1, 0, ENOMEM, EIO),
    READS(getsockopt, WHAT_TABLE, 0, NONE, ENOMEM),
    READS(recvmsg, WHAT_FILE, 0, NONE, POINT_NO_ROOM),
    READS(socket, WHAT_PLAIN, 0, NONE, EMFILE, ENOBUFS),
    READS(socketpair, WHAT_PLAIN, 0, NONE, EMFILE, ENOBUFS),
    READS(accept4, WHAT_PLAIN, 0, NONE, EMFILE, ENOMEM, ECONNABORTED),
    READS(pipe2, WHAT_PLAIN, 0, NONE, EMFILE),
    READS(dup, WHAT_PLAIN, 0, NONE, EMFILE),
    READS(fcntl, WHAT_ONE, 1, F_DUPFD_CLOEXEC, EMFILE),
    READS(fcntl, WHAT_ONE, 1, F_DUPFD, EMFILE),
    READS(fcntl, WHAT_LOCK, 2, NONE, ENOLCK, EAGAIN),
    READS(flock, WHAT_FD, 0, NONE, ENOLCK),
    READS(eventfd2, WHAT_PLAIN, 0, NONE, EMFILE, ENOMEM),
    READS(signalfd4, WHAT_PLAIN, 0, NONE, EMFILE, ENOMEM),
    READS(timerfd_create, WHAT_PLAIN, 0, NONE, EMFILE, ENOMEM),
    READS(memfd_create, WHAT_PLAIN, 0, NONE, EMFILE, ENOMEM),
    READS(epoll_create1, WHAT_PLAIN, 0, NONE, EMFILE, ENOMEM),
    READS(epoll_ctl, WHAT_ONE, 1, EPOLL_CTL_ADD, ENOSPC, ENOMEM),
    READS(epoll_wait, WHAT_PLAIN, 0, NONE, EINTR), /* by a stop and a continue, see signal(7) */
    READS(pidfd_open, WHAT_PLAIN, 0, NONE, EMFILE, ENOMEM),
    READS(pidfd_getfd, WHAT_PLAIN, 0, NONE, EMFILE),
    READS(fsopen, WHAT_PLAIN, 0, NONE, EMFILE, ENOMEM),
    READS(fsconfig, WHAT_PLAIN, 0, NONE, ENOMEM),
    READS(clone, WHAT_THREAD, 0, NONE, EAGAIN),
    READS(clone3, WHAT_THREAD, 0, NONE, EAGAIN),
    READS(setgroups, WHAT_PLAIN, 0, NONE, ENOMEM),
    READS(setresgid, WHAT_PLAIN, 0, NONE, ENOMEM),
    READS(setresuid, WHAT_PLAIN, 0, NONE, EAGAIN, ENOMEM),
    READS(capset, WHAT_PLAIN, 0, NONE, ENOMEM),
    READS(chroot, WHAT_PLAIN, 0, NONE, ENOMEM),
    READS(chdir, WHAT_PLAIN, 0, NONE, ENOMEM),
    READS(seccomp, WHAT_PLAIN, 0, NONE, ENOMEM),
    READS(landlock_create_ruleset, WHAT_PLAIN, 0, NONE, EMFILE, ENOMEM),
    READS(landlock_add_rule, WHAT_PLAIN, 0, NONE, ENOMEM),
    READS(landlock_restrict_self, WHAT_PLAIN, 0, NONE, ENOMEM),
};
/* clang-format on */
const size_t call_count = sizeof(calls) / sizeof(calls[0]);
