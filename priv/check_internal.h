/* The report on a VM's guards: what check.c lists and the other check_*.c look at. */
#ifndef MOTTE_PRIV_CHECK_INTERNAL_H
#define MOTTE_PRIV_CHECK_INTERNAL_H

#include "priv/internal.h"

enum { PRIV_CHECK_TEXT_MAX = 8192 }; /* of a /proc file about one thread or process */

/* check_threads.c: of every thread. The value counts threads, that of the uid is the uid. */
enum priv_thread_guard {
    PRIV_THREAD_SECCOMP,
    PRIV_THREAD_NO_NEW_PRIVS,
    PRIV_THREAD_CAPABILITIES,
    PRIV_THREAD_UID,
    PRIV_THREAD_GUARDS,
};

struct priv_thread_verdict {
    struct error err; /* about the first thread that is not right */
    bool absent;
};

/* What VMs have mounted read-only. */
enum priv_mounted {
    PRIV_MOUNTED_DISK,
    PRIV_MOUNTED_KERNEL,
    PRIV_MOUNTED_INITRD,
    PRIV_MOUNTED_PLACE_STATE,
    PRIV_MOUNTED_PLACE_MEMORY,
    PRIV_MOUNTED_RESTORE_STATE,
    PRIV_MOUNTED_RESTORE_MEMORY,
    PRIV_MOUNTED,
};

/* Of mounts on each other the last is seen. Each 1 read-only, 0 writable, -1 absent. */
struct priv_mount_state {
    int first, last;
};

/* One look at one VM, for one line or for all of them. Whatever several lines are about is read
 * once, when the first of them asks. */
struct priv_look {
    struct priv_server *server;
    const struct priv_instance_slot *slot;
    bool values; /* wanted; CHECK needs none */
    bool firewall_read, threads_read, limits_read, mounts_read;
    struct error firewall;
    struct priv_thread_verdict threads[PRIV_THREAD_GUARDS];
    int thread_count;
    char limits[PRIV_CHECK_TEXT_MAX];
    struct error mounts;
    struct priv_mount_state mounted[PRIV_MOUNTED];
};

/* 0: ok, or not applicable when ret->state says so. -1: ret->state may be set to absent, else the
 * line is wrong. `what` is the table's. */
typedef int priv_line_look(struct priv_look *look, int what, struct priv_line *ret,
                           struct error *err);

/* `what` is an enum priv_thread_guard. */
priv_line_look priv_line_threads;

/* check_process.c: `what` is one of these. The value is the namespace's inode. */
enum priv_namespace { PRIV_NS_NET, PRIV_NS_MNT, PRIV_NS_PID, PRIV_NS_IPC, PRIV_NS_UTS };
priv_line_look priv_line_namespace;
/* `what` is an enum priv_rlimit; the value is the limit, but for core dumps. */
priv_line_look priv_line_rlimit;

/* check_files.c */
priv_line_look priv_line_image_readonly, priv_line_kernel_readonly, priv_line_image_digest,
    priv_line_snapshot_readonly, priv_line_snapshot_digest;

/* check_host.c: the guards around the VMM. `what` is an enum priv_limit, whose value is the usage,
 * or 1 for IPv6. */
priv_line_look priv_line_cgroup_member, priv_line_cgroup_limit, priv_line_cgroup_io,
    priv_line_firewall;

static inline void priv_line_value(struct priv_line *line, int64_t value)
{
    line->has_value = 1;
    line->value = value;
}

#endif
