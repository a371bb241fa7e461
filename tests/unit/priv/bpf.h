/* A classic-BPF interpreter for seccomp programs, and what tests do with one. */
#ifndef MOTTE_TESTS_PRIV_BPF_H
#define MOTTE_TESTS_PRIV_BPF_H

#include "priv/seccomp.h"
#include <linux/seccomp.h>

enum { BPF_X32 = 0x40000000 };

/* The program's verdict (SECCOMP_RET_…) on one call. Ors 1 << i into *args_read for each argument
 * it looked at; may be NULL. Fails the test on an instruction seccomp does not have. */
uint32_t bpf_run(const struct priv_bpf *bpf, const struct seccomp_data *data, unsigned *args_read);

/* Calls `check` with both verdicts for every system call 0 … 511, natively and as x32. Where either
 * program looks at arguments: for all combinations of all constants that either compares that
 * argument with, these ± 1, and these with junk in the upper half. */
struct bpf_pair {
    const struct priv_bpf *left, *right;
    void (*check)(void *context, const struct seccomp_data *data, uint32_t left, uint32_t right);
    void *context;
};
void bpf_compare(const struct bpf_pair *pair);

/* The three programs inside a firecracker binary, found by the head of their bincode map. False if
 * there are none. */
bool bpf_extract(const char *path, struct priv_bpf ret[static PRIV_THREAD_COUNT]);

#endif
