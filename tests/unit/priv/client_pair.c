#include "client_pair.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

uint64_t pair_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

uint64_t pair_seed(void)
{
    const char *told = getenv("MOTTE_SEED");
    uint64_t seed = told != NULL ? strtoull(told, NULL, 10) : (uint64_t)clock_mono_us();
    fprintf(stderr, "MOTTE_SEED=%llu\n", (unsigned long long)seed);
    return seed | 1;
}

size_t pair_open_fds(void)
{
    size_t count = 0;
    for (int fd = 0; fd < 1024; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

struct pair pair_open(void)
{
    int fds[2];
    struct error err = {0};
    struct pair pair;
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0);
    CHECK(priv_client_new(fds[0], &pair.client, &err) == 0);
    pair.root = fds[1];
    return pair;
}

void pair_close(struct pair *pair)
{
    priv_client_free(pair->client);
    close(pair->root);
}

bool pair_lost(const struct priv_client *client, int timeout_ms)
{
    struct pollfd ready = {.fd = priv_client_lost_fd(client), .events = POLLIN};
    return poll(&ready, 1, timeout_ms) == 1;
}

void pair_send(int fd, const void *bytes, size_t len, const int *fds, size_t fd_count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(16 * sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = len};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd_count > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *c = &control.align;
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
    }
    /* EPIPE: the client has ended the channel, as it may. */
    CHECK(sendmsg(fd, &message, MSG_NOSIGNAL) == (ssize_t)len || errno == EPIPE);
}

bool pair_receive(int fd, struct priv_request *request)
{
    ssize_t n = recv(fd, request, sizeof(*request), 0);
    CHECK(n == (ssize_t)sizeof(*request) || n <= 0);
    return n > 0;
}

struct priv_reply pair_reply(const struct priv_request *request)
{
    struct priv_reply reply = {.protocol = PRIV_PROTOCOL, .op = request->op, .id = request->id};
    return reply;
}

void *pair_call_until_lost(void *argument)
{
    struct error err = {0};
    struct priv_host host;
    CHECK(priv_host(argument, &host, &err) != 0);
    CHECK(err.code == ERR_PRIV_LOST);
    return NULL;
}
