#include "support.h"
#include "vsock/vsock.h"
#include <criterion/criterion.h>
#include <pthread.h>
#include <sys/socket.h>

static const uint8_t token[WIRE_TOKEN_SIZE] = {0xa0, 0xff};

static struct vsock_restore_request request_for(const char *instance)
{
    return (struct vsock_restore_request){.instance = instance,
                                          .generation = 3,
                                          .hostname = "abcdefghij23",
                                          .machine_id = "0123456789abcdef0123456789abcdef",
                                          .token = token};
}

enum { PINGS = 3, SLOW_MS = 200 };

static const char SLOW[] = "slow";

/* What a peer answers, and what it was asked last. */
struct peer {
    int fd;
    const char
        *ping; /* to a ping; NULL: its number in seconds; SLOW: so, but only the second soon */
    const char *answer; /* to the restore; NULL: it closes */
    struct buf asked;
};

static void say(const struct peer *peer, const char *text)
{
    struct buf bytes = {.max = 70000};
    support_text_frame(&bytes, WIRE_CONTROL, text);
    support_write(peer->fd, bytes.data, bytes.len);
    buf_release(&bytes);
}

static void answer_ping(const struct peer *peer, int number)
{
    char text[64];
    if (peer->ping == SLOW && number != 2)
        usleep(SLOW_MS * 1000);
    snprintf(text, sizeof text, "{\"id\":%d,\"ok\":true,\"uptime_ms\":%d000}", number, number);
    say(peer, peer->ping && peer->ping != SLOW ? peer->ping : text);
}

static void *answer_all(void *context)
{
    struct peer *peer = context;
    for (int number = 1; support_read_frame(peer->fd, &peer->asked); number++) {
        if (number <= PINGS)
            answer_ping(peer, number);
        else if (peer->answer)
            say(peer, peer->answer);
        if (number > PINGS)
            break;
    }
    if (!peer->answer)
        close(peer->fd);
    return NULL;
}

static int restore_with(const char *ping, const char *answer, struct buf *asked,
                        struct vsock_conn **ret_conn, struct vsock_restored *ret, struct error *err)
{
    struct support_pair pair = support_pair_new(0);
    struct peer peer = {.fd = pair.guest, .ping = ping, .answer = answer, .asked = {.max = 70000}};
    const struct vsock_restore_request request = request_for(SUPPORT_INSTANCE);
    pthread_t thread;
    pthread_create(&thread, NULL, answer_all, &peer);
    int result = vsock_restore(pair.host, &request, clock_mono_ms() + 2000, ret, err);
    shutdown(vsock_conn_fd(pair.host), SHUT_WR); /* it may still wait for a request */
    pthread_join(thread, NULL);
    if (answer)
        close(pair.guest);
    if (asked)
        *asked = peer.asked;
    else
        buf_release(&peer.asked);
    if (ret_conn)
        *ret_conn = pair.host;
    else
        vsock_conn_free(pair.host);
    return result;
}

static char *string_in(const cJSON *message, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(message, name));
}

static double number_in(const cJSON *message, const char *name)
{
    const cJSON *number = cJSON_GetObjectItemCaseSensitive(message, name);
    cr_assert(cJSON_IsNumber(number));
    return number->valuedouble;
}

Test(vsock_restore, R21_a_restore_says_who_and_when_and_gives_fresh_randomness)
{
    struct vsock_restored restored = {0};
    struct error err = {0};
    struct buf asked[2];
    cJSON *messages[2] = {NULL, NULL};
    int64_t before = clock_wall_ms();
    for (size_t i = 0; i < 2; i++) {
        cr_assert_eq(restore_with(SLOW, "{\"id\":4,\"ok\":true,\"clock_skew_ms\":-1234}", &asked[i],
                                  NULL, &restored, &err),
                     0, "%s", err.msg);
        cr_assert_eq(json_parse(asked[i].data, asked[i].len, &messages[i], &err), 0);
    }
    cr_assert_eq(restored.clock_skew_ms, -1234);
    double wall = number_in(messages[0], "wall_ms");
    cr_assert(wall >= (double)before && wall <= (double)clock_wall_ms());
    /* The moment is that of the ping that was answered at once. */
    cr_assert_float_eq(number_in(messages[0], "uptime_ms"), 2000, 0.1);
    cr_assert_str_eq(string_in(messages[0], "instance"), SUPPORT_INSTANCE);
    cr_assert_str_eq(string_in(messages[0], "token"), "a0ff0000000000000000000000000000");
    cr_assert_eq(strlen(string_in(messages[0], "entropy")), 128);
    cr_assert_str_neq(string_in(messages[0], "entropy"), string_in(messages[1], "entropy"));
    for (size_t i = 0; i < 2; i++) {
        cJSON_Delete(messages[i]);
        buf_release(&asked[i]);
    }
}

Test(vsock_restore, R30_R31_a_wrong_answer_to_a_restore_is_a_typed_error)
{
    static const struct {
        const char *ping, *answer;
        enum error_code code;
    } WRONG[] = {
        {"{\"id\":2,\"ok\":true,\"uptime_ms\":1}", "", ERR_GUEST_PROTOCOL},
        {"{\"id\":1,\"ok\":true}", "", ERR_GUEST_PROTOCOL},
        {"{\"id\":1,\"ok\":true,\"uptime_ms\":-1}", "", ERR_GUEST_PROTOCOL},
        {NULL, "{\"id\":5,\"ok\":true,\"clock_skew_ms\":0}", ERR_GUEST_PROTOCOL},
        {NULL, "{\"id\":4,\"ok\":true}", ERR_GUEST_PROTOCOL},
        {NULL, "{\"id\":4,\"clock_skew_ms\":0}", ERR_GUEST_PROTOCOL},
        {NULL, "{\"id\":4,\"ok\":true,\"clock_skew_ms\":0.5}", ERR_GUEST_PROTOCOL},
        {NULL, "{\"id\":4,\"ok\":true,\"clock_skew_ms\":\"0\"}", ERR_GUEST_PROTOCOL},
        {NULL, "{\"id\":4,\"ok\":true,\"clock_skew_ms\":1e300}", ERR_GUEST_PROTOCOL},
        {NULL, "{\"id\":4,\"ok\":true,\"clock_skew_ms\":0,\"more\":1}", ERR_GUEST_PROTOCOL},
        {NULL, "[1]", ERR_GUEST_PROTOCOL},
        {NULL, NULL, ERR_GUEST_CLOSED},
    };
    for (size_t i = 0; i < COUNT_OF(WRONG); i++) {
        struct vsock_restored restored = {.clock_skew_ms = 77};
        struct error err = {0};
        cr_assert_eq(restore_with(WRONG[i].ping, WRONG[i].answer, NULL, NULL, &restored, &err), -1,
                     "%zu", i);
        cr_assert_eq(err.code, WRONG[i].code, "%s: %s", WRONG[i].answer, err.msg);
        cr_assert_eq(restored.clock_skew_ms, 77, "%zu", i);
    }
}

Test(vsock_restore, R31_an_agent_that_never_answers_a_restore_is_given_up_at_the_deadline)
{
    struct support_pair pair = support_pair_new(0);
    const struct vsock_restore_request request = request_for(SUPPORT_INSTANCE);
    struct vsock_restored restored;
    struct error err = {0};
    int64_t start = clock_mono_ms();
    cr_assert_eq(vsock_restore(pair.host, &request, start + 100, &restored, &err), -1);
    cr_assert_eq(err.code, ERR_GUEST_TIMEOUT);
    cr_assert(clock_mono_ms() - start >= 100 && clock_mono_ms() - start < 5000);
    close(pair.guest);
    vsock_conn_free(pair.host);
}

Test(vsock_restore, R31_after_a_restore_the_connection_is_over_and_after_a_refusal_it_is_not)
{
    struct vsock_conn *conn = NULL;
    struct vsock_restored restored;
    struct vsock_frame frame;
    struct error err = {0};
    cr_assert_eq(restore_with(NULL, "{\"id\":4,\"ok\":true,\"clock_skew_ms\":0}", NULL, &conn,
                              &restored, &err),
                 0);
    cr_assert_eq(vsock_read(conn, clock_mono_ms() + 1000, &frame, &err), -1);
    cr_assert(strstr(err.msg, "over") != NULL, "%s", err.msg);
    vsock_conn_free(conn);

    /* The agent itself, in a process that is no machine's: it reads and checks all of the request,
     * and changes nothing. */
    struct support_agent agent = support_agent_start("");
    const struct vsock_restore_request request = request_for(SUPPORT_INSTANCE);
    struct vsock_hello hello;
    err = (struct error){0};
    conn = vsock_conn_new(agent.fd, &err);
    agent.fd = -1;
    cr_assert_eq(vsock_restore(conn, &request, clock_mono_ms() + 5000, &restored, &err), -1);
    cr_assert_eq(err.code, ERR_GUEST_REFUSED, "%s", err.msg);
    cr_assert(strstr(err.msg, "cannot_restore") != NULL, "%s", err.msg);
    err = (struct error){0};
    cr_assert_eq(vsock_hello_ask(conn, SUPPORT_INSTANCE, clock_mono_ms() + 5000, &hello, &err), 0,
                 "%s", err.msg);
    cr_assert_eq(hello.generation, 0);
    vsock_conn_free(conn);
    support_agent_stop(&agent);
}
