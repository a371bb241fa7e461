/* A connection to a guest that comes from a snapshot may be cut whenever it is. */
#include "server.h"
#include "support.h"
#include "vsock/vsock.h"
#include <criterion/criterion.h>
#include <sys/socket.h>

#define OLD(id)                                                                                    \
    "{\"id\":" #id ",\"ok\":false,\"error\":{\"code\":\"old_generation\",\"message\":\"\"}}"
#define RESTORED "{\"id\":4,\"ok\":true,\"clock_skew_ms\":5}"
#define WHO(instance, generation)                                                                  \
    "{\"id\":5,\"ok\":true,\"protocol\":1,\"instance\":\"" instance "\",\"agent\":\"a 1\","        \
    "\"kernel\":\"Linux 6\",\"generation\":" #generation ",\"boot_ms\":412}"

static void say(int fd, const void *data, size_t len)
{
    if (send(fd, data, len, MSG_NOSIGNAL) < 0)
        return; /* the client has left: its own test tells */
}

/* Takes a connection, and answers what comes in turn until the answers are used up. */
static void answer_in_turn(int fd, const char *const *answers)
{
    struct buf asked = {.max = 70000};
    uint32_t port;
    if (server_read_connect(fd, &port))
        say(fd, "OK 1073741824\n", 14);
    for (; *answers && support_read_frame(fd, &asked); answers++) {
        struct buf bytes = {.max = 70000};
        support_text_frame(&bytes, WIRE_CONTROL, *answers);
        say(fd, bytes.data, bytes.len);
        buf_release(&bytes);
    }
    buf_release(&asked);
}

#define PINGS                                                                                      \
    "{\"id\":1,\"ok\":true,\"uptime_ms\":1}", "{\"id\":2,\"ok\":true,\"uptime_ms\":2}",            \
        "{\"id\":3,\"ok\":true,\"uptime_ms\":3}"

static void serve_cut_at_first(int fd, int number)
{
    static const char *const NONE[] = {NULL}, *const WHOLE[] = {PINGS, RESTORED, NULL},
                             *const ONE[] = {"{\"id\":1,\"ok\":true,\"uptime_ms\":1}", NULL};
    answer_in_turn(fd, number == 0 ? NONE : number == 1 ? ONE : WHOLE);
}

static void serve_answer_lost(int fd, int number)
{
    static const char *const LOST[] = {PINGS, NULL}, *const AGAIN[] = {
                                                         PINGS, OLD(4),
                                                         WHO("bbcdefghij234567abcd", 3), NULL};
    answer_in_turn(fd, number == 0 ? LOST : AGAIN);
}

static void serve_another(int fd, int number)
{
    static const char *const LOST[] = {PINGS, NULL}, *const AGAIN[] = {
                                                         PINGS, OLD(4),
                                                         WHO("cbcdefghij234567abcd", 3), NULL};
    answer_in_turn(fd, number == 0 ? LOST : AGAIN);
}

static void serve_refusal(int fd, int number)
{
    static const char *const OLD_ONE[] = {PINGS, OLD(4), WHO("bbcdefghij234567abcd", 3), NULL};
    (void)number;
    answer_in_turn(fd, OLD_ONE);
}

static void serve_nothing(int fd, int number)
{
    static const char *const NOTHING[] = {NULL};
    (void)number;
    answer_in_turn(fd, NOTHING);
}

static int restore_from(void (*serve)(int fd, int number), struct vsock_restored *ret,
                        struct error *err)
{
    const struct vsock_restore_request request = {.instance = "bbcdefghij234567abcd",
                                                  .generation = 3,
                                                  .hostname = "bbcdefghij23",
                                                  .machine_id = "0123456789abcdef0123456789abcdef"};
    struct server server;
    server_start(&server, serve);
    int64_t deadline = clock_mono_ms() + (serve == serve_nothing ? 300 : 10000);
    int result = vsock_restore_hybrid(server.uds, &request, -1, deadline, ret, err);
    server_stop(&server);
    return result;
}

Test(vsock_restore_hybrid, R21_R31_a_restore_survives_connections_that_are_cut)
{
    struct vsock_restored restored = {0};
    struct error err = {0};
    cr_assert_eq(restore_from(serve_cut_at_first, &restored, &err), 0, "%s", err.msg);
    cr_assert(restored.skew_known && restored.clock_skew_ms == 5);
    cr_assert_eq(restore_from(serve_answer_lost, &restored, &err), 0, "%s", err.msg);
    cr_assert_not(restored.skew_known);
    cr_assert_eq(restore_from(serve_another, &restored, &err), -1);
    cr_assert_eq(err.code, ERR_GUEST_REFUSED);
    err = (struct error){0};
    /* A first attempt cannot have been made before: the refusal stands. */
    cr_assert_eq(restore_from(serve_refusal, &restored, &err), -1);
    cr_assert_eq(err.code, ERR_GUEST_REFUSED);
    err = (struct error){0};
    cr_assert_eq(restore_from(serve_nothing, &restored, &err), -1);
    cr_assert(err.code == ERR_GUEST_CLOSED || err.code == ERR_GUEST_TIMEOUT, "%s", err.msg);
}
