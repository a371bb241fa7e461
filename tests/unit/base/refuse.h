/*
 * Calls that this host would not refuse: those that a test names fail, in the thread that says so
 * and in nobody else's. Only calls from the program's own objects and Motte's libraries pass through
 * here (the linker's --wrap; link with test_refuse), not those from inside shared libraries.
 */
#ifndef MOTTE_TEST_REFUSE_H
#define MOTTE_TEST_REFUSE_H

enum refusable {
    REFUSE_CALLOC,
    REFUSE_REALLOC,
    REFUSE_REALLOCARRAY,
    REFUSE_PTHREAD_CREATE,
    REFUSE_PTHREAD_COND_WAIT, /* only `meanwhile`, with the lock held */
    REFUSE_EVENTFD,
    REFUSE_EPOLL_CREATE1,
    REFUSE_EPOLL_CTL,
    REFUSE_OPENAT,
    REFUSE_STAT,
    REFUSE_FDOPENDIR,
    REFUSE_READDIR,
    REFUSE_GETRANDOM,
    REFUSE_POLL,
    REFUSE_SYSCALL,
    REFUSABLE
};

struct refusal {
    const char *path; /* openat, stat: only where the path ends so; NULL: any */
    long number;      /* syscall: only this one */
    unsigned after;   /* that many calls go through first */
    unsigned times;   /* then so many fail */
    int sys;          /* with this errno; poll with 0: nothing came in time */
    /* Called once, before the first call after `after`. */
    void (*meanwhile)(void *context);
    void *context;
};

/* In the place of what was said for that call before. */
void refuse(enum refusable call, struct refusal refusal);
void refuse_nothing(void);
/* How often it was refused since. */
unsigned refused(enum refusable call);

#endif
