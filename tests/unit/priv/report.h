/* For tests of the isolation report: all its lines at once, and what differs from what they should
 * be. */
#ifndef MOTTE_TESTS_PRIV_REPORT_H
#define MOTTE_TESTS_PRIV_REPORT_H

#include "bench.h"

struct report {
    struct priv_line lines[PRIV_LINES_MAX];
    size_t count;
};

/* Asks for every line; ends the test when that fails. */
void report_read(struct bench *bench, const struct bench_vm *vm, struct report *ret);
/* NULL: there is no such line. */
const struct priv_line *report_line(const struct report *report, const char *name);
/* The names of all lines that are wrong or absent, each behind a blank: " cgroup_pids". */
const char *report_wrong(struct bench *bench, const struct bench_vm *vm, char *out, size_t size);

#endif
