/* motted itself in a test, beside a bench: the program, with the relay in the front's place. */
#ifndef MOTTE_TESTS_PRIV_DAEMON_H
#define MOTTE_TESTS_PRIV_DAEMON_H

#include "bench.h"

enum { DAEMON_ARGS = 24 };

struct daemon {
    char text[DAEMON_ARGS][300];
    char *argv[DAEMON_ARGS + 1];
    size_t argc;
    pid_t pid;
    int output; /* its stderr */
};

__attribute__((format(printf, 2, 3))) void daemon_add(struct daemon *daemon, const char *fmt, ...);
/* The arguments that make it the bench's. */
void daemon_usual(struct daemon *daemon, const struct bench *bench);
void daemon_start(struct daemon *daemon);
/* Its exit status, 256 if a signal ended it, and what it wrote. */
int daemon_wait(struct daemon *daemon, char *out, size_t size);
/* Connects as soon as somebody listens; the relay's channel, and its line. */
int daemon_connect(const struct bench *bench, char *text, size_t size);

#endif
