/* GET /metrics: Prometheus text format 0.0.4. */
#include "server/metrics.h"

#include <dirent.h>
#include <fcntl.h>

/* Writes until memory or the ceiling ends; `failed` is looked at once, at the end. */
struct text {
    struct buf *buf;
    bool failed;
};

#define PUT(text, ...) ((text)->failed = buf_printf((text)->buf, __VA_ARGS__) < 0 || (text)->failed)

static void family(struct text *text, const char *name, const char *type, const char *help)
{
    PUT(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static unsigned long long load(const atomic_uint_fast64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* `labels`: "" or `step="guard",`: in front of `le`. */
static void histogram(struct text *text, const char *name, const char *labels,
                      const struct server_histogram *values)
{
    unsigned long long total = 0;
    for (size_t i = 0; i < METRICS_BUCKETS; i++) {
        total += load(&values->buckets[i]);
        PUT(text, "%s_bucket{%sle=\"%g\"} %llu\n", name, labels, server_metrics_bounds[i], total);
    }
    total += load(&values->buckets[METRICS_BUCKETS]);
    PUT(text, "%s_bucket{%sle=\"+Inf\"} %llu\n", name, labels, total);
    int len = (int)strlen(labels); /* less its comma */
    const char *open = len > 0 ? "{" : "", *close = len > 0 ? "}" : "";
    PUT(text, "%s_sum%s%.*s%s %.6f\n", name, open, len > 0 ? len - 1 : 0, labels, close,
        (double)load(&values->sum_us) / 1e6);
    PUT(text, "%s_count%s%.*s%s %llu\n", name, open, len > 0 ? len - 1 : 0, labels, close, total);
}

/* ---- spawns, execs, ends ---- */

static void put_spawns(struct text *text, const struct server_metrics *metrics)
{
    family(text, "motte_spawns_total", "counter", "Spawns tried, failed ones included.");
    PUT(text, "motte_spawns_total %llu\n", load(&metrics->spawns));
    family(text, "motte_spawn_failures_total", "counter",
           "Spawns that failed, by the step that failed and the error's code.");
    for (size_t step = 0; step < METRICS_STEPS; step++)
        for (int code = 0; code < ERR_COUNT; code++) {
            unsigned long long value = load(&metrics->spawn_failures[step][code]);
            if (value > 0)
                PUT(text, "motte_spawn_failures_total{step=\"%s\",code=\"%s\"} %llu\n",
                    server_metrics_steps[step], error_code_name((enum error_code)code), value);
        }
    family(text, "motte_spawn_duration_seconds", "histogram",
           "From request to running, or to all undone.");
    histogram(text, "motte_spawn_duration_seconds", "", &metrics->spawn);
    family(text, "motte_spawn_step_duration_seconds", "histogram", "Duration of each spawn step.");
    for (size_t step = 0; step + 1 < METRICS_STEPS; step++) {
        char labels[64];
        snprintf(labels, sizeof(labels), "step=\"%s\",", server_metrics_steps[step]);
        histogram(text, "motte_spawn_step_duration_seconds", labels, &metrics->steps[step]);
    }
}

static void put_execs(struct text *text, const struct server_metrics *metrics)
{
    family(text, "motte_execs_total", "counter", "Commands tried, failed ones included.");
    PUT(text, "motte_execs_total %llu\n", load(&metrics->execs));
    family(text, "motte_exec_failures_total", "counter",
           "Commands without a result, by the error's code; an exit code is no failure.");
    for (int code = 0; code < ERR_COUNT; code++) {
        unsigned long long value = load(&metrics->exec_failures[code]);
        if (value > 0)
            PUT(text, "motte_exec_failures_total{code=\"%s\"} %llu\n",
                error_code_name((enum error_code)code), value);
    }
    family(text, "motte_exec_duration_seconds", "histogram", "Duration of commands.");
    histogram(text, "motte_exec_duration_seconds", "", &metrics->exec);
    family(text, "motte_vm_ends_total", "counter", "VMs that ended, by reason.");
    for (size_t reason = 0; reason < METRICS_REASONS; reason++)
        PUT(text, "motte_vm_ends_total{reason=\"%s\"} %llu\n", server_metrics_reasons[reason],
            load(&metrics->ends[reason]));
}

static void put_unresponsive(struct text *text, const struct server_metrics *metrics)
{
    family(text, "motte_unresponsive_total", "counter",
           "Times that a VMM, which is then killed, or a guest's agent was found not to answer.");
    PUT(text, "motte_unresponsive_total{what=\"vmm\"} %llu\n", load(&metrics->unresponsive_vmms));
    PUT(text, "motte_unresponsive_total{what=\"agent\"} %llu\n",
        load(&metrics->unresponsive_agents));
}

static void put_image_snapshots(struct text *text, const struct server_metrics *metrics)
{
    static const struct {
        enum vmm_image_event event;
        const char *name, *result;
    } series[] = {
        {VMM_IMAGE_RESTORED, "spawns", "restored"}, {VMM_IMAGE_MISSING, "spawns", "missing"},
        {VMM_IMAGE_REFUSED, "spawns", "refused"},   {VMM_IMAGE_FAILED, "spawns", "failed"},
        {VMM_IMAGE_BUILT, "builds", "built"},       {VMM_IMAGE_NOT_BUILT, "builds", "failed"},
        {VMM_IMAGE_PUT_OFF, "builds", "put_off"},
    };
    family(text, "motte_image_snapshot_spawns_total", "counter",
           "Spawns that a snapshot of their image could serve; all but the restored booted, and "
           "failed ones that nobody waited for ended.");
    for (size_t i = 0; i < COUNT_OF(series); i++) {
        if (i > 0 && strcmp(series[i].name, series[i - 1].name) != 0)
            family(text, "motte_image_snapshot_builds_total", "counter",
                   "Snapshots of images that were to be built; put_off: no room, or a caller "
                   "needed it.");
        PUT(text, "motte_image_snapshot_%s_total{result=\"%s\"} %llu\n", series[i].name,
            series[i].result, load(&metrics->image_snapshots[series[i].event]));
    }
}

static void put_isolation(struct text *text, const struct server_metrics *metrics)
{
    family(text, "motte_isolation_failures_total", "counter",
           "Guards that a spawn's check or an isolation report found wrong or absent, by line.");
    for (size_t line = 0; line < METRICS_LINES; line++)
        PUT(text, "motte_isolation_failures_total{line=\"%s\"} %llu\n", server_metrics_lines[line],
            load(&metrics->isolation_failures[line]));
}

static void put_violations(struct text *text, const struct server_metrics *metrics)
{
    family(text, "motte_seccomp_violations_total", "counter",
           "System calls of VMMs that their seccomp filters blocked, by name; other: not known.");
    for (int number = 0; number < METRICS_SYSCALLS - 1; number++) {
        unsigned long long value = load(&metrics->violations[number]);
        char name[VMM_SYSCALL_NAME_SIZE];
        if (value > 0 && vmm_syscall_name(number, name))
            PUT(text, "motte_seccomp_violations_total{syscall=\"%s\"} %llu\n", name, value);
    }
    PUT(text, "motte_seccomp_violations_total{syscall=\"other\"} %llu\n",
        load(&metrics->violations[METRICS_SYSCALLS - 1]));
    family(text, "motte_audit_lost_total", "counter",
           "Entries of VMs' audits that could not be written.");
    PUT(text, "motte_audit_lost_total %llu\n", load(&metrics->audit_lost));
}

/* ---- requests ---- */

static void put_statuses(struct text *text, const struct server_metrics *metrics, size_t i,
                         const char *path, const char *method)
{
    for (unsigned status = 0; status < METRICS_STATUSES; status++) {
        unsigned long long value = load(&metrics->statuses[i][status]);
        if (value > 0)
            PUT(text, "motte_http_requests_total{route=\"%s\",method=\"%s\",status=\"%u\"} %llu\n",
                path, method, status, value);
    }
}

static void put_requests(struct text *text, const struct server_metrics *metrics)
{
    family(text, "motte_http_requests_total", "counter",
           "Requests answered, by route, method and status; route \"none\": none matched.");
    for (size_t i = 0; i < metrics->route_count; i++)
        put_statuses(text, metrics, i, metrics->routes[i].path, metrics->routes[i].method);
    put_statuses(text, metrics, METRICS_ROUTES - 1, "none", "any");
    family(text, "motte_http_streams", "gauge", "Answers that come as they arise, open now.");
    PUT(text, "motte_http_streams %d\n",
        atomic_load_explicit(&metrics->streams, memory_order_relaxed));
    family(text, "motte_http_request_duration_seconds", "histogram",
           "From request line to the last byte of the answer; of a stream to its first.");
    for (size_t i = 0; i < metrics->route_count; i++) {
        char labels[128];
        snprintf(labels, sizeof(labels), "route=\"%s\",method=\"%s\",", metrics->routes[i].path,
                 metrics->routes[i].method);
        histogram(text, "motte_http_request_duration_seconds", labels, &metrics->requests[i]);
    }
    histogram(text, "motte_http_request_duration_seconds", "route=\"none\",method=\"any\",",
              &metrics->requests[METRICS_ROUTES - 1]);
}

/* ---- gauges ---- */

static uint64_t own_rss(void)
{
    char stat[128];
    if (fs_read_at(AT_FDCWD, "/proc/self/statm", stat, sizeof(stat)) < 0)
        return 0;
    const char *resident = stat + strcspn(stat, " "); /* the second number, in pages */
    return strtoull(resident, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static unsigned own_fds(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/fd");
    if (dir == NULL)
        return 0;
    for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir))
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count > 0 ? count - 1 : 0; /* less the directory's own */
}

static int put_vms(struct text *text, struct store *store, struct error *err)
{
    struct store_totals totals = {0};
    struct store_cordon cordon;
    uint64_t entries = 0;
    if (store == NULL)
        return 0;
    if (store_totals(store, &totals, err) < 0 || store_audit_size(store, &entries, err) < 0 ||
        store_cordon_get(store, &cordon, err) < 0)
        return -1;
    family(text, "motte_cordoned", "gauge", "1: an administrator lets no new VM start.");
    PUT(text, "motte_cordoned %d\n", cordon.set);
    family(text, "motte_audit_entries", "gauge", "Entries kept of all VMs' audits.");
    PUT(text, "motte_audit_entries %llu\n", (unsigned long long)entries);
    family(text, "motte_vms", "gauge", "Callers' VMs that have not ended, by state.");
    for (int state = STORE_CREATING; state < STORE_FAILED; state++)
        PUT(text, "motte_vms{state=\"%s\"} %llu\n", store_state_name((enum store_state)state),
            (unsigned long long)totals.by_state[state]);
    return 0;
}

static int put_calls(struct text *text, const struct server_metrics_sources *from,
                     struct error *err)
{
    uint64_t entries = 0;
    if (from->store == NULL || from->calls == NULL)
        return 0;
    if (store_calls_size(from->store, &entries, err) < 0)
        return -1;
    family(text, "motte_call_audit_entries", "gauge", "Entries kept of the audit of calls.");
    PUT(text, "motte_call_audit_entries %llu\n", (unsigned long long)entries);
    family(
        text, "motte_call_audit_lost_total", "counter",
        "Entries of the audit of calls that were not written: too many, or the inventory failed.");
    PUT(text, "motte_call_audit_lost_total %llu\n",
        (unsigned long long)api_calls_lost(from->calls));
    return 0;
}

static void put_guards(struct text *text, uint32_t without)
{
    static const struct {
        enum priv_guard bit;
        const char *name;
    } guards[] = {{PRIV_GUARD_FIREWALL, "firewall"},
                  {PRIV_GUARD_CGROUP, "cgroup"},
                  {PRIV_GUARD_SECCOMP, "seccomp"}};
    family(text, "motte_guards_missing", "gauge", "1: the operator started without this guard.");
    for (size_t i = 0; i < COUNT_OF(guards); i++)
        PUT(text, "motte_guards_missing{guard=\"%s\"} %d\n", guards[i].name,
            (without & guards[i].bit) != 0);
}

static void put_process(struct text *text, struct vmm *vmm)
{
    struct priv_host host = {0};
    if (vmm != NULL)
        vmm_host(vmm, &host);
    family(text, "motte_process_resident_memory_bytes", "gauge",
           "Resident memory of each half of the service.");
    PUT(text, "motte_process_resident_memory_bytes{half=\"front\"} %llu\n",
        (unsigned long long)own_rss());
    if (vmm != NULL)
        PUT(text, "motte_process_resident_memory_bytes{half=\"root\"} %llu\n",
            (unsigned long long)host.rss_bytes);
    family(text, "motte_process_open_fds", "gauge", "Open descriptors of each half.");
    PUT(text, "motte_process_open_fds{half=\"front\"} %u\n", own_fds());
    if (vmm != NULL) {
        PUT(text, "motte_process_open_fds{half=\"root\"} %u\n", host.fds);
        put_guards(text, host.without);
    }
    family(text, "motte_build_info", "gauge", "The version, as a label.");
    PUT(text, "motte_build_info{version=\"%s\"} 1\n", MOTTE_VERSION);
}

static void put_counter(struct text *text, const char *name, const char *help, uint64_t value)
{
    family(text, name, "counter", help);
    PUT(text, "%s %llu\n", name, (unsigned long long)value);
}

/* A VM has no network, so that a series exists only for one that was broken out of. */
static void put_drops(struct text *text, struct vmm *vmm)
{
    struct priv_drops drops[METRICS_DROPS];
    size_t count = vmm_drops(vmm, drops, COUNT_OF(drops));
    family(
        text, "motte_vm_dropped_packets_total", "counter",
        "Packets the firewall dropped of a running VM; of at most 32 VMs, and of none as long as "
        "all stay where they are.");
    for (size_t i = 0; i < count; i++)
        PUT(text, "motte_vm_dropped_packets_total{instance=\"%s\"} %llu\n", drops[i].instance,
            (unsigned long long)drops[i].packets);
}

static void put_firewall(struct text *text, struct vmm *vmm)
{
    struct priv_host host;
    vmm_host(vmm, &host);
    if (host.without & PRIV_GUARD_FIREWALL)
        return;
    family(text, "motte_firewall_in_sync", "gauge",
           "0: the rules are not as they were made, and no VM starts until they are repaired.");
    PUT(text, "motte_firewall_in_sync %u\n", host.firewall_in_sync);
    family(text, "motte_firewall_spare_chains", "gauge", "Chains made ahead for VMs to come.");
    PUT(text, "motte_firewall_spare_chains %u\n", host.firewall_spares);
    put_counter(text, "motte_firewall_drifts_total",
                "Times another program was found to have changed the firewall's tables.",
                host.firewall_drifts);
    put_counter(text, "motte_firewall_repairs_total",
                "Places in the firewall's tables that were repaired.", host.firewall_repairs);
    put_counter(text, "motte_firewall_dropped_packets_total",
                "Packets of VMs that the firewall dropped, also of VMs that are gone.",
                host.firewall_dropped);
    put_drops(text, vmm);
}

/* ---- the warm pool ---- */

static void put_pool_label(struct text *text, const char *name, const struct vmm_pool_target *of,
                           const char *result)
{
    PUT(text, "%s{image=\"%s\",vcpus=\"%u\",memory_mib=\"%u\",disk_mib=\"%u\",seccomp=\"%s\"%s}",
        name, of->image, of->vcpus, of->memory_mib, of->disk_mib, of->seccomp, result);
}

static void put_pool_family(struct text *text, const char *name, const char *help,
                            const struct vmm_pool_state *pools, size_t count, size_t offset)
{
    family(text, name, "counter", help);
    for (size_t i = 0; i < count; i++) {
        uint64_t value = 0;
        memcpy(&value, (const char *)&pools[i] + offset, sizeof(value));
        put_pool_label(text, name, &pools[i].target, "");
        PUT(text, " %llu\n", (unsigned long long)value);
    }
}

static void put_pool_claims(struct text *text, const struct vmm_pool_state *pools, size_t count)
{
    static const char name[] = "motte_pool_claims_total";
    family(text, "motte_pool_claims_total", "counter",
           "VMs asked for that a pool has, by whether one waited there.");
    for (size_t i = 0; i < count; i++) {
        put_pool_label(text, name, &pools[i].target, ",result=\"hit\"");
        PUT(text, " %llu\n", (unsigned long long)pools[i].hits);
        put_pool_label(text, name, &pools[i].target, ",result=\"miss\"");
        PUT(text, " %llu\n", (unsigned long long)pools[i].misses);
    }
}

static void put_pools(struct text *text, struct vmm *vmm)
{
    struct vmm_pool_state pools[VMM_POOLS_MAX];
    size_t count = vmm_pool_states(vmm, pools);
    family(text, "motte_pool_vms", "gauge", "VMs that wait in a pool. They are not in motte_vms.");
    for (size_t i = 0; i < count; i++) {
        put_pool_label(text, "motte_pool_vms", &pools[i].target, "");
        PUT(text, " %u\n", pools[i].waiting);
    }
    family(text, "motte_pool_target", "gauge", "How many are to wait there now.");
    for (size_t i = 0; i < count; i++) {
        put_pool_label(text, "motte_pool_target", &pools[i].target, "");
        PUT(text, " %u\n", pools[i].wanted);
    }
    put_pool_claims(text, pools, count);
    put_pool_family(text, "motte_pool_refills_total", "VMs made for a pool.", pools, count,
                    offsetof(struct vmm_pool_state, refills));
    put_pool_family(text, "motte_pool_refill_failures_total",
                    "VMs that could not be made for a pool; the log says why.", pools, count,
                    offsetof(struct vmm_pool_state, failures));
    put_pool_family(text, "motte_pool_drained_total",
                    "VMs of a pool that were ended so that a caller's had room.", pools, count,
                    offsetof(struct vmm_pool_state, drained));
}

int server_metrics_text(void *sources, struct buf *ret, struct error *err)
{
    const struct server_metrics_sources *from = sources;
    struct text text = {.buf = ret};
    put_spawns(&text, from->metrics);
    put_execs(&text, from->metrics);
    put_unresponsive(&text, from->metrics);
    put_image_snapshots(&text, from->metrics);
    put_isolation(&text, from->metrics);
    put_violations(&text, from->metrics);
    put_requests(&text, from->metrics);
    if (put_vms(&text, from->store, err) < 0 || put_calls(&text, from, err) < 0)
        return -1;
    put_process(&text, from->vmm);
    if (from->vmm != NULL) {
        put_firewall(&text, from->vmm);
        put_pools(&text, from->vmm);
    }
    return text.failed ? error_set(err, ERR_NO_MEMORY, 0, "out of memory while writing metrics")
                       : 0;
}
