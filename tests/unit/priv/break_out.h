/*
 * A VMM that its guest took over, as a test can have one: a process of the test's own, put into a
 * real VMM's namespaces under its uid, without a capability and without its seccomp filter.
 */
#ifndef MOTTE_TESTS_PRIV_BREAK_OUT_H
#define MOTTE_TESTS_PRIV_BREAK_OUT_H

#include "bench.h"

enum break_out_place {
    BREAK_OUT_JAIL, /* all of the VMM's namespaces; its root is the jail */
    BREAK_OUT_HOST, /* the test's own: it has left them all */
};

struct break_out {
    const struct bench_vm *vm;
    enum break_out_place place;
    /* Both may be NULL; `first` runs in the place before the change of uid. Their results are exit
     * codes, 0 … 125; another than 0 from `first` ends it. */
    int (*first)(void *context);
    int (*then)(void *context);
    void *context;
};

/* The process; it is killed with the test. */
pid_t break_out_start(const struct break_out *how);
/* Waits: the exit code, or 128 + the signal that ended it. 126: the place could not be entered. */
int break_out_end(pid_t pid);
int break_out(const struct break_out *how);

#endif
