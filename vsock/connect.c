#include "vsock/internal.h"
#include <errno.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>

enum {
    ATTEMPT_FIRST_MS = 500, /* a guest without a driver answers nothing at all; doubles each time */
    ATTEMPT_LAST_MS = 4000,
    PAUSE_FIRST_MS = 1,
    PAUSE_LAST_MS = 50,
    ANSWER_MAX = 32, /* "OK 4294967295\n" and some room */
};

#define cleanup_conn cleanup(conn_cleanup)
static void conn_cleanup(struct vsock_conn **conn)
{
    vsock_conn_free(*conn);
}

/* Through /proc/self/fd: no path of ours is walked again and sun_path's 107 bytes do not matter. */
static int unix_connect(int uds, struct vsock_conn **ret, struct error *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(addr.sun_path, sizeof addr.sun_path, "/proc/self/fd/%d", uds);
    cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_set(err, ERR_SYSTEM, errno, "cannot make a socket to reach the guest");
    if (connect(fd, (const struct sockaddr *)&addr, sizeof addr)) {
        bool later = errno == ECONNREFUSED || errno == EAGAIN || errno == EINTR;
        return error_set(err, later ? ERR_GUEST_CLOSED : ERR_SYSTEM, errno,
                         "the VMM's socket takes no connection");
    }
    *ret = vsock_conn_new(TAKE_FD(fd), err);
    return *ret ? 0 : -1;
}

/* One write: Firecracker drops a connection whose first segment has less than ten bytes
 * (src/vmm/src/devices/virtio/vsock/unix/muxer.rs). A fresh socket takes so few at once. */
static int send_whole(struct vsock_conn *conn, const void *data, size_t len, struct error *err)
{
    if (send(conn->fd, data, len, MSG_NOSIGNAL) == (ssize_t)len)
        return 0;
    return error_set(err, ERR_GUEST_CLOSED, errno, "the VMM closed the connection at once");
}

static int wait_readable(struct vsock_conn *conn, int cancel, int64_t deadline_ms,
                         struct error *err)
{
    struct pollfd fds[] = {{.fd = conn->fd, .events = POLLIN}, {.fd = cancel, .events = POLLIN}};
    if (vsock_poll(fds, COUNT_OF(fds), deadline_ms, err))
        return -1;
    if (fds[1].revents)
        return error_set(err, ERR_CANCELLED, 0, "the VM ended before its guest answered");
    return 0;
}

int vsock_answer_take(struct vsock_conn *conn, struct error *err)
{
    size_t have = conn->in.end - conn->in.at;
    if (have == 0)
        return 0;
    const uint8_t *line = conn->in.data + conn->in.at;
    const uint8_t *end = memchr(line, '\n', have < ANSWER_MAX ? have : ANSWER_MAX);
    if (!end && have < ANSWER_MAX)
        return 0;
    size_t len = end ? (size_t)(end - line) : 0;
    bool good = len > 3 && memcmp(line, "OK ", 3) == 0;
    for (size_t i = 3; good && i < len; i++)
        good = line[i] >= '0' && line[i] <= '9';
    if (!good)
        return error_set(err, ERR_GUEST_PROTOCOL, 0,
                         "the VMM answered CONNECT with something else than OK and a port");
    vsock_queue_drop(&conn->in, len + 1);
    return 1;
}

static int hybrid_attempt(int uds, uint32_t port, int cancel, int64_t deadline_ms,
                          struct vsock_conn **ret, struct error *err)
{
    cleanup_conn struct vsock_conn *conn = NULL;
    char line[ANSWER_MAX];
    int len = snprintf(line, sizeof line, "CONNECT %u\n", port);
    if (unix_connect(uds, &conn, err) || send_whole(conn, line, (size_t)len, err))
        return -1;
    for (;;) {
        int got = vsock_answer_take(conn, err);
        if (got < 0)
            return -1;
        if (got > 0) {
            *ret = TAKE_PTR(conn);
            return 0;
        }
        if (wait_readable(conn, cancel, deadline_ms, err) ||
            vsock_conn_fill(conn, VSOCK_FRAME_SIZE, err) < 0)
            return -1;
    }
}

static bool worth_a_retry(const struct error *err)
{
    return err->code == ERR_GUEST_CLOSED || err->code == ERR_GUEST_TIMEOUT;
}

int vsock_pause(int *pause_ms, int cancel, int64_t deadline_ms, struct error *err)
{
    int left = clock_left_ms(deadline_ms);
    struct pollfd fds = {.fd = cancel, .events = POLLIN};
    if (poll(&fds, 1, *pause_ms < left ? *pause_ms : left) > 0)
        return error_set(err, ERR_CANCELLED, 0, "the VM ended before its guest answered");
    *pause_ms = *pause_ms * 2 < PAUSE_LAST_MS ? *pause_ms * 2 : PAUSE_LAST_MS;
    return 0;
}

static int gave_up(const struct error *last, struct error *err)
{
    if (!worth_a_retry(last)) {
        *err = *last;
        return -1;
    }
    return error_set(err, ERR_GUEST_TIMEOUT, 0, "the guest took no connection in time (last: %s)",
                     last->msg);
}

int vsock_connect(int uds, uint32_t port, int cancel, int64_t deadline_ms, struct vsock_conn **ret,
                  struct error *err)
{
    int pause_ms = PAUSE_FIRST_MS;
    int64_t patience = ATTEMPT_FIRST_MS;
    for (;;) {
        struct error last = {0};
        int64_t until = clock_mono_ms() + patience;
        until = until < deadline_ms ? until : deadline_ms;
        if (hybrid_attempt(uds, port, cancel, until, ret, &last) == 0)
            return 0;
        if (!worth_a_retry(&last) || clock_left_ms(deadline_ms) == 0)
            return gave_up(&last, err);
        if (last.code == ERR_GUEST_TIMEOUT)
            patience = patience * 2 < ATTEMPT_LAST_MS ? patience * 2 : ATTEMPT_LAST_MS;
        if (vsock_pause(&pause_ms, cancel, deadline_ms, err))
            return -1;
    }
}

int vsock_mark_take(struct vsock_conn *conn, const uint8_t mark[static VSOCK_MARK_SIZE])
{
    size_t have = conn->in.end - conn->in.at;
    if (have < VSOCK_MARK_SIZE)
        return 0;
    const uint8_t *start = conn->in.data + conn->in.at;
    const uint8_t *found = memmem(start, have, mark, VSOCK_MARK_SIZE);
    if (found)
        vsock_queue_drop(&conn->in, (size_t)(found - start) + VSOCK_MARK_SIZE);
    else /* its beginning may be the last bytes */
        vsock_queue_drop(&conn->in, have - (VSOCK_MARK_SIZE - 1));
    return found != NULL;
}

static int serial_attempt(int uds, const uint8_t token[static WIRE_TOKEN_SIZE], int cancel,
                          int64_t deadline_ms, struct vsock_conn **ret, struct error *err)
{
    cleanup_conn struct vsock_conn *conn = NULL;
    uint8_t mark[VSOCK_MARK_SIZE];
    memcpy(mark, token, WIRE_TOKEN_SIZE);
    if (getrandom(mark + WIRE_TOKEN_SIZE, WIRE_NONCE_SIZE, 0) != WIRE_NONCE_SIZE)
        return error_set(err, ERR_SYSTEM, errno, "cannot make a nonce");
    if (unix_connect(uds, &conn, err) || send_whole(conn, mark, sizeof mark, err))
        return -1;
    while (!vsock_mark_take(conn, mark)) {
        if (clock_left_ms(deadline_ms) == 0)
            return error_set(err, ERR_GUEST_TIMEOUT, 0, "the guest did not answer in time");
        if (wait_readable(conn, cancel, deadline_ms, err) ||
            vsock_conn_fill(conn, VSOCK_FRAME_SIZE, err) < 0)
            return -1;
    }
    *ret = TAKE_PTR(conn);
    return 0;
}

int vsock_serial_open(int uds, const uint8_t token[static WIRE_TOKEN_SIZE], int cancel,
                      int64_t deadline_ms, struct vsock_conn **ret, struct error *err)
{
    int pause_ms = PAUSE_FIRST_MS;
    for (;;) {
        struct error last = {0};
        if (serial_attempt(uds, token, cancel, deadline_ms, ret, &last) == 0)
            return 0;
        if (!worth_a_retry(&last) || clock_left_ms(deadline_ms) == 0)
            return gave_up(&last, err);
        if (vsock_pause(&pause_ms, cancel, deadline_ms, err))
            return -1;
    }
}

int vsock_accept(int listener, int cancel, int64_t deadline_ms, struct vsock_conn **ret,
                 struct error *err)
{
    for (;;) {
        struct pollfd fds[] = {{.fd = listener, .events = POLLIN},
                               {.fd = cancel, .events = POLLIN}};
        if (vsock_poll(fds, COUNT_OF(fds), deadline_ms, err))
            return error_wrap(err, "no hello from the guest");
        if (fds[1].revents)
            return error_set(err, ERR_CANCELLED, 0, "the VM ended before its guest said hello");
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            struct vsock_conn *conn = vsock_conn_new(fd, err);
            if (!conn)
                return -1;
            *ret = conn;
            return 0;
        }
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            return error_set(err, ERR_SYSTEM, errno, "cannot accept the guest's hello connection");
    }
}
