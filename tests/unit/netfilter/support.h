/* What the firewall's tests share. Every test starts with support_enter. */
#ifndef TEST_NETFILTER_SUPPORT_H
#define TEST_NETFILTER_SUPPORT_H

#include "netfilter/netfilter.h"

enum { UID_BASE = 1879048192, UID_COUNT = 65536, UID_OTHER = 1000, DEADLINE_MS = 10000 };

struct support {
    char lock[64];
    struct netfilter *netfilter; /* by support_open */
};

/* A fresh network namespace with `lo` up, and a lock file that no other program knows, for us and
 * for the iptables-legacy processes the test starts. Ends the program if the namespace is not
 * fresh: no test may touch the host's firewall. */
struct support support_enter(void);
void support_leave(struct support *support);
#define cleanup_support cleanup(support_leave)

struct netfilter_config support_config(const struct support *support);
void support_open(struct support *support);
struct netfilter_vm support_vm(unsigned n); /* the same for the same n; uid UID_BASE + n */
void support_add(struct support *support, unsigned n);
uint64_t support_count(struct support *support, unsigned n);

/* Output of a shell command (malloc'ed); fails the test unless it exits with 0. */
char *support_run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void support_do(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
const char *support_iptables(bool ipv6); /* "iptables-legacy -w 5" */
/* `-S` of every table, both families (malloc'ed). */
char *support_all_rules(void);
/* Rules with their counters, without policy counters, which each commit by anyone sets to 0. Lines
 * that name `without` (NULL: none) are left out. malloc'ed. */
char *support_counted_rules(bool ipv6, const char *table, const char *without);

/* A process's exit code, after it has run `body(context)` under this uid (0: as we are). */
int support_as(uint32_t uid, int (*body)(const void *context), const void *context);
int support_wait(pid_t pid);

#endif
