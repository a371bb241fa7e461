/*
 * The front's end of the channel against a root half that answers in any order and dies. A plain
 * program, so that ThreadSanitizer can run it.
 */
#include "client_pair.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>

enum { ROUNDS = 60, HELD = 48 };

/* ---- 64 callers, replies in random order ------------------------------------------------------
 */

static int file_with(const char *text)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    CHECK(fd >= 0 && pwrite(fd, text, ID_INSTANCE_LEN, 0) == ID_INSTANCE_LEN);
    return fd;
}

/* What the caller gets can only be right if it is this request's. */
static void answer(int fd, const struct priv_request *request)
{
    struct priv_reply reply = pair_reply(request);
    int fds[PRIV_FDS_MAX];
    size_t count = 0;
    switch (request->op) {
    case PRIV_OPEN:
        fds[count++] = file_with(request->instance);
        break;
    case PRIV_LAUNCH:
        for (count = 0; count < PRIV_FDS_MAX; count++) {
            fds[count] = file_with(request->instance);
        }
        memcpy(reply.u.launch.token, request->u.launch.image, PRIV_TOKEN_SIZE);
        break;
    case PRIV_USAGE:
        memcpy(&reply.u.usage.memory_bytes, request->instance, 8);
        break;
    case PRIV_LIST:
        reply.u.list.uid = request->u.list.index;
        break;
    case PRIV_CHECK:
        reply.code = ERR_GUARD;
        reply.sys = 5;
        snprintf(reply.message, sizeof(reply.message), "no chain for %.20s", request->instance);
        break;
    default:
        CHECK(!"an operation the test does not use");
    }
    pair_send(fd, &reply, sizeof(reply), fds, count);
    for (size_t i = 0; i < count; i++) {
        close(fds[i]);
    }
}

struct root {
    int fd;
    uint64_t random;
};

/* Holds requests back until no more come for a moment or enough are held, then answers any one. */
static void *root_half(void *argument)
{
    struct root *root = argument;
    static struct priv_request held[HELD];
    size_t count = 0;
    bool alive = true;
    while (alive || count > 0) {
        struct pollfd ready = {.fd = root->fd, .events = POLLIN};
        while (alive && count < HELD && poll(&ready, 1, count == 0 ? -1 : 0) > 0) {
            alive = pair_receive(root->fd, &held[count]);
            count += alive;
        }
        if (count > 0) {
            size_t pick = pair_random(&root->random) % count;
            answer(root->fd, &held[pick]);
            held[pick] = held[--count];
        }
    }
    return NULL;
}

static void check_file(int fd, const char *instance)
{
    char text[ID_INSTANCE_LEN];
    CHECK(fd >= 0);
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK(pread(fd, text, sizeof(text), 0) == (ssize_t)sizeof(text));
    CHECK(memcmp(text, instance, sizeof(text)) == 0);
    close(fd);
}

struct caller {
    struct priv_client *client;
    uint64_t random;
};

static void call_launch(struct caller *caller, const char *instance)
{
    struct error err = {0};
    struct priv_launched launched;
    uint8_t image[HASH_SIZE];
    hash_sha256(instance, ID_INSTANCE_LEN, image);
    CHECK(priv_launch(caller->client, instance, image, &launched, &err) == 0);
    check_file(launched.pidfd, instance);
    check_file(launched.console, instance);
    check_file(launched.hello, instance);
    check_file(launched.log, instance);
    CHECK(memcmp(launched.token, image, PRIV_TOKEN_SIZE) == 0);
}

static void call_one(struct caller *caller, const char *instance)
{
    struct error err = {0};
    struct priv_usage usage;
    struct priv_instance listed;
    uint32_t index = (uint32_t)pair_random(&caller->random);
    switch (pair_random(&caller->random) % 5) {
    case 0:
        check_file(priv_open(caller->client, instance, PRIV_SOCKET_API, 0, &err), instance);
        break;
    case 1:
        call_launch(caller, instance);
        break;
    case 2:
        CHECK(priv_usage(caller->client, instance, &usage, &err) == 0);
        CHECK(memcmp(&usage.memory_bytes, instance, 8) == 0);
        break;
    case 3:
        CHECK(priv_list(caller->client, index, &listed, &err) == 0);
        CHECK(listed.uid == index);
        break;
    default:
        CHECK(priv_check(caller->client, instance, &err) != 0);
        CHECK(err.code == ERR_GUARD && err.sys == 5);
        CHECK(strstr(err.msg, instance) != NULL);
    }
}

static void *make_calls(void *argument)
{
    struct caller *caller = argument;
    for (int i = 0; i < ROUNDS; i++) {
        char instance[ID_INSTANCE_SIZE];
        struct error err = {0};
        CHECK(id_instance_make(instance, &err) == 0);
        call_one(caller, instance);
    }
    return NULL;
}

static void concurrent_calls_never_cross(uint64_t *random)
{
    struct pair pair = pair_open();
    struct root root = {.fd = pair.root, .random = pair_random(random)};
    struct caller callers[CALLERS];
    pthread_t root_thread, threads[CALLERS];
    CHECK(pthread_create(&root_thread, NULL, root_half, &root) == 0);
    for (size_t i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){.client = pair.client, .random = pair_random(random)};
        CHECK(pthread_create(&threads[i], NULL, make_calls, &callers[i]) == 0);
    }
    for (size_t i = 0; i < CALLERS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK(!pair_lost(pair.client, 0));
    shutdown(pair.root, SHUT_RDWR);
    CHECK(pthread_join(root_thread, NULL) == 0);
    pair_close(&pair);
}

/* ---- the channel ends ----------------------------------------------------------------------- */

static void the_end_fails_all_waiting_calls(void)
{
    struct pair pair = pair_open();
    pthread_t threads[CALLERS];
    for (size_t i = 0; i < CALLERS; i++) {
        CHECK(pthread_create(&threads[i], NULL, pair_call_until_lost, pair.client) == 0);
    }
    for (size_t i = 0; i < CALLERS; i++) {
        struct priv_request request;
        CHECK(pair_receive(pair.root, &request));
    }
    CHECK(!pair_lost(pair.client, 0));
    shutdown(pair.root, SHUT_RDWR);
    for (size_t i = 0; i < CALLERS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK(pair_lost(pair.client, PATIENCE_MS));
    pair_call_until_lost(pair.client);
    CHECK(pair_lost(pair.client, 0)); /* it stays readable */
    pair_close(&pair);
}

int main(void)
{
    uint64_t random = pair_seed();
    size_t fds = pair_open_fds();
    concurrent_calls_never_cross(&random);
    the_end_fails_all_waiting_calls();
    CHECK(pair_open_fds() == fds);
    return 0;
}
