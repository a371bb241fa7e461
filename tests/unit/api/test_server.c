/* The glue: workers, suspended connections, early answers, stopping (R03). */
#include "tests/unit/api/fake.h"

#include <criterion/criterion.h>
#include <dirent.h>

#define GET(target) "GET " target " HTTP/1.1\r\nHost: x\r\n\r\n"

static struct fake fake; /* criterion: one process a test */

static void start(void)
{
    cr_assert(fake_start(&fake, (struct server_options){0}));
}

static void stop(void)
{
    cr_assert_eq(fake_stop(&fake), 0);
}

static void expect(const char *text, unsigned status, const char *part)
{
    struct http_answer answer cleanup(http_release) = http_ask(fake.path, text);
    cr_assert_eq(answer.status, status, "%s → %u: %s", text, answer.status, answer.body);
    cr_assert(strstr(answer.body, part) != NULL, "%s → %s", text, answer.body);
}

TestSuite(server, .init = start, .fini = stop, .timeout = 120);

Test(server, answers_through_a_worker)
{
    expect(GET("/fast"), 200, "\"caller\":");
    expect(GET("/vms/a-1"), 200, "\"id\":\"a-1\"");
    expect("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
           "Content-Length: 4\r\n\r\nbody",
           200, "body");
    expect("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json; charset=utf-8\r\n"
           "Transfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n",
           200, "body");
}

Test(server, R03_slow_handlers_do_not_delay_fast_ones)
{
    int slow[32];
    for (size_t i = 0; i < COUNT_OF(slow); i++) {
        slow[i] = http_connect_unix(fake.path);
        cr_assert(http_send(slow[i], GET("/slow")));
    }
    cr_assert(fake_wait_inside(&fake, COUNT_OF(slow)));
    for (int i = 0; i < 100; i++)
        expect(GET("/fast"), 200, "caller");
    expect(GET("/healthz"), 200, "ok");
    fake_open(&fake);
    for (size_t i = 0; i < COUNT_OF(slow); i++) {
        struct http_answer answer cleanup(http_release) = http_read(slow[i]);
        cr_assert_eq(answer.status, 200);
        cr_assert_str_eq(answer.body, "through");
        close(slow[i]);
    }
}

Test(server, a_connection_serves_one_request_after_another)
{
    cleanup_close int fd = http_connect_unix(fake.path);
    for (int i = 0; i < 50; i++) {
        cr_assert(http_send(fd, GET("/fast")));
        struct http_answer answer cleanup(http_release) = http_read(fd);
        cr_assert_eq(answer.status, 200, "request %d", i);
    }
}

Test(server, pipelined_requests_are_answered_in_order)
{
    cleanup_close int fd = http_connect_unix(fake.path);
    cr_assert(http_send(fd, GET("/vms/one") GET("/vms/two") GET("/healthz")));
    static const char *const parts[] = {"one", "two", "ok"};
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        struct http_answer answer cleanup(http_release) = http_read(fd);
        cr_assert_eq(answer.status, 200);
        cr_assert(strstr(answer.body, parts[i]) != NULL, "%s", answer.body);
    }
}

Test(server, a_client_that_goes_away_does_no_harm)
{
    for (int i = 0; i < 16; i++) {
        int fd = http_connect_unix(fake.path);
        cr_assert(http_send(fd, GET("/slow")));
        cr_assert(fake_wait_inside(&fake, (unsigned)i + 1));
        close(fd);
    }
    fake_open(&fake);
    cr_assert(fake_wait_finished(&fake, 16));
    expect(GET("/fast"), 200, "caller");
}

Test(server, work_after_the_answer_does_not_delay_it)
{
    expect(GET("/later"), 200, "first");
    cr_assert(fake_wait_inside(&fake, 1));
    fake_open(&fake);
    cr_assert(fake_wait_finished(&fake, 1));
}

Test(server, every_answer_names_its_request)
{
    static const char *const asks[] = {GET("/fast"), GET("/nothing"), GET("/vms/.a"),
                                       GET("/healthz"), "PUT /fast HTTP/1.1\r\nHost: x\r\n\r\n"};
    char last[64] = "";
    for (size_t i = 0; i < COUNT_OF(asks); i++) {
        char id[64];
        struct http_answer answer cleanup(http_release) = http_ask(fake.path, asks[i]);
        http_header(&answer, "X-Request-Id", id, sizeof(id));
        cr_assert_eq(strlen(id), 16);
        cr_assert_str_neq(id, last);
        if (answer.status >= 400)
            cr_assert(strstr(answer.body, id) != NULL, "%s", answer.body);
        snprintf(last, sizeof(last), "%s", id);
    }
}

/* ---- stopping ---- */

TestSuite(server_stop, .timeout = 120);

Test(server_stop, lets_what_runs_end)
{
    cr_assert(fake_start(&fake, (struct server_options){0}));
    cleanup_close int fd = http_connect_unix(fake.path);
    cr_assert(http_send(fd, GET("/slow")));
    cr_assert(fake_wait_inside(&fake, 1));
    cr_assert_eq(fake_stop(&fake), 0);
    struct http_answer answer cleanup(http_release) = http_read(fd);
    cr_assert_eq(answer.status, 200);
    cr_assert_lt(http_connect_unix(fake.path), 0);
}

Test(server_stop, answers_what_does_not_end_and_says_so)
{
    cr_assert(fake_start(&fake, (struct server_options){0}));
    cleanup_close int fd = http_connect_unix(fake.path), held = http_connect_unix(fake.path);
    cr_assert(http_send(fd, GET("/slow")));
    cr_assert(http_send(held, GET("/held")));
    cr_assert(fake_wait_inside(&fake, 2));
    int64_t begin = clock_mono_ms();
    cr_assert_eq(server_stop(fake.server, 300), 2);
    cr_assert_lt(clock_mono_ms() - begin, 10000);
    unlink(fake.path);
    struct http_answer answer cleanup(http_release) = http_read(fd);
    cr_assert_eq(answer.status, 503);
    cr_assert(strstr(answer.body, "shutting_down") != NULL, "%s", answer.body);
}

/* ---- full pools ---- */

TestSuite(server_pools, .timeout = 120);

Test(server_pools, R03_what_is_known_waits_for_no_worker)
{
    struct server_options options = {.pools = {[API_POOL_FAST] = {1, 1, false}}};
    cr_assert(fake_start(&fake, options));
    cleanup_close int running = http_connect_unix(fake.path);
    cr_assert(http_send(running, GET("/perhaps?other")));
    cr_assert(fake_wait_inside(&fake, 1));
    for (int i = 0; i < 3; i++)
        expect(GET("/perhaps?known"), 200, "known");
    fake_open(&fake);
    struct http_answer answer cleanup(http_release) = http_read(running);
    cr_assert_eq(answer.status, 200);
    cr_assert_str_eq(answer.body, "through");
    cr_assert_eq(fake_stop(&fake), 0);
}

Test(server_pools, R03_what_is_known_needs_a_caller_too)
{
    cr_assert(fake_start(&fake, (struct server_options){0}));
    cleanup_close int fd = http_connect_tcp(fake.port);
    cr_assert(http_send(fd, GET("/perhaps?known")));
    struct http_answer answer cleanup(http_release) = http_read(fd);
    cr_assert_eq(answer.status, 401);
    cr_assert_eq(fake_stop(&fake), 0);
}

Test(server_pools, R03_when_full_new_requests_are_refused_at_once)
{
    struct server_options options = {.pools = {[API_POOL_LIFE] = {1, 1, false}}};
    cr_assert(fake_start(&fake, options));
    cleanup_close int running = http_connect_unix(fake.path), queued = http_connect_unix(fake.path);
    cr_assert(http_send(running, GET("/slow")));
    cr_assert(fake_wait_inside(&fake, 1));
    cr_assert(http_send(queued, GET("/slow")));
    /* The queued request is taken by the same thread before the next one is read. */
    struct http_answer answer cleanup(http_release) = http_ask(fake.path, GET("/slow"));
    cr_assert_eq(answer.status, 503);
    cr_assert(strstr(answer.body, "\"busy\"") != NULL);
    char retry[16];
    http_header(&answer, "Retry-After", retry, sizeof(retry));
    cr_assert_str_eq(retry, "1");
    expect(GET("/fast"), 200, "caller"); /* other pools are not concerned */
    fake_open(&fake);
    struct http_answer first cleanup(http_release) = http_read(running);
    struct http_answer second cleanup(http_release) = http_read(queued);
    cr_assert_eq(first.status, 200);
    cr_assert_eq(second.status, 200);
    cr_assert_eq(fake_stop(&fake), 0);
}

static int send_held(int fd, const char *token)
{
    char text[160];
    snprintf(text, sizeof(text), "GET /held HTTP/1.1\r\nHost: x\r\n%s\r\n", token);
    cr_assert(fd >= 0 && http_send(fd, text));
    return fd;
}

#define BEARER "Authorization: Bearer " FAKE_TOKEN "\r\n"

/* Of four workers and four places in the queue, one owner has two each. */
Test(server_pools, R03_one_owner_takes_no_more_than_his_share)
{
    enum { MOST = 4, SHARE = 2, HIS = 2 * SHARE, OTHERS = 1 };
    struct server_options options = {.pools = {[API_POOL_EXEC] = {MOST, MOST, true}}};
    int fds[HIS + OTHERS];
    cr_assert(fake_start(&fake, options));
    for (int i = 0; i < HIS; i++)
        fds[i] = send_held(http_connect_unix(fake.path), "");
    cr_assert(fake_wait_inside(&fake, SHARE));
    struct http_answer refused cleanup(http_release) = http_ask(fake.path, GET("/held"));
    cr_assert_eq(refused.status, 503);
    cr_assert(strstr(refused.body, "of yours") != NULL, "%s", refused.body);
    fds[HIS] = send_held(http_connect_tcp(fake.port), BEARER);
    cr_assert(fake_wait_inside(&fake, SHARE + OTHERS), "another's goes past those that wait");
    cr_assert_eq(fake.inside, SHARE + OTHERS);
    fake_open(&fake);
    for (int i = 0; i < HIS + OTHERS; i++) {
        struct http_answer answer cleanup(http_release) = http_read(fds[i]);
        cr_assert_eq(answer.status, 200);
        close(fds[i]);
    }
    cr_assert_eq(fake_stop(&fake), 0);
}

static unsigned threads(void)
{
    DIR *dir = opendir("/proc/self/task");
    unsigned count = 0;
    while (dir != NULL && readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

Test(server_pools, there_are_as_many_threads_as_were_ever_busy_at_once)
{
    enum { IN_A_ROW = 40, AT_ONCE = 5, HARDLY = 3 };
    cr_assert(fake_start(&fake, (struct server_options){0}));
    unsigned before = threads();
    for (int i = 0; i < IN_A_ROW; i++)
        expect(GET("/fast"), 200, "caller");
    /* One that has answered may not wait yet when the next request comes. */
    cr_assert_leq(threads(), before + HARDLY);
    before = threads();
    int slow[AT_ONCE];
    for (int i = 0; i < AT_ONCE; i++) {
        slow[i] = http_connect_unix(fake.path);
        cr_assert(http_send(slow[i], GET("/slow")));
    }
    cr_assert(fake_wait_inside(&fake, AT_ONCE));
    cr_assert_eq(threads(), before + AT_ONCE);
    fake_open(&fake);
    for (int i = 0; i < AT_ONCE; i++) {
        struct http_answer answer cleanup(http_release) = http_read(slow[i]);
        cr_assert_eq(answer.status, 200);
        close(slow[i]);
    }
    cr_assert_eq(fake_stop(&fake), 0);
}
