#include "server.h"
#include "support.h"
#include "vsock/vsock.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { MARK = WIRE_TOKEN_SIZE + WIRE_NONCE_SIZE };

static void say(int fd, const char *text)
{
    if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0)
        return; /* the client has left: its own test tells */
}

static void wait_for_close(int fd)
{
    char byte;
    while (read(fd, &byte, 1) > 0)
        continue;
}

static int connect_to(struct server *server, int64_t ms, struct vsock_conn **ret, struct error *err)
{
    return vsock_connect(server->uds, WIRE_PORT_SERVICE, -1, clock_mono_ms() + ms, ret, err);
}

static void serve_bytewise(int fd, int number)
{
    (void)number;
    uint32_t port = 0;
    static const char ANSWER[] = "OK 1073741824\n\0\0\0\0061hello";
    if (!server_read_connect(fd, &port) || port != WIRE_PORT_SERVICE)
        return;
    for (size_t i = 0; i < sizeof ANSWER - 1; i++)
        support_write(fd, ANSWER + i, 1);
    wait_for_close(fd);
}

static void expect_hello_frame(struct vsock_conn *conn)
{
    struct vsock_frame frame;
    struct error err = {0};
    cr_assert_eq(vsock_read(conn, clock_mono_ms() + 2000, &frame, &err), 0, "%s", err.msg);
    cr_assert_eq(frame.kind, WIRE_STDOUT);
    cr_assert_eq(frame.len, 5);
    cr_assert_eq(memcmp(frame.data, "hello", 5), 0);
}

Test(vsock_connect, R27_hybrid_answer_in_single_bytes)
{
    struct server server;
    struct vsock_conn *conn = NULL;
    struct error err = {0};
    server_start(&server, serve_bytewise);
    cr_assert_eq(connect_to(&server, 5000, &conn, &err), 0, "%s", err.msg);
    expect_hello_frame(conn);
    vsock_conn_free(conn);
    server_stop(&server);
}

static void serve_at_once(int fd, int number)
{
    (void)number;
    uint32_t port;
    if (server_read_connect(fd, &port))
        support_write(fd, "OK 7\n\0\0\0\0061hello", 15);
    wait_for_close(fd);
}

Test(vsock_connect, R28_bytes_that_come_with_the_answer_are_not_lost)
{
    struct server server;
    struct vsock_conn *conn = NULL;
    struct error err = {0};
    server_start(&server, serve_at_once);
    cr_assert_eq(connect_to(&server, 5000, &conn, &err), 0, "%s", err.msg);
    expect_hello_frame(conn);
    vsock_conn_free(conn);
    server_stop(&server);
}

/* Closed at once, reset, closed after the request, no word at all; then it works. */
static void serve_fifth(int fd, int number)
{
    uint32_t port;
    if (number == 1) { /* unread bytes make the close a reset */
        struct pollfd fds = {.fd = fd, .events = POLLIN};
        poll(&fds, 1, 2000);
    }
    if (number == 2)
        server_read_connect(fd, &port);
    if (number == 3)
        wait_for_close(fd);
    if (number > 3)
        serve_at_once(fd, number);
}

Test(vsock_connect, R27_refused_reset_and_silent_attempts_are_tried_again)
{
    struct server server;
    struct vsock_conn *conn = NULL;
    struct error err = {0};
    server_start(&server, serve_fifth);
    cr_assert_eq(connect_to(&server, 15000, &conn, &err), 0, "%s", err.msg);
    expect_hello_frame(conn);
    vsock_conn_free(conn);
    server_stop(&server);
}

static void serve_silence(int fd, int number)
{
    (void)number;
    wait_for_close(fd);
}

Test(vsock_connect, R31_a_silent_vmm_ends_at_the_deadline)
{
    struct server server;
    struct vsock_conn *conn = NULL;
    struct error err = {0};
    server_start(&server, serve_silence);
    int64_t start = clock_mono_ms();
    cr_assert_eq(connect_to(&server, 700, &conn, &err), -1);
    cr_assert_eq(err.code, ERR_GUEST_TIMEOUT);
    cr_assert_geq(clock_mono_ms() - start, 690);
    cr_assert_lt(clock_mono_ms() - start, 4000);
    server_stop(&server);
}

Test(vsock_connect, R31_nobody_listens_ends_at_the_deadline)
{
    struct server server;
    struct vsock_conn *conn = NULL;
    struct error err = {0};
    server_start(&server, NULL);
    int64_t start = clock_mono_ms();
    cr_assert_eq(connect_to(&server, 300, &conn, &err), -1);
    cr_assert_eq(err.code, ERR_GUEST_TIMEOUT);
    cr_assert_lt(clock_mono_ms() - start, 4000);
    server_stop(&server);
}

Test(vsock_connect, R31_the_end_of_the_vm_ends_every_wait_at_once)
{
    static void (*const SERVE[])(int fd, int number) = {serve_silence, NULL};
    int cancel[2];
    cr_assert_eq(pipe2(cancel, O_CLOEXEC), 0);
    close(cancel[1]);
    for (size_t i = 0; i < COUNT_OF(SERVE); i++) { /* a VMM that is silent, one that has gone */
        struct server server;
        struct vsock_conn *conn = NULL;
        static const uint8_t token[WIRE_TOKEN_SIZE] = {1};
        struct error err = {0}, serial = {0};
        server_start(&server, SERVE[i]);
        int64_t start = clock_mono_ms(), until = start + 60000;
        cr_assert_eq(vsock_connect(server.uds, 1, cancel[0], until, &conn, &err), -1);
        cr_assert_eq(err.code, ERR_CANCELLED);
        cr_assert_eq(vsock_serial_open(server.uds, token, cancel[0], until, &conn, &serial), -1);
        cr_assert_eq(serial.code, ERR_CANCELLED);
        cr_assert_lt(clock_mono_ms() - start, 4000);
        server_stop(&server);
    }
    close(cancel[0]);
}

static void serve_nonsense(int fd, int number)
{
    static const char *const ANSWERS[] = {"NO 1\n", "OK x\n", "OK \n", "\n",
                                          "OK 111111111111111111111111111111111111"};
    uint32_t port;
    if (server_read_connect(fd, &port))
        say(fd, ANSWERS[number % 5]);
    wait_for_close(fd);
}

Test(vsock_connect, R31_a_nonsense_answer_is_refused_at_once)
{
    struct server server;
    server_start(&server, serve_nonsense);
    for (int i = 0; i < 5; i++) {
        struct vsock_conn *conn = NULL;
        struct error err = {0};
        int64_t start = clock_mono_ms();
        cr_assert_eq(connect_to(&server, 20000, &conn, &err), -1);
        cr_assert_eq(err.code, ERR_GUEST_PROTOCOL, "answer %d: %s", i, err.msg);
        cr_assert_lt(clock_mono_ms() - start, 4000);
    }
    server_stop(&server);
}

/* ---- serial ---- */

/* A port as a guest leaves it: stale bytes of an older session, an older mark of the same VM, then
 * our mark in three reads, with a frame right behind. */
static void serve_port(int fd, int number)
{
    uint8_t mark[MARK], old[MARK];
    if (number == 0)
        return; /* QEMU closes: the first attempt is lost */
    if (!support_read(fd, mark, MARK))
        return;
    for (int i = 0; i < WIRE_TOKEN_SIZE; i++)
        if (mark[i] != SUPPORT_TOKEN_BYTE(i))
            return; /* no answer: the test ends at its deadline */
    memcpy(old, mark, MARK);
    old[MARK - 1] ^= 1;
    static const char STALE[100000] = "\0\0\1\0Jtorn";
    support_write(fd, STALE, sizeof STALE);
    support_write(fd, old, MARK);
    support_write(fd, old, WIRE_TOKEN_SIZE + 3); /* a torn mark */
    support_write_taken(fd, mark, 10);           /* so no read has all of it */
    support_write_taken(fd, mark + 10, 10);
    support_write(fd, mark + 20, MARK - 20);
    support_write(fd, "\0\0\0\0061hello", 10);
    wait_for_close(fd);
}

Test(vsock_connect, R27_serial_mark_behind_stale_bytes_and_torn_frames)
{
    struct server server;
    struct vsock_conn *conn = NULL;
    struct error err = {0};
    uint8_t token[WIRE_TOKEN_SIZE];
    for (size_t i = 0; i < sizeof token; i++)
        token[i] = SUPPORT_TOKEN_BYTE(i);
    server_start(&server, serve_port);
    cr_assert_eq(vsock_serial_open(server.uds, token, -1, clock_mono_ms() + 5000, &conn, &err), 0,
                 "%s", err.msg);
    expect_hello_frame(conn);
    vsock_conn_free(conn);
    server_stop(&server);
}

static void serve_junk(int fd, int number)
{
    (void)number;
    static const uint8_t junk[4096] = {1, 2, 3};
    while (send(fd, junk, sizeof junk, MSG_NOSIGNAL) > 0)
        continue;
}

Test(vsock_connect, R31_a_port_that_floods_ends_at_the_deadline_with_flat_memory)
{
    struct server server;
    struct vsock_conn *conn = NULL;
    struct error err = {0};
    static const uint8_t token[WIRE_TOKEN_SIZE] = {9};
    server_start(&server, serve_junk);
    int64_t start = clock_mono_ms(), before = support_rss_kib();
    cr_assert_eq(vsock_serial_open(server.uds, token, -1, start + 500, &conn, &err), -1);
    cr_assert_eq(err.code, ERR_GUEST_TIMEOUT);
    cr_assert_lt(clock_mono_ms() - start, 4000);
    cr_assert_lt(support_rss_kib() - before, 8192);
    server_stop(&server);
}

/* ---- accept ---- */

static void *dial_later(void *context)
{
    const struct server *server = context;
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s", server->path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (const struct sockaddr *)&addr, sizeof addr) == 0)
        say(fd, "");
    wait_for_close(fd);
    close(fd);
    return NULL;
}

Test(vsock_connect, R27_accept_takes_a_call_and_ends_by_cancel_or_deadline)
{
    struct server server;
    struct vsock_conn *conn = NULL;
    struct error err = {0};
    int cancel[2];
    pthread_t thread;
    server_start(&server, NULL);
    cr_assert_eq(listen(server.listener, 4), 0);
    cr_assert_eq(pipe2(cancel, O_CLOEXEC), 0);
    pthread_create(&thread, NULL, dial_later, &server);
    int64_t start = clock_mono_ms();
    cr_assert_eq(vsock_accept(server.listener, cancel[0], start + 5000, &conn, &err), 0);
    vsock_conn_free(conn);
    pthread_join(thread, NULL);
    cr_assert_eq(vsock_accept(server.listener, -1, clock_mono_ms() + 50, &conn, &err), -1);
    cr_assert_eq(err.code, ERR_GUEST_TIMEOUT);
    err = (struct error){0};
    close(cancel[1]); /* as a pidfd becomes readable */
    cr_assert_eq(vsock_accept(server.listener, cancel[0], clock_mono_ms() + 60000, &conn, &err),
                 -1);
    cr_assert_eq(err.code, ERR_CANCELLED);
    cr_assert_lt(clock_mono_ms() - start, 10000);
    close(cancel[0]);
    server_stop(&server);
}

/* ---- hello ---- */

#define HELLO(id, op, protocol, instance, more)                                                    \
    "{\"id\":" #id ",\"op\":\"" op "\",\"protocol\":" #protocol ",\"instance\":\"" instance        \
    "\",\"agent\":\"a 1\",\"kernel\":\"Linux 6\",\"generation\":0,\"boot_ms\":412" more "}"

static int hello_from(const char *text, struct vsock_hello *ret, struct error *err)
{
    struct support_pair pair = support_pair_new(0);
    struct buf bytes = {.max = 1000}, answer = {.max = 1000};
    support_text_frame(&bytes, WIRE_CONTROL, text);
    cr_assert_eq(fs_write_all(pair.guest, bytes.data, bytes.len), 0);
    int result = vsock_hello_accept(pair.host, SUPPORT_INSTANCE, clock_mono_ms() + 2000, ret, err);
    if (result == 0) {
        cr_assert_eq(support_read_frame(pair.guest, &answer), WIRE_CONTROL);
        cr_assert_str_eq(answer.data, "{\"id\":5,\"ok\":true}");
    }
    buf_release(&bytes);
    buf_release(&answer);
    close(pair.guest);
    vsock_conn_free(pair.host);
    return result;
}

Test(vsock_connect, R27_hello_is_checked_and_answered)
{
    static const char *const WRONG[] = {
        HELLO(5, "hello", 2, SUPPORT_INSTANCE, ""),
        HELLO(5, "hello", 1, "bbcdefghij234567abcd", ""),
        HELLO(5, "jello", 1, SUPPORT_INSTANCE, ""),
        HELLO(0, "hello", 1, SUPPORT_INSTANCE, ""),
        HELLO(5, "hello", 1, SUPPORT_INSTANCE, ",\"x\":1"),
        HELLO(5, "hello", -1, SUPPORT_INSTANCE, ""),
        "{\"id\":5,\"op\":\"hello\"}",
    };
    struct vsock_hello hello = {0};
    struct error err = {0};
    cr_assert_eq(hello_from(HELLO(5, "hello", 1, SUPPORT_INSTANCE, ""), &hello, &err), 0, "%s",
                 err.msg);
    cr_assert_str_eq(hello.instance, SUPPORT_INSTANCE);
    cr_assert_str_eq(hello.agent, "a 1");
    cr_assert_eq(hello.boot_ms, 412);
    for (size_t i = 0; i < COUNT_OF(WRONG); i++) {
        err = (struct error){0};
        cr_assert_eq(hello_from(WRONG[i], &hello, &err), -1, "%s", WRONG[i]);
        cr_assert_eq(err.code, ERR_GUEST_PROTOCOL, "%s", WRONG[i]);
    }
}
