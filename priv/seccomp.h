/*
 * priv/seccomp: one readable table of what each VMM thread may call, compiled with libseccomp.
 * Root half, motte-admin and tests only.
 */
#ifndef MOTTE_PRIV_SECCOMP_H
#define MOTTE_PRIV_SECCOMP_H

#include "priv/messages.h"
#include <linux/filter.h>

enum priv_seccomp_thread { PRIV_THREAD_VMM, PRIV_THREAD_API, PRIV_THREAD_VCPU, PRIV_THREAD_COUNT };

struct priv_bpf {
    struct sock_filter *code; /* owned */
    size_t count;             /* 1 … 4096 */
};
void priv_bpf_release(struct priv_bpf *bpf);

/* Firecracker 1.12.1's threads. minimal = its own default, verdict for verdict; basic adds bind,
 * listen, accept, shutdown; permissive logs instead of stopping what basic does not allow. */
int priv_seccomp_firecracker(enum priv_seccomp level, enum priv_seccomp_thread thread,
                             struct priv_bpf *ret, struct error *err);
/* The three programs as Firecracker 1.12 … 1.14 read them with --seccomp-filter (bincode 2.0.1
 * map; seccomp_file.c has its layout). *ret is malloc'ed. Refuses empty programs and other
 * versions. */
int priv_seccomp_firecracker_file(enum priv_seccomp level, const char *version, uint8_t **ret,
                                  size_t *ret_len, struct error *err);
/* One program for QEMU, loaded before exec: allow-list, kill by default (log when permissive). */
int priv_seccomp_qemu(enum priv_seccomp level, struct priv_bpf *ret, struct error *err);
/* The launcher's own, inherited by every VMM: a deny-list (EPERM): bpf, ptrace, kexec, modules,
 * keyctl, perf, userfaultfd, open_by_handle_at … */
int priv_seccomp_launcher(struct priv_bpf *ret, struct error *err);
/* prctl(NO_NEW_PRIVS) is the caller's; raw seccomp(2), async-signal-safe. 0 or -1 with errno. */
int priv_seccomp_load(const struct priv_bpf *bpf);

#endif
