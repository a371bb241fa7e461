/* Bodies that a worker reads while they come. */
#include "tests/unit/api/fake.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

enum { BODY_MS = 1000, LARGE = 4 << 20, BUFFERED_MAX = 1 << 20 };

static struct fake fake; /* criterion: one process a test */
static char *bytes;

static void start(void)
{
    struct server_options options = {.body_ms = BODY_MS};
    signal(SIGPIPE, SIG_IGN); /* of connections that are cut */
    options.pools[API_POOL_FILES] = (struct server_pool_size){2, 1, false};
    cr_assert(fake_start(&fake, options));
    bytes = malloc(FAKE_UPLOAD_MAX + LARGE);
    for (size_t i = 0; i < FAKE_UPLOAD_MAX + LARGE; i++)
        bytes[i] = (char)(i % 251);
}

static void stop(void)
{
    free(bytes);
    cr_assert_eq(fake_stop(&fake), 0);
}

TestSuite(uploads, .init = start, .fini = stop, .timeout = 120);

/* What the handler says of so many. */
static void told(size_t size, char out[static 96])
{
    uint64_t sum = 0;
    for (size_t i = 0; i < size; i++)
        sum += (uint8_t)bytes[i] * (uint64_t)(i + 1);
    snprintf(out, 96, "{\"size\":%zu,\"sum\":%llu}", size, (unsigned long long)sum);
}

/* Connects and sends the head of a request; `framing` is its last line. */
static int begin(const char *query, const char *framing)
{
    char head[256];
    int fd = http_connect_unix(fake.path);
    snprintf(head, sizeof(head), "PUT /upload%s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", query, framing);
    cr_assert(fd >= 0 && http_send(fd, head));
    return fd;
}

static int begin_length(const char *query, size_t size)
{
    char framing[64];
    snprintf(framing, sizeof(framing), "Content-Length: %zu", size);
    return begin(query, framing);
}

/* The server has begun with it when it asks for the body. */
static int begin_asked(size_t size)
{
    char framing[96], line[64] = "";
    snprintf(framing, sizeof(framing), "Content-Length: %zu\r\nExpect: 100-continue", size);
    int fd = begin("", framing);
    cr_assert_gt(recv(fd, line, sizeof(line) - 1, 0), 0);
    cr_assert(strncmp(line, "HTTP/1.1 100 ", 13) == 0, "%s", line);
    return fd;
}

static void expect(int fd, unsigned status, const char *part)
{
    struct http_answer answer cleanup(http_release) = http_read(fd);
    cr_assert_eq(answer.status, status, "%u: %s", answer.status, answer.body);
    cr_assert(strstr(answer.body, part) != NULL, "%s", answer.body);
}

/* As much as is taken without waiting for a handler that does not read. */
static size_t send_what_fits(int fd, size_t size)
{
    size_t sent = 0;
    struct pollfd event = {.fd = fd, .events = POLLOUT};
    while (sent < size && poll(&event, 1, 500) == 1) {
        ssize_t put = send(fd, bytes + sent, size - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (put <= 0)
            break;
        sent += (size_t)put;
    }
    return sent;
}

static void send_chunks(int fd, size_t size, size_t each)
{
    char line[32];
    for (size_t at = 0; at < size; at += each) {
        size_t len = size - at < each ? size - at : each;
        snprintf(line, sizeof(line), "%zx\r\n", len);
        cr_assert(http_send(fd, line) && fs_write_all(fd, bytes + at, len) == 0 &&
                  http_send(fd, "\r\n"));
    }
    cr_assert(http_send(fd, "0\r\n\r\n"));
}

Test(uploads, R29_come_as_they_were_sent_whatever_their_size_and_framing)
{
    static const size_t sizes[] = {0, 1, 65535, 65536, 131072, 131073, LARGE, FAKE_UPLOAD_MAX};
    cleanup_close int fd = http_connect_unix(fake.path);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        char head[128], text[96];
        told(sizes[i], text);
        snprintf(head, sizeof(head),
                 "PUT /upload HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", sizes[i]);
        cr_assert(http_send(fd, head) && fs_write_all(fd, bytes, sizes[i]) == 0);
        expect(fd, 200, text);
        cr_assert(http_send(fd, "PUT /upload HTTP/1.1\r\nHost: x\r\n"
                                "Transfer-Encoding: chunked\r\n\r\n"));
        send_chunks(fd, sizes[i], 77777);
        expect(fd, 200, text);
    }
}

Test(uploads, R03_wait_in_the_client_while_the_handler_does_not_read)
{
    char text[96];
    told(LARGE, text);
    cleanup_close int fd = begin_length("?held", LARGE);
    cr_assert(fake_wait_inside(&fake, 1));
    size_t sent = send_what_fits(fd, LARGE);
    cr_assert_lt(sent, BUFFERED_MAX, "the server took %zu bytes that nobody reads", sent);
    cleanup_close int other = http_connect_unix(fake.path);
    cr_assert(http_send(other, "GET /fast HTTP/1.1\r\nHost: x\r\n\r\n"));
    expect(other, 200, "caller"); /* the listener's thread waits for nobody */
    fake_open(&fake);
    cr_assert_eq(fs_write_all(fd, bytes + sent, LARGE - sent), 0);
    expect(fd, 200, text);
}

Test(uploads, R31_a_handler_that_wants_none_of_it_answers_after_it)
{
    cleanup_close int fd = http_connect_unix(fake.path);
    for (int i = 0; i < 3; i++) {
        char head[128];
        snprintf(head, sizeof(head),
                 "PUT /upload?early HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", LARGE);
        cr_assert(http_send(fd, head) && fs_write_all(fd, bytes, LARGE) == 0);
        expect(fd, 404, "nobody wants it");
    }
}

Test(uploads, R31_a_client_that_goes_away_is_told_to_the_handler)
{
    for (unsigned i = 0; i < 8; i++) {
        int fd = begin_asked(LARGE);
        cr_assert_eq(fs_write_all(fd, bytes, i * 50000), 0);
        close(fd);
        cr_assert(fake_wait_broken(&fake, i + 1), "%u", i);
    }
    cleanup_close int fd = begin("", "Content-Length: 0");
    expect(fd, 200, "\"size\":0");
}

Test(uploads, R31_a_client_that_stalls_or_dribbles_is_cut)
{
    cleanup_close int silent = begin_length("", LARGE), dribbling = begin_length("", LARGE);
    int64_t until = clock_mono_ms() + 20 * BODY_MS;
    while (fake.broken < 2 && clock_mono_ms() < until) {
        (void)send(dribbling, "x", 1, MSG_NOSIGNAL);
        (void)poll(NULL, 0, 20);
    }
    cr_assert(fake_wait_broken(&fake, 2));
    cr_assert(http_closed(silent));
}

Test(uploads, R31_a_slow_handler_is_not_its_clients_fault)
{
    char text[96];
    told(LARGE, text);
    cleanup_close int fd = begin_length("?held", LARGE);
    cr_assert(fake_wait_inside(&fake, 1));
    size_t sent = send_what_fits(fd, LARGE);
    (void)poll(NULL, 0, 2 * BODY_MS); /* that nothing happens in */
    fake_open(&fake);
    cr_assert_eq(fs_write_all(fd, bytes + sent, LARGE - sent), 0);
    expect(fd, 200, text);
}

Test(uploads, R31_more_than_there_may_be_is_refused)
{
    cleanup_close int known = begin_length("", FAKE_UPLOAD_MAX + 1);
    expect(known, 413, "body_too_large");
    cleanup_close int slightly = begin("", "Transfer-Encoding: chunked");
    send_chunks(slightly, FAKE_UPLOAD_MAX + 1, 1 << 20);
    expect(slightly, 413, "body_too_large");
    cleanup_close int endless = begin("", "Transfer-Encoding: chunked");
    bool taken = true;
    for (int i = 0; i < 64 && taken; i++)
        taken = http_send(endless, "100000\r\n") && fs_write_all(endless, bytes, 1 << 20) == 0 &&
                http_send(endless, "\r\n");
    cr_assert_not(taken, "64 MiB were taken");
}

Test(uploads, R03_have_a_pool_of_their_own_that_is_bounded)
{
    int held[3];
    for (size_t i = 0; i < COUNT_OF(held); i++) /* two work, one waits */
        held[i] = begin_length("?held", 1);
    cr_assert(fake_wait_inside(&fake, 2));
    cleanup_close int full = begin_length("", 1);
    expect(full, 503, "busy");
    fake_open(&fake);
    for (size_t i = 0; i < COUNT_OF(held); i++) {
        cr_assert(http_send(held[i], "x"));
        expect(held[i], 200, "\"size\":1");
        close(held[i]);
    }
}

Test(uploads, are_asked_for_by_100_continue_and_refused_before_it)
{
    cleanup_close int asked = begin_asked(1);
    cr_assert(http_send(asked, "x"));
    expect(asked, 200, "\"size\":1");
    cleanup_close int json =
        begin("", "Content-Length: 1\r\nExpect: 100-continue\r\nContent-Type: application/json");
    expect(json, 415, "unsupported_media_type");
    cleanup_close int digest =
        begin("", "Content-Length: 1\r\nExpect: 100-continue\r\nRepr-Digest: md5=:AAAA:");
    expect(digest, 400, "SHA-256");
}
