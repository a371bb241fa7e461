/* Answers that come as they arise: who waits costs no thread, who leaves is noticed, who stops ends
 * them. */
#include "tests/unit/api/fake.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <sys/socket.h>

#define GET(target) "GET " target " HTTP/1.1\r\nHost: x\r\n\r\n"

enum { WAIT_MS = 20000 };

static struct fake fake; /* criterion: one process a test */

static void start(struct server_options options)
{
    cr_assert(fake_start(&fake, options));
}

/* Reads until `text` has come; false when it does not, or the connection ends before. */
static bool comes(int fd, const char *text)
{
    char got[8192] = "";
    size_t len = 0;
    struct pollfd event = {.fd = fd, .events = POLLIN};
    while (strstr(got, text) == NULL) {
        if (len + 1 == sizeof(got) || poll(&event, 1, WAIT_MS) != 1)
            return false;
        ssize_t more = recv(fd, got + len, 1, 0); /* not one byte of what comes after it */
        if (more <= 0)
            return false;
        got[++len] = '\0';
    }
    return true;
}

static int listen_to_events(void)
{
    int fd = http_connect_unix(fake.path);
    cr_assert(http_send(fd, GET("/events")));
    struct http_answer answer cleanup(http_release) = http_read(fd);
    cr_assert_eq(answer.status, 200);
    cr_assert(comes(fd, "last="));
    return fd;
}

TestSuite(streams, .timeout = 120);

Test(streams, what_is_said_comes_to_all_that_wait)
{
    start((struct server_options){0});
    int fds[32];
    for (size_t i = 0; i < COUNT_OF(fds); i++)
        fds[i] = listen_to_events();
    for (int word = 0; word < 20; word++) {
        char text[32];
        snprintf(text, sizeof(text), "<word %d>", word);
        fake_say(&fake, text);
        for (size_t i = 0; i < COUNT_OF(fds); i++)
            cr_assert(comes(fds[i], text), "client %zu, %s", i, text);
    }
    fake_say(&fake, NULL);
    for (size_t i = 0; i < COUNT_OF(fds); i++) {
        cr_assert(comes(fds[i], "0\r\n\r\n"), "the end shows");
        cr_assert(http_send(fds[i], GET("/fast")), "and the connection goes on");
        struct http_answer answer cleanup(http_release) = http_read(fds[i]);
        cr_assert_eq(answer.status, 200);
        close(fds[i]);
    }
    cr_assert(fake_wait_closed(&fake, COUNT_OF(fds)));
    cr_assert_eq(fake_stop(&fake), 0);
}

Test(streams, R03_who_waits_takes_no_worker)
{
    start((struct server_options){.pools = {[API_POOL_FAST] = {1, 1, false}}});
    int fds[16];
    for (size_t i = 0; i < COUNT_OF(fds); i++)
        fds[i] = listen_to_events();
    struct http_answer answer cleanup(http_release) = http_ask(fake.path, GET("/fast"));
    cr_assert_eq(answer.status, 200);
    for (size_t i = 0; i < COUNT_OF(fds); i++)
        close(fds[i]);
    cr_assert_eq(fake_stop(&fake), 0);
}

Test(streams, a_client_that_leaves_is_noticed_while_nothing_is_said)
{
    start((struct server_options){.keepalive_ms = 600000}); /* no comment finds it gone */
    for (unsigned i = 0; i < 8; i++)
        close(listen_to_events());
    cr_assert(fake_wait_closed(&fake, 8));
    cleanup_close int fd = http_connect_tcp(fake.port);
    cr_assert(http_send(fd, "GET /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " FAKE_TOKEN
                            "\r\n\r\n"));
    cr_assert(comes(fd, "last="));
    close(TAKE_FD(fd));
    cr_assert(fake_wait_closed(&fake, 9));
    cr_assert_eq(fake_stop(&fake), 0);
}

Test(streams, silence_is_filled_with_comments)
{
    start((struct server_options){.keepalive_ms = 50});
    cleanup_close int fd = listen_to_events();
    for (int i = 0; i < 3; i++)
        cr_assert(comes(fd, "\r\n:\n\n\r\n"));
    fake_say(&fake, "<word>");
    cr_assert(comes(fd, "<word>"));
    cr_assert_eq(fake_stop(&fake), 0);
}

Test(streams, R03_one_owner_takes_no_more_than_his_share)
{
    start((struct server_options){.streams = 2});
    cleanup_close int his = listen_to_events();
    struct http_answer refused cleanup(http_release) = http_ask(fake.path, GET("/events"));
    cr_assert_eq(refused.status, 503);
    cleanup_close int others = http_connect_tcp(fake.port);
    cr_assert(http_send(
        others, "GET /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " FAKE_TOKEN "\r\n\r\n"));
    fake_say(&fake, "<word>");
    cr_assert(comes(his, "<word>"));
    cr_assert(comes(others, "<word>"));
    cr_assert_eq(fake_stop(&fake), 0);
}

Test(streams, one_too_many_is_told_so_and_others_go_on)
{
    start((struct server_options){.streams = 4}); /* half of it is for another */
    cleanup_close int first = listen_to_events();
    cleanup_close int second = listen_to_events();
    struct http_answer answer cleanup(http_release) = http_ask(fake.path, GET("/events"));
    cr_assert_eq(answer.status, 503);
    cr_assert(strstr(answer.body, "\"code\":\"busy\"") != NULL, "%s", answer.body);
    cr_assert(fake_wait_closed(&fake, 1), "its source is released");
    close(TAKE_FD(first));
    cr_assert(fake_wait_closed(&fake, 2));
    cleanup_close int third = listen_to_events();
    fake_say(&fake, "<word>");
    cr_assert(comes(second, "<word>"));
    cr_assert(comes(third, "<word>"));
    cr_assert_eq(fake_stop(&fake), 0);
}

Test(streams, R03_a_stop_ends_streams_of_events_at_once)
{
    start((struct server_options){0});
    int fds[16];
    for (size_t i = 0; i < COUNT_OF(fds); i++)
        fds[i] = listen_to_events();
    int64_t began = clock_mono_ms();
    cr_assert_eq(fake_stop(&fake), 0);
    cr_assert_lt(clock_mono_ms() - began, 5000);
    for (size_t i = 0; i < COUNT_OF(fds); i++) {
        cr_assert(comes(fds[i], "0\r\n\r\n"), "the end shows");
        close(fds[i]);
    }
    cr_assert_eq(fake.closed, COUNT_OF(fds));
}

static char got[FAKE_FILE_SIZE + 4096];

struct reading {
    int fd;
    size_t len;
};

static void *read_all(void *context)
{
    struct reading *all = context;
    ssize_t more;
    while ((more = recv(all->fd, got + all->len, sizeof(got) - all->len, 0)) > 0)
        all->len += (size_t)more;
    return NULL;
}

Test(streams, a_file_comes_whole_with_its_length_and_may_end_while_the_server_stops)
{
    start((struct server_options){0});
    cleanup_close int fd = http_connect_unix(fake.path);
    cr_assert(http_send(fd, GET("/file")));
    cr_assert(comes(fd, "HTTP/1.1 200"), "it has begun");
    pthread_t reader;
    struct reading all = {.fd = fd};
    cr_assert_eq(pthread_create(&reader, NULL, read_all, &all), 0);
    cr_assert_eq(fake_stop(&fake), 0);
    pthread_join(reader, NULL);
    const char *body = memmem(got, all.len, "\r\n\r\n", 4);
    cr_assert(body != NULL && memmem(got, 4096, "Content-Length: 3000017", 23) != NULL);
    body += 4;
    cr_assert_eq(all.len - (size_t)(body - got), FAKE_FILE_SIZE);
    for (size_t i = 0; i < FAKE_FILE_SIZE; i++)
        cr_assert(body[i] == fake_file_byte(i), "byte %zu", i);
}

Test(streams, a_client_that_takes_nothing_is_cut)
{
    start((struct server_options){.send_ms = 300});
    cleanup_close int fd = http_connect_unix(fake.path);
    cr_assert(http_send(fd, GET("/file")));
    cr_assert(fake_wait_closed(&fake, 1));
    cr_assert_eq(fake_stop(&fake), 0);
}

Test(streams, the_last_event_id_reaches_the_handler_or_is_refused)
{
    start((struct server_options){0});
    static const struct {
        const char *headers, *answer;
    } cases[] = {
        {"Last-Event-ID: 1234\r\n", "last=1234\n"},
        {"last-event-id: abc\r\n", "last=abc\n"},
        {"Last-Event-ID: 12345678901234567890123456789012\r\n",
         "last=12345678901234567890123456789012\n"},
        {"Last-Event-ID: 123456789012345678901234567890123\r\n", "\"code\":\"bad_request\""},
        {"Last-Event-ID: 1\r\nLast-Event-ID: 1\r\n", "\"code\":\"bad_request\""},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char text[256];
        snprintf(text, sizeof(text), "GET /events HTTP/1.1\r\nHost: x\r\n%s\r\n", cases[i].headers);
        cleanup_close int fd = http_connect_unix(fake.path);
        cr_assert(http_send(fd, text));
        cr_assert(comes(fd, cases[i].answer), "%s", cases[i].headers);
    }
    cr_assert_eq(fake_stop(&fake), 0);
}
