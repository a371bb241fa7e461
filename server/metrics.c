/* Counting: atomics only, from any thread. Label values come from closed lists, so that neither a
 * guest nor a client can make the set grow. */
#include "server/metrics.h"

const double server_metrics_bounds[METRICS_BUCKETS] = {
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60};

const char *const server_metrics_steps[METRICS_STEPS] = {"admit", "guard", "launch", "configure",
                                                         "start", "hello", "commit", "other"};

const char *const server_metrics_reasons[METRICS_REASONS] = {
    "guest_shutdown", "guest_oom",      "guest_panic",
    "guest_reset",    "vmm_crash",      "vmm_exit",
    "seccomp",        "cgroup_oom",     "ttl",
    "idle",           "unresponsive",   "deleted",
    "host_reboot",    "daemon_restart", "spawn_admit",
    "spawn_guard",    "spawn_launch",   "spawn_configure",
    "spawn_start",    "spawn_hello",    "spawn_commit",
    "drained",        "other"};

const char *const server_metrics_lines[METRICS_LINES] = {
    "seccomp",       "no_new_privs",       "capabilities",
    "uid",           "namespace_net",      "namespace_mnt",
    "namespace_pid", "namespace_ipc",      "namespace_uts",
    "core_dumps",    "file_size",          "open_files",
    "locked_memory", "image_read_only",    "kernel_read_only",
    "image_digest",  "snapshot_read_only", "snapshot_digest",
    "cgroup_member", "cgroup_memory",      "cgroup_swap",
    "cgroup_cpu",    "cgroup_pids",        "cgroup_io",
    "firewall_ipv4", "firewall_ipv6",      "other"};

static size_t find(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i + 1 < count; i++)
        if (name != NULL && strcmp(names[i], name) == 0)
            return i;
    return count - 1; /* "other" */
}

static void count(atomic_uint_fast64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static void observe(struct server_histogram *histogram, int64_t us)
{
    size_t i = 0;
    if (us < 0)
        us = 0;
    while (i < METRICS_BUCKETS && (double)us > server_metrics_bounds[i] * 1e6)
        i++;
    count(&histogram->buckets[i]);
    atomic_fetch_add_explicit(&histogram->sum_us, (uint64_t)us, memory_order_relaxed);
}

static size_t code_of(const struct error *failed)
{
    return (unsigned)failed->code < ERR_COUNT ? (size_t)failed->code : (size_t)ERR_INTERNAL;
}

/* ---- what vmm/ reports ---- */

static void on_step(void *context, const char *step, const struct error *failed, int64_t us)
{
    struct server_metrics *metrics = context;
    (void)failed;
    observe(&metrics->steps[find(server_metrics_steps, METRICS_STEPS, step)], us);
}

static void on_spawn(void *context, const char *failed_step, const struct error *failed, int64_t us)
{
    struct server_metrics *metrics = context;
    count(&metrics->spawns);
    observe(&metrics->spawn, us);
    if (failed != NULL)
        count(&metrics->spawn_failures[find(server_metrics_steps, METRICS_STEPS, failed_step)]
                                      [code_of(failed)]);
}

static void on_exec(void *context, const struct error *failed, int64_t us)
{
    struct server_metrics *metrics = context;
    count(&metrics->execs);
    observe(&metrics->exec, us);
    if (failed != NULL)
        count(&metrics->exec_failures[code_of(failed)]);
}

static void on_ended(void *context, const char *reason)
{
    struct server_metrics *metrics = context;
    count(&metrics->ends[find(server_metrics_reasons, METRICS_REASONS, reason)]);
}

static void on_isolation(void *context, const char *line)
{
    struct server_metrics *metrics = context;
    count(&metrics->isolation_failures[find(server_metrics_lines, METRICS_LINES, line)]);
}

/* Only what is a system call has a name of its own. */
static void on_violation(void *context, int number)
{
    struct server_metrics *metrics = context;
    char name[VMM_SYSCALL_NAME_SIZE];
    bool named = number < METRICS_SYSCALLS - 1 && vmm_syscall_name(number, name);
    count(&metrics->violations[named ? number : METRICS_SYSCALLS - 1]);
}

/* What failed and was made good again: nobody else is told why. */
static void on_image_snapshot(void *context, enum vmm_image_event event, const struct error *why)
{
    static const char *const words[VMM_IMAGE_EVENTS] = {
        [VMM_IMAGE_REFUSED] = "a snapshot of an image is built anew",
        [VMM_IMAGE_FAILED] = "a VM did not come up from a snapshot of its image",
        [VMM_IMAGE_NOT_BUILT] = "no snapshot of an image could be made",
    };
    struct server_metrics *metrics = context;
    count(&metrics->image_snapshots[event]);
    if (words[event] != NULL && why != NULL)
        log_warn("%s: %s", words[event], why->msg);
}

static void on_audit_lost(void *context)
{
    struct server_metrics *metrics = context;
    count(&metrics->audit_lost);
}

static void on_unresponsive(void *context, const char *what)
{
    struct server_metrics *metrics = context;
    count(strcmp(what, "vmm") == 0 ? &metrics->unresponsive_vmms : &metrics->unresponsive_agents);
}

/* Counted by the pool. */
static void on_refill(void *context, const struct vmm_pool_target *of, const struct error *failed,
                      int64_t next_ms)
{
    (void)context;
    log_warn("pool: no VM of image %s could be made, the next try is in %lld s: %s", of->image,
             (long long)next_ms / 1000, failed->msg);
}

struct vmm_observer server_metrics_observer(struct server_metrics *metrics)
{
    return (struct vmm_observer){.context = metrics,
                                 .step = on_step,
                                 .spawn = on_spawn,
                                 .exec = on_exec,
                                 .ended = on_ended,
                                 .isolation = on_isolation,
                                 .violation = on_violation,
                                 .refill = on_refill,
                                 .image_snapshot = on_image_snapshot,
                                 .audit_lost = on_audit_lost,
                                 .unresponsive = on_unresponsive};
}

/* ---- requests ---- */

void server_metrics_request(struct server_metrics *metrics, const struct api_route *route,
                            unsigned status, int64_t us)
{
    size_t i = route != NULL ? (size_t)(route - metrics->routes) : METRICS_ROUTES - 1;
    count(&metrics->statuses[i][status < METRICS_STATUSES ? status : 0]);
    observe(&metrics->requests[i], us);
}

void server_metrics_streams(struct server_metrics *metrics, int by)
{
    atomic_fetch_add_explicit(&metrics->streams, by, memory_order_relaxed);
}

struct server_metrics *server_metrics_new(const struct api_route *routes, size_t count_of_routes)
{
    struct server_metrics *metrics =
        count_of_routes <= API_ROUTES_MAX ? calloc(1, sizeof(*metrics)) : NULL;
    if (metrics != NULL) {
        metrics->routes = routes;
        metrics->route_count = count_of_routes;
    }
    return metrics;
}

void server_metrics_free(struct server_metrics *metrics)
{
    free(metrics);
}
