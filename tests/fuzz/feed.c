#include "feed.h"

#include <sys/socket.h>

struct feed feed_new(void)
{
    int fds[2];
    struct error err = {0};
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    struct feed feed = {.conn = vsock_conn_new(fds[0], &err), .peer = fds[1]};
    FUZZ_CHECK(feed.conn != NULL);
    return feed;
}

void feed_end(struct feed *feed)
{
    vsock_conn_free(feed->conn);
    close(feed->peer);
}

void feed_bytes(const struct feed *feed, const uint8_t *data, size_t size, bool last)
{
    FUZZ_CHECK(fs_write_all(feed->peer, data, size < FEED_MAX ? size : FEED_MAX) == 0);
    if (last)
        FUZZ_CHECK(shutdown(feed->peer, SHUT_WR) == 0);
}

uint64_t feed_mix(uint64_t hash, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(1099511628211);
    return hash;
}
