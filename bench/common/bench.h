/* What the benchmarks share: a clock, a median, a network of their own, HTTP over a Unix socket.
 * Each of these ends the program when it cannot go on: half a measurement is none. */
#ifndef BENCH_COMMON_BENCH_H
#define BENCH_COMMON_BENCH_H

#include "base/base.h"

/* Tells what failed, with errno, and ends the program. */
void bench_must(bool ok, const char *what);

double bench_now_ns(void);
double bench_median(double *samples, size_t count); /* sorts them */

/* Enters a fresh network namespace with `lo` up; ends the program if it cannot, since nothing here
 * may touch the host's firewall. */
void bench_own_network(void);

enum { BENCH_LINE_MAX = 512, BENCH_HTTP_MAX = 65536 };

/* The next line of the standard input without its end; false when there is no more. */
bool bench_command(char line[static BENCH_LINE_MAX]);

/* ---- HTTP/1.1, one request at a time, connections kept ---------------------------------------- */

struct bench_http {
    int fd;
    size_t len;
    char text[BENCH_HTTP_MAX]; /* the last answer, headers first; ends in NUL */
};

/* A stream socket connected to `path`; waits until somebody listens there, up to 5 s. */
int bench_connect(const char *path);
/* Connects. The caller closes http->fd. */
void bench_http_open(struct bench_http *http, const char *path);
/* Sends a request (body: JSON, or NULL) and reads the answer whole. Returns its status. */
int bench_http_call(struct bench_http *http, const char *method, const char *target,
                    const char *body);

#endif
