/* The system calls of which a point can be made. */
#ifndef MOTTE_TESTS_KILL_CALLS_H
#define MOTTE_TESTS_KILL_CALLS_H

#include "tracer.h"

enum what {
    WHAT_PLAIN,  /* always */
    WHAT_PATH,   /* a path; `dir` is the argument that says beneath what, or NONE */
    WHAT_FD,     /* a descriptor */
    WHAT_FILE,   /* a descriptor, if it is a file or a socket: not a log, an event or a pipe */
    WHAT_OPEN,   /* a path, if it may be created */
    WHAT_CLONE,  /* a process, not a thread */
    WHAT_THREAD, /* the other */
    WHAT_TABLE,  /* a socket option, if it is the firewall's */
    WHAT_LOCK,   /* F_SETLK, if it locks: to unlock a kernel needs nothing */
    WHAT_ONE,    /* if argument `at` is `dir` */
};
enum { NONE = -1 };

struct call {
    long number;
    const char *name;
    enum what what;
    int at, dir;
    bool reads;               /* changes nothing: a point of failure, not of a kill */
    int errors[POINT_ERRORS]; /* what the kernel says of it when it fails, the likeliest first */
};

/* A call may stand in several rows: the first that fits counts. */
extern const struct call calls[];
extern const size_t call_count;

#endif
