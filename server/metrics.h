/* What is counted, and how it is written: shared by metrics.c and metrics_text.c only. */
#ifndef MOTTE_SERVER_METRICS_H
#define MOTTE_SERVER_METRICS_H

#include "server/internal.h"

enum {
    METRICS_BUCKETS = 15,
    METRICS_STEPS = 8,    /* the seven of the saga and "other" */
    METRICS_REASONS = 23, /* the last is "other" */
    METRICS_LINES = 27,   /* of the isolation report; the last is "other" */
    METRICS_DROPS = 32,   /* VMs that are named for their dropped packets */
    METRICS_STATUSES = 600,
    METRICS_SYSCALLS = 512,              /* numbers on x86_64; the last is "other" */
    METRICS_ROUTES = API_ROUTES_MAX + 1, /* the last: no route matched */
};

extern const double server_metrics_bounds[METRICS_BUCKETS]; /* seconds */
extern const char *const server_metrics_steps[METRICS_STEPS];
extern const char *const server_metrics_reasons[METRICS_REASONS];
extern const char *const server_metrics_lines[METRICS_LINES];

struct server_histogram {
    atomic_uint_fast64_t buckets[METRICS_BUCKETS + 1]; /* not cumulative; the last is +Inf */
    atomic_uint_fast64_t sum_us;
};

struct server_metrics {
    const struct api_route *routes; /* borrowed */
    size_t route_count;
    atomic_uint_fast64_t spawns, execs;
    atomic_uint_fast64_t spawn_failures[METRICS_STEPS][ERR_COUNT], exec_failures[ERR_COUNT];
    struct server_histogram spawn, steps[METRICS_STEPS], exec, requests[METRICS_ROUTES];
    atomic_uint_fast64_t ends[METRICS_REASONS], isolation_failures[METRICS_LINES];
    atomic_uint_fast64_t violations[METRICS_SYSCALLS], audit_lost;
    atomic_int streams;
    atomic_uint_fast64_t unresponsive_vmms, unresponsive_agents;
    atomic_uint_fast64_t image_snapshots[VMM_IMAGE_EVENTS];
    atomic_uint_fast64_t statuses[METRICS_ROUTES][METRICS_STATUSES];
};

#endif
