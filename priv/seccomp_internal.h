/* priv/seccomp's own: the tables, and what tests need to reach beneath the public calls. */
#ifndef MOTTE_PRIV_SECCOMP_INTERNAL_H
#define MOTTE_PRIV_SECCOMP_INTERNAL_H

#include "priv/seccomp.h"

enum { PRIV_SECCOMP_ARGS_MAX = 3 };

/* `(argument & mask) == value` on the low 32 bits: the high half of a C int is whatever the
 * caller's register held, musl leaves junk there. An all-zero condition asks nothing. */
struct priv_seccomp_arg {
    unsigned index;
    uint32_t mask, value;
};

struct priv_seccomp_rule {
    int nr;
    unsigned threads;        /* bits: 1u << enum priv_seccomp_thread */
    enum priv_seccomp level; /* the lowest level that has the rule */
    uint32_t action;         /* SCMP_ACT_… */
    struct priv_seccomp_arg args[PRIV_SECCOMP_ARGS_MAX];
};

extern const struct priv_seccomp_rule priv_seccomp_firecracker_rules[];
extern const size_t priv_seccomp_firecracker_rule_count;
extern const struct priv_seccomp_rule priv_seccomp_qemu_rules[];
extern const size_t priv_seccomp_qemu_rule_count;
extern const struct priv_seccomp_rule priv_seccomp_launcher_rules[];
extern const size_t priv_seccomp_launcher_rule_count;

/* The file's bytes for three given programs, in the order of enum priv_seccomp_thread. */
int priv_seccomp_encode(const struct priv_bpf programs[static PRIV_THREAD_COUNT], uint8_t **ret,
                        size_t *ret_len, struct error *err);

#endif
