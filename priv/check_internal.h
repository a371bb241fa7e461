/* The report on a VM's guards: what check.c lists and the other check_*.c look at. */
#ifndef MOTTE_PRIV_CHECK_INTERNAL_H
#define MOTTE_PRIV_CHECK_INTERNAL_H

#include "priv/internal.h"

enum { PRIV_CHECK_TEXT_MAX = 8192 }; /* of a /proc file about one thread or process */

/* One look at one VM, for one line or for all of them. */
struct priv_look {
    struct priv_server *server;
    const struct priv_instance_slot *slot;
    bool values; /* wanted; CHECK needs none */
    /* The tables are read once a look, whichever line asks first. */
    bool firewall_read;
    struct error firewall;
};

/* 0: ok, or not applicable when ret->state says so. -1: ret->state may be set to absent, else the
 * line is wrong. `what` is the table's. */
typedef int priv_line_look(struct priv_look *look, int what, struct priv_line *ret,
                           struct error *err);

/* check_threads.c: of every thread; `what` is one of these. The value counts threads, that of the
 * uid is the uid. */
enum priv_thread_guard {
    PRIV_THREAD_SECCOMP,
    PRIV_THREAD_NO_NEW_PRIVS,
    PRIV_THREAD_CAPABILITIES,
    PRIV_THREAD_UID,
};
priv_line_look priv_line_threads;

/* check_process.c: `what` is one of these. The value is the namespace's inode. */
enum priv_namespace { PRIV_NS_NET, PRIV_NS_MNT, PRIV_NS_PID, PRIV_NS_IPC, PRIV_NS_UTS };
priv_line_look priv_line_namespace;
/* `what` is an enum priv_rlimit; the value is the limit, but for core dumps. */
priv_line_look priv_line_rlimit;

/* check_files.c */
priv_line_look priv_line_image_readonly, priv_line_kernel_readonly, priv_line_image_digest;

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
