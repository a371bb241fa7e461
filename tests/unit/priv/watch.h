/*
 * What a hostile front must not be able to change, read from the kernel itself, past the server:
 * every VMM guarded, no uid shared, nothing outside Motte's names touched, nothing left at the end.
 */
#ifndef MOTTE_TESTS_PRIV_WATCH_H
#define MOTTE_TESTS_PRIV_WATCH_H

#include "bench.h"

struct watch {
    const struct bench *bench;  /* borrowed */
    struct netfilter *firewall; /* a second handle, read only */
    pid_t foreign;              /* a process in cgroups that are not ours */
    char *rules;                /* foreign firewall rules at the start */
    size_t seen;                /* VMMs looked at so far */
};

/* After bench_init: plants foreign rules, cgroups and a process. */
void watch_open(struct watch *watch, const struct bench *bench);
void watch_close(struct watch *watch);

/* All of these end the process with 1 and say why when it is not so. They may run while the server
 * works: what ends meanwhile is not looked at. */
void watch_guards(struct watch *watch);
void watch_foreign(const struct watch *watch);
/* After all instances were killed and the server was stopped. */
void watch_nothing_left(struct watch *watch);

#endif
