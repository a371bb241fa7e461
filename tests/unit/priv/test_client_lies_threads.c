/* The front's end of the channel against a root half whose replies are wrong. */
#include "client_pair.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

/* ---- replies that are none ------------------------------------------------------------------ */

enum lie {
    LIE_SHORT,
    LIE_LONG,
    LIE_EMPTY,
    LIE_PROTOCOL,
    LIE_OP,
    LIE_NEVER_ASKED,
    LIE_ID_ZERO,
    LIE_FIVE_FDS,
    LIE_COUNT
};

static void send_lie(int root, const struct priv_request *request, enum lie lie, int fd)
{
    struct {
        struct priv_reply reply;
        char more[8];
    } packet = {.reply = pair_reply(request)};
    size_t len = sizeof(packet.reply), fd_count = 2;
    int fds[] = {fd, fd, fd, fd, fd};
    len -= lie == LIE_SHORT;
    len += lie == LIE_LONG;
    len = lie == LIE_EMPTY ? 0 : len;
    packet.reply.protocol += lie == LIE_PROTOCOL;
    packet.reply.op += lie == LIE_OP;
    packet.reply.id += lie == LIE_NEVER_ASKED;
    packet.reply.id = lie == LIE_ID_ZERO ? 0 : packet.reply.id;
    fd_count = lie == LIE_FIVE_FDS ? COUNT_OF(fds) : fd_count;
    pair_send(root, &packet, len, fds, fd_count);
}

/* Nobody may keep a descriptor that came along: then the pipe's other end sees its end. */
static bool all_closed(int reader)
{
    struct pollfd ready = {.fd = reader, .events = POLLIN};
    char byte;
    return poll(&ready, 1, PATIENCE_MS) == 1 && read(reader, &byte, 1) == 0;
}

static void a_malformed_reply_ends_the_channel(void)
{
    for (int lie = 0; lie < LIE_COUNT; lie++) {
        struct pair pair = pair_open();
        struct priv_request request;
        int ends[2];
        pthread_t thread;
        CHECK(pipe2(ends, O_CLOEXEC) == 0);
        CHECK(pthread_create(&thread, NULL, pair_call_until_lost, pair.client) == 0);
        CHECK(pair_receive(pair.root, &request));
        send_lie(pair.root, &request, (enum lie)lie, ends[1]);
        close(ends[1]);
        CHECK(pthread_join(thread, NULL) == 0);
        CHECK(pair_lost(pair.client, PATIENCE_MS));
        CHECK(all_closed(ends[0]));
        close(ends[0]);
        pair_close(&pair);
    }
}

static void *call_host(void *argument)
{
    struct error err = {0};
    struct priv_host host;
    CHECK(priv_host(argument, &host, &err) == 0);
    return NULL;
}

static void a_second_reply_is_dropped_with_its_descriptors(void)
{
    struct pair pair = pair_open();
    for (int i = 0; i < 10; i++) {
        struct priv_request request;
        int ends[2];
        pthread_t thread;
        CHECK(pipe2(ends, O_CLOEXEC) == 0);
        CHECK(pthread_create(&thread, NULL, call_host, pair.client) == 0);
        CHECK(pair_receive(pair.root, &request));
        struct priv_reply reply = pair_reply(&request);
        pair_send(pair.root, &reply, sizeof(reply), NULL, 0);
        pair_send(pair.root, &reply, sizeof(reply), (int[]){ends[1], ends[1]}, 2);
        close(ends[1]);
        CHECK(pthread_join(thread, NULL) == 0);
        CHECK(all_closed(ends[0]));
        close(ends[0]);
    }
    CHECK(!pair_lost(pair.client, 0));
    pair_close(&pair);
}

/* ---- replies that are well-formed and wrong ---------------------------------------------------
 */

struct wrong {
    struct priv_client *client;
    enum priv_op op;
};

static const char some_instance[] = "abcdefghijklmnop2345";

static void *call_wrong(void *argument)
{
    const struct wrong *wrong = argument;
    struct error err = {0};
    struct priv_launched launched;
    struct priv_host host;
    struct priv_line line = {.state = 77};
    struct priv_published published;
    struct priv_snapshot snapshot;
    char instance[ID_INSTANCE_SIZE] = "untouched";
    char chain[PRIV_CHAIN_SIZE];
    uint8_t image[HASH_SIZE] = {0};
    uint32_t uid;
    int r = -1;
    if (wrong->op == PRIV_OPEN) {
        r = priv_open(wrong->client, some_instance, PRIV_SOCKET_API, 0, &err);
    } else if (wrong->op == PRIV_LAUNCH) {
        r = priv_launch(wrong->client, some_instance, image, &launched, &err);
    } else if (wrong->op == PRIV_RESERVE) {
        r = priv_reserve(wrong->client, instance, chain, &uid, &err);
        CHECK(strcmp(instance, "untouched") == 0);
    } else if (wrong->op == PRIV_REPORT) {
        r = priv_report(wrong->client, some_instance, 0, &line, &err);
        CHECK(line.state == 77);
    } else if (wrong->op == PRIV_PUBLISH) {
        r = priv_publish(wrong->client, some_instance, &published, &err);
    } else if (wrong->op == PRIV_SNAPSHOTS) {
        r = priv_snapshots(wrong->client, NULL, &snapshot, &err);
    } else {
        r = priv_host(wrong->client, &host, &err);
    }
    CHECK(r == -1 && err.code == ERR_INTERNAL && err.msg[0] != '\0');
    return NULL;
}

static void a_reply_of_wrong_content_fails_its_call_only(void)
{
    static const struct {
        enum priv_op op;
        size_t fds;
        uint8_t fill;
    } cases[] = {{PRIV_OPEN, 0, 0},      {PRIV_OPEN, 2, 0},       {PRIV_LAUNCH, 1, 0},
                 {PRIV_LAUNCH, 3, 0},    {PRIV_RESERVE, 0, 0},    {PRIV_RESERVE, 0, 'a'},
                 {PRIV_RESERVE, 0, 1},   {PRIV_HOST, 0, 'a'},     {PRIV_HOST, 1, 0},
                 {PRIV_REPORT, 0, 'a'},  {PRIV_REPORT, 1, 0},     {PRIV_PUBLISH, 0, 0},
                 {PRIV_PUBLISH, 0, 'a'}, {PRIV_SNAPSHOTS, 0, 'a'}};
    struct pair pair = pair_open();
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct wrong wrong = {.client = pair.client, .op = cases[i].op};
        struct priv_request request;
        int ends[2];
        pthread_t thread;
        CHECK(pipe2(ends, O_CLOEXEC) == 0);
        CHECK(pthread_create(&thread, NULL, call_wrong, &wrong) == 0);
        CHECK(pair_receive(pair.root, &request));
        struct priv_reply reply = pair_reply(&request);
        memset(reply.u.bytes, cases[i].fill, sizeof(reply.u.bytes));
        int fds[] = {ends[1], ends[1], ends[1], ends[1]};
        pair_send(pair.root, &reply, sizeof(reply), fds, cases[i].fds);
        close(ends[1]);
        CHECK(pthread_join(thread, NULL) == 0);
        CHECK(all_closed(ends[0]));
        close(ends[0]);
    }
    CHECK(!pair_lost(pair.client, 0));
    pair_close(&pair);
}

static void *call_any_end(void *argument)
{
    struct error err = {0};
    struct priv_host host;
    if (priv_host(argument, &host, &err) != 0) {
        CHECK(err.code != ERR_NONE && memchr(err.msg, '\0', sizeof(err.msg)) != NULL);
    }
    return NULL;
}

/* Random bytes, half of them behind a correct head. */
static void random_replies_crash_nothing(uint64_t *random)
{
    for (int i = 0; i < 500; i++) {
        struct pair pair = pair_open();
        struct priv_request request;
        struct priv_reply reply;
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, call_any_end, pair.client) == 0);
        CHECK(pair_receive(pair.root, &request));
        for (size_t at = 0; at < sizeof(reply); at += 8) {
            uint64_t word = pair_random(random);
            memcpy((char *)&reply + at, &word, 8);
        }
        if (i % 2 == 0) {
            memcpy(&reply, &(struct priv_reply){.protocol = PRIV_PROTOCOL, .op = request.op},
                   offsetof(struct priv_reply, id));
            reply.id = request.id;
        }
        size_t len = i % 3 == 0 ? pair_random(random) % sizeof(reply) : sizeof(reply);
        pair_send(pair.root, &reply, len, NULL, 0);
        CHECK(pthread_join(thread, NULL) == 0);
        pair_close(&pair);
    }
}

static void a_bad_instance_never_reaches_the_root_half(void)
{
    static const char *const bad[] = {"", "../../etc/passwd", "ABCDEFGHIJKLMNOP2345",
                                      "abcdefghijklmnop23456"};
    struct pair pair = pair_open();
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct error err = {0};
        CHECK(priv_kill(pair.client, bad[i], NULL, &err) != 0 && err.code == ERR_INTERNAL);
    }
    struct priv_request request;
    CHECK(recv(pair.root, &request, sizeof(request), MSG_DONTWAIT) < 0 && errno == EAGAIN);
    pair_close(&pair);
}

int main(void)
{
    uint64_t random = pair_seed();
    size_t fds = pair_open_fds();
    a_bad_instance_never_reaches_the_root_half();
    a_malformed_reply_ends_the_channel();
    a_second_reply_is_dropped_with_its_descriptors();
    a_reply_of_wrong_content_fails_its_call_only();
    random_replies_crash_nothing(&random);
    CHECK(pair_open_fds() == fds);
    return 0;
}
