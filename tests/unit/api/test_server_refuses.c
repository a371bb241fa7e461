/* What the server refuses, when, and to whom. */
#include "tests/unit/api/fake.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

static struct fake fake; /* criterion: one process a test */

static void start(void)
{
    cr_assert(fake_start(&fake, (struct server_options){.header_ms = 600, .body_ms = 600}));
}

static void stop(void)
{
    cr_assert_eq(fake_stop(&fake), 0);
}

/* Asks on a fresh connection to the Unix listener (port 0) or a port. */
static struct http_answer ask(unsigned port, const char *text)
{
    cleanup_close int fd = port == 0 ? http_connect_unix(fake.path) : http_connect_tcp(port);
    cr_assert(fd >= 0 && http_send(fd, text));
    return http_read(fd);
}

static void expect(unsigned port, const char *text, unsigned status, const char *part)
{
    struct http_answer answer cleanup(http_release) = ask(port, text);
    cr_assert_eq(answer.status, status, "%s → %u", text, answer.status);
    cr_assert(strstr(answer.body, part) != NULL, "%s → %s", text, answer.body);
}

TestSuite(server_refuses, .init = start, .fini = stop, .timeout = 120);

/* ---- requests that can be read in two ways ---- */

Test(server_refuses, ambiguous_requests_and_closes)
{
    static const char *const bad[] = {
        "GET /vms/%61 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /vms//a HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /x/../fast HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /./fast HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://x/fast HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /fast HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        "GET /fast HTTP/1.1\r\nHost: x\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
        "0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length : 2\r\n\r\nab",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: +2\r\n\r\nab",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n 0\r\n\r\nab",
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\nab",
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /fast HTTP/1.1\r\nHost: x\r\nX(y): z\r\n\r\n",
        "GET /fast HTTP/1.1\r\nHost: x\r\nX: y\r\n z\r\n\r\n",
        "GET /fast HTTP/1.1\r\nHost: x\r\nX: y\r\n\tz\r\nY: z\r\n\r\n",
        "GET /fast HTTP/1.1\r\nHost:\r\n x\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nConte: 2\r\n nt-Length\r\n\r\nab",
        "GET /fast HTTP/1.1\nHost: x\r\n\r\n",
        "GET /fast HTTP/1.1\rHost: x\r\n\r\n",
        "GET /fast HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nX: y\rContent-Length: 2\r\n\r\nab",
        "GET /fast HTTP/1.1\r\nHost: x\r\nX: \x01\r\n\r\n",
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        cleanup_close int fd = http_connect_unix(fake.path);
        cr_assert(http_send(fd, bad[i]));
        struct http_answer answer cleanup(http_release) = http_read(fd);
        cr_assert_eq(answer.status, 400, "%s → %u", bad[i], answer.status);
        cr_assert(http_closed(fd), "%s", bad[i]);
    }
}

Test(server_refuses, R10_a_target_with_a_nul_reaches_no_handler)
{
    static const char request[] = "GET /vms/a\0b HTTP/1.1\r\nHost: x\r\n\r\n";
    cleanup_close int fd = http_connect_unix(fake.path);
    cr_assert_eq(fs_write_all(fd, request, sizeof(request) - 1), 0);
    struct http_answer answer cleanup(http_release) = http_read(fd);
    cr_assert_neq(answer.status, 200, "%s", answer.body);
}

Test(server_refuses, R10_a_header_with_a_nul)
{
    static const char in_value[] = "GET /fast HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
                      in_name[] = "GET /fast HTTP/1.1\r\nHost: x\r\nX\0: a\r\n\r\n";
    const struct {
        const char *text;
        size_t len;
    } requests[] = {{in_value, sizeof(in_value) - 1}, {in_name, sizeof(in_name) - 1}};
    for (size_t i = 0; i < COUNT_OF(requests); i++) {
        cleanup_close int fd = http_connect_unix(fake.path);
        cr_assert_eq(fs_write_all(fd, requests[i].text, requests[i].len), 0);
        struct http_answer answer cleanup(http_release) = http_read(fd);
        cr_assert(answer.status == 400 || answer.status == 0, "%zu → %u", i, answer.status);
    }
}

/* What others send and is right must pass the same eyes. */
Test(server_refuses, no_header_that_is_odd_but_right)
{
    static const char *const good[] = {
        "GET /fast HTTP/1.1\r\nHost:x\r\n\r\n",
        "GET /fast HTTP/1.1\r\nHost: x\r\nX:\r\n\r\n",
        "GET /fast HTTP/1.1\r\nHost: x\r\nX: \t y, \xe4 \t\r\nx-!#$%&'*+.^_`|~: \r\n\r\n",
        "GET /fast HTTP/1.0\r\nConnection: close\r\n\r\n",
        "GET /fast HTTP/1.1\r\nCookie: a=b; c=\"d\"\r\nHost: x\r\nX: y:z\r\n\r\n",
    };
    for (size_t i = 0; i < COUNT_OF(good); i++)
        expect(0, good[i], 200, "root");
}

Test(server_refuses, targets_that_are_too_long)
{
    char text[API_TARGET_MAX + 64];
    int at = snprintf(text, sizeof(text), "GET /");
    memset(text + at, 'a', API_TARGET_MAX);
    snprintf(text + at + API_TARGET_MAX, 32, " HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(0, text, 414, "uri_too_long");
}

/* ---- routes and methods ---- */

Test(server_refuses, unknown_routes_and_methods)
{
    char allow[32];
    expect(0, "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404, "route_not_found");
    static const char *const methods[] = {"PUT", "HEAD", "OPTIONS", "PATCH", "BREW", "get"};
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        char text[64];
        snprintf(text, sizeof(text), "%s /fast HTTP/1.1\r\nHost: x\r\n\r\n", methods[i]);
        cleanup_close int fd = http_connect_unix(fake.path);
        cr_assert(http_send(fd, text) && shutdown(fd, SHUT_WR) == 0);
        struct http_answer answer cleanup(http_release) = http_read(fd);
        http_header(&answer, "Allow", allow, sizeof(allow));
        cr_assert_eq(answer.status, 405, "%s", methods[i]);
        cr_assert_str_eq(allow, "GET", "%s", methods[i]);
    }
    struct http_answer answer cleanup(http_release) =
        ask(0, "GET /fast HTTP/1.1\r\nHost: x\r\n\r\n");
    http_header(&answer, "Allow", allow, sizeof(allow));
    cr_assert_str_eq(allow, "");
}

/* ---- bodies ---- */

Test(server_refuses, a_body_too_large_before_it_is_sent)
{
    cleanup_close int fd = http_connect_unix(fake.path);
    cr_assert(http_send(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                            "Content-Length: 1001\r\n\r\n"));
    struct http_answer answer cleanup(http_release) = http_read(fd);
    cr_assert_eq(answer.status, 413);
    cr_assert(http_closed(fd));
}

Test(server_refuses, a_chunked_body_that_grows_too_large)
{
    char text[2048], chunk[600];
    memset(chunk, 'x', sizeof(chunk));
    snprintf(text, sizeof(text),
             "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
             "Transfer-Encoding: chunked\r\n\r\n258\r\n%.600s\r\n258\r\n%.600s\r\n0\r\n\r\n",
             chunk, chunk);
    expect(0, text, 413, "body_too_large");
}

Test(server_refuses, an_endless_chunked_body_is_cut)
{
    char chunk[0x1000 + 16];
    int at = snprintf(chunk, sizeof(chunk), "1000\r\n");
    memset(chunk + at, 'x', 0x1000);
    memcpy(chunk + at + 0x1000, "\r\n", 3);
    cleanup_close int fd = http_connect_unix(fake.path);
    cr_assert(http_send(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                            "Transfer-Encoding: chunked\r\n\r\n"));
    size_t sent = 0;
    while (sent < 64 << 20 && http_send(fd, chunk))
        sent += 0x1000;
    cr_assert_lt(sent, 8 << 20, "%zu bytes were taken", sent);
}

Test(server_refuses, a_body_of_exactly_the_limit_is_taken)
{
    char text[2048], body[FAKE_ECHO_MAX + 1];
    memset(body, 'x', FAKE_ECHO_MAX);
    body[FAKE_ECHO_MAX] = '\0';
    snprintf(text, sizeof(text),
             "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
             "Content-Length: %d\r\n\r\n%s",
             FAKE_ECHO_MAX, body);
    expect(0, text, 200, body);
}

Test(server_refuses, other_media_types_and_unwanted_bodies)
{
    static const char *const types[] = {"Content-Type: text/plain\r\n", "",
                                        "Content-Type: application/jsonx\r\n",
                                        "Content-Type: application/json\r\n"
                                        "Content-Encoding: gzip\r\n"};
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        char text[256];
        snprintf(text, sizeof(text),
                 "POST /echo HTTP/1.1\r\nHost: x\r\n%sContent-Length: 2\r\n\r\n{}", types[i]);
        expect(0, text, 415, "unsupported_media_type");
    }
    expect(0, "GET /fast HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 400, "bad_request");
}

/* ---- callers ---- */

Test(server_refuses, callers_without_a_token_before_the_body)
{
    static const char *const headers[] = {
        "",
        "Authorization: Bearer\r\n",
        "Authorization: Bearer \r\n",
        "Authorization: Bearer abcdefghij0123456789KLMX\r\n",
        "Authorization: Bearer abcdefghij0123456789KLM\r\n",
        "Authorization: Bearer abcdefghij0123456789KLMN0\r\n",
        "Authorization: Basic abcdefghij0123456789KLMN\r\n",
        "Authorization: abcdefghij0123456789KLMN\r\n",
        "Authorization: Digest abcdefghij0123456789KLMN\r\n",
        "X-Caller: root\r\n",
    };
    for (size_t i = 0; i < COUNT_OF(headers); i++) {
        char text[256], challenge[64];
        snprintf(text, sizeof(text),
                 "POST /echo HTTP/1.1\r\nHost: x\r\n%sContent-Length: 900\r\n\r\n", headers[i]);
        cleanup_close int fd = http_connect_tcp(fake.port);
        cr_assert(http_send(fd, text));
        struct http_answer answer cleanup(http_release) = http_read(fd);
        http_header(&answer, "WWW-Authenticate", challenge, sizeof(challenge));
        cr_assert_eq(answer.status, 401, "%s → %u", headers[i], answer.status);
        cr_assert_eq(strncmp(challenge, "Bearer", 6), 0);
        cr_assert(http_closed(fd));
    }
}

Test(server_refuses, to_tell_strangers_which_routes_there_are)
{
    expect(fake.port, "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 401, "unauthorized");
    expect(fake.port, "PUT /fast HTTP/1.1\r\nHost: x\r\n\r\n", 401, "unauthorized");
    expect(fake.port, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200, "ok");
}

Test(server_refuses, nobody_who_has_a_token)
{
    expect(fake.port,
           "GET /fast HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " FAKE_TOKEN "\r\n\r\n", 200,
           "{\"caller\":\"alice\",\"admin\":false,\"id\":\"\"}");
    expect(fake.port,
           "GET /fast HTTP/1.1\r\nHost: x\r\nAuthorization: bearer " FAKE_TOKEN_ADMIN "\r\n\r\n",
           200, "{\"caller\":\"admin\",\"admin\":true,\"id\":\"\"}");
}

Test(server_refuses, readers_what_changes_something_before_the_body)
{
    expect(fake.port,
           "GET /fast HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " FAKE_TOKEN_READ "\r\n\r\n",
           200, "{\"caller\":\"rita\"");
    expect(fake.port,
           "POST /echo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " FAKE_TOKEN_READ
           "\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n",
           403, "needs the role `operate`");
}

Test(server_refuses, to_tell_one_tenant_of_all)
{
    expect(fake.port,
           "GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " FAKE_TOKEN "\r\n\r\n", 403,
           "all tenants");
    expect(fake.port,
           "GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " FAKE_TOKEN_ADMIN "\r\n\r\n",
           200, "metrics");
    expect(0, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 200, "metrics");
}

Test(server_refuses, on_the_metrics_listener_all_but_monitoring)
{
    expect(fake.monitoring, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 200, "metrics");
    expect(fake.monitoring, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200, "ok");
    expect(fake.monitoring, "GET /fast HTTP/1.1\r\nHost: x\r\n\r\n", 404, "route_not_found");
    expect(fake.port, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 401, "unauthorized");
}

/* Asks in a child under another uid; its exit status is 0 when the answer was as expected. */
static int ask_as(uid_t uid, const char *part)
{
    pid_t pid = fork();
    if (pid == 0) {
        if (setresuid(uid, uid, uid) < 0)
            _exit(2);
        struct http_answer answer = http_ask(fake.path, "GET /fast HTTP/1.1\r\nHost: x\r\n\r\n");
        _exit(answer.status == 200 && strstr(answer.body, part) != NULL ? 0 : 1);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

Test(server_refuses, to_believe_who_a_peer_is_but_asks_the_kernel)
{
    cr_assert_eq(getuid(), 0, "this test needs root, to be somebody else");
    chmod(fake.path, 0666);
    cr_assert_eq(ask_as(0, "{\"caller\":\"root\",\"admin\":true"), 0);
    cr_assert_eq(ask_as(12345, "{\"caller\":\"uid:12345\",\"admin\":false"), 0);
}

/* ---- slow clients ---- */

Test(server_refuses, to_wait_for_headers_that_trickle)
{
    cleanup_close int fd = http_connect_unix(fake.path);
    int64_t until = clock_mono_ms() + 15000;
    while (clock_mono_ms() < until && http_send(fd, "G"))
        poll(NULL, 0, 20);
    cr_assert_lt(clock_mono_ms(), until, "the connection stayed open");
}

Test(server_refuses, to_wait_for_a_body_that_trickles)
{
    cleanup_close int fd = http_connect_unix(fake.path);
    int64_t until = clock_mono_ms() + 15000;
    cr_assert(http_send(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                            "Content-Length: 1000\r\n\r\n"));
    while (clock_mono_ms() < until && http_send(fd, "x"))
        poll(NULL, 0, 20);
    cr_assert_lt(clock_mono_ms(), until, "the connection stayed open");
}

Test(server_refuses, to_keep_idle_connections_but_not_to_end_slow_work)
{
    cleanup_close int idle = http_connect_unix(fake.path), slow = http_connect_unix(fake.path);
    cr_assert(http_send(slow, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"));
    cr_assert(fake_wait_inside(&fake, 1));
    cr_assert(http_closed(idle)); /* its deadline was as long as the slow one's */
    fake_open(&fake);
    struct http_answer answer cleanup(http_release) = http_read(slow);
    cr_assert_eq(answer.status, 200);
}
