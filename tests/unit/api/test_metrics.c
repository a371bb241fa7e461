/* The text of GET /metrics: valid for Prometheus' own checker, and every family moves (R05). */
#include "server/internal.h"

#include "api/internal.h"

#include <criterion/criterion.h>
#include <sys/wait.h>

static struct server_metrics *metrics;
static const struct api_route *routes;

static void start(void)
{
    size_t count = 0;
    routes = api_routes(&count);
    metrics = server_metrics_new(routes, count);
    cr_assert_not_null(metrics);
}

static void stop(void)
{
    server_metrics_free(metrics);
}

TestSuite(server_metrics, .init = start, .fini = stop, .timeout = 60);

static struct buf text(void)
{
    struct server_metrics_sources sources = {.metrics = metrics};
    struct buf buf = {.max = 1 << 20};
    struct error err = {0};
    cr_assert_eq(server_metrics_text(&sources, &buf, &err), 0);
    return buf;
}

static bool has(const char *line)
{
    struct buf all cleanup(buf_release) = text();
    const char *at = strstr(all.data, line);
    return at != NULL && (at == all.data || at[-1] == '\n') && at[strlen(line)] == '\n';
}

static void move_everything(void)
{
    const struct error failed = {.code = ERR_BOOT_TIMEOUT};
    struct vmm_observer observer = server_metrics_observer(metrics);
    observer.step(observer.context, "guard", NULL, 1500);
    observer.step(observer.context, "a step nobody knows", NULL, 1500);
    observer.spawn(observer.context, NULL, NULL, 250000);
    observer.spawn(observer.context, "hello", &failed, 90000000);
    observer.exec(observer.context, NULL, 2000);
    observer.exec(observer.context, &failed, 1000);
    observer.ended(observer.context, "ttl");
    observer.isolation(observer.context, "cgroup_pids");
    observer.isolation(observer.context, "a line nobody knows");
    observer.ended(observer.context, "\"} evil{reason=\"");
    observer.violation(observer.context, 41);
    observer.violation(observer.context, -1);
    observer.violation(observer.context, 510);       /* no system call */
    observer.violation(observer.context, 999999999); /* nor this */
    observer.audit_lost(observer.context);
    server_metrics_request(metrics, &routes[0], 201, 300000);
    server_metrics_request(metrics, NULL, 404, 100);
}

Test(server_metrics, R05_every_family_moves_by_its_event)
{
    move_everything();
    static const char *const lines[] = {
        "motte_spawns_total 2",
        "motte_spawn_failures_total{step=\"hello\",code=\"boot_timeout\"} 1",
        "motte_spawn_duration_seconds_bucket{le=\"0.25\"} 1",
        "motte_spawn_duration_seconds_bucket{le=\"60\"} 1",
        "motte_spawn_duration_seconds_bucket{le=\"+Inf\"} 2",
        "motte_spawn_duration_seconds_sum 90.250000",
        "motte_spawn_duration_seconds_count 2",
        "motte_spawn_step_duration_seconds_bucket{step=\"guard\",le=\"0.001\"} 0",
        "motte_spawn_step_duration_seconds_bucket{step=\"guard\",le=\"0.0025\"} 1",
        "motte_spawn_step_duration_seconds_count{step=\"guard\"} 1",
        "motte_execs_total 2",
        "motte_exec_failures_total{code=\"boot_timeout\"} 1",
        "motte_exec_duration_seconds_count 2",
        "motte_vm_ends_total{reason=\"ttl\"} 1",
        "motte_vm_ends_total{reason=\"other\"} 1",
        "motte_isolation_failures_total{line=\"cgroup_pids\"} 1",
        "motte_isolation_failures_total{line=\"other\"} 1",
        "motte_isolation_failures_total{line=\"firewall_ipv6\"} 0",
        "motte_seccomp_violations_total{syscall=\"socket\"} 1",
        "motte_seccomp_violations_total{syscall=\"other\"} 3",
        "motte_audit_lost_total 1",
        "motte_http_requests_total{route=\"/vms\",method=\"POST\",status=\"201\"} 1",
        "motte_http_requests_total{route=\"none\",method=\"any\",status=\"404\"} 1",
        "motte_http_request_duration_seconds_count{route=\"/vms\",method=\"POST\"} 1",
        "motte_build_info{version=\"" MOTTE_VERSION "\"} 1",
    };
    for (size_t i = 0; i < COUNT_OF(lines); i++)
        cr_assert(has(lines[i]), "%s", lines[i]);
}

Test(server_metrics, a_bucket_takes_its_bound)
{
    struct vmm_observer observer = server_metrics_observer(metrics);
    observer.exec(observer.context, NULL, 1000);
    observer.exec(observer.context, NULL, 1001);
    observer.exec(observer.context, NULL, -5);
    cr_assert(has("motte_exec_duration_seconds_bucket{le=\"0.001\"} 2"));
    cr_assert(has("motte_exec_duration_seconds_bucket{le=\"0.0025\"} 3"));
}

Test(server_metrics, own_memory_and_descriptors_are_real)
{
    struct buf all cleanup(buf_release) = text();
    unsigned long long rss = 0, fds = 0;
    static const char rss_name[] = "motte_process_resident_memory_bytes{half=\"front\"} ";
    static const char fds_name[] = "motte_process_open_fds{half=\"front\"} ";
    cr_assert_eq(sscanf(strstr(all.data, rss_name) + strlen(rss_name), "%llu", &rss), 1);
    cr_assert_eq(sscanf(strstr(all.data, fds_name) + strlen(fds_name), "%llu", &fds), 1);
    cr_assert(rss > 100000 && rss < 1ULL << 40, "%llu", rss);
    cr_assert(fds >= 3 && fds < 1000, "%llu", fds);
}

Test(server_metrics, R05_prometheus_own_checker_accepts_the_text)
{
    if (access("/usr/bin/promtool", X_OK) != 0)
        cr_skip_test("promtool is missing: install the package prometheus");
    move_everything();
    struct buf all cleanup(buf_release) = text();
    FILE *checker = popen("/usr/bin/promtool check metrics 2>&1", "w");
    cr_assert_not_null(checker);
    cr_assert_eq(fwrite(all.data, 1, all.len, checker), all.len);
    int status = pclose(checker);
    cr_assert_eq(WEXITSTATUS(status), 0);
}
