#include "vsock/internal.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

/* ---- queues ---- */

void vsock_queue_drop(struct vsock_queue *queue, size_t len)
{
    queue->at += len;
    if (queue->at == queue->end)
        queue->at = queue->end = 0;
}

/* Makes room for `len` more bytes unless more than `max` would then wait. */
static int queue_reserve(struct vsock_queue *queue, size_t len, size_t max)
{
    size_t used = queue->end - queue->at;
    if (used > max || len > max - used)
        return -1;
    if (queue->cap - queue->end >= len)
        return 0;
    if (queue->at > 0) {
        memmove(queue->data, queue->data + queue->at, used);
        queue->at = 0;
        queue->end = used;
    }
    size_t cap = queue->cap ? queue->cap : VSOCK_QUEUE_MIN;
    while (cap - used < len)
        cap *= 2;
    if (cap == queue->cap)
        return 0;
    uint8_t *data = realloc(queue->data, cap);
    if (!data)
        return -1;
    queue->data = data;
    queue->cap = cap;
    return 0;
}

static void queue_put(struct vsock_queue *queue, const void *data, size_t len)
{
    if (len > 0)
        memcpy(queue->data + queue->end, data, len);
    queue->end += len;
}

static void queue_release(struct vsock_queue *queue)
{
    free(queue->data);
    *queue = (struct vsock_queue){0};
}

/* ---- the connection ---- */

struct vsock_conn *vsock_conn_new(int fd, struct error *err)
{
    cleanup_close int owned = fd;
    int flags = fcntl(owned, F_GETFL);
    if (flags < 0 || fcntl(owned, F_SETFL, flags | O_NONBLOCK) < 0) {
        error_set(err, ERR_SYSTEM, errno, "cannot make the guest's connection non-blocking");
        return NULL;
    }
    struct vsock_conn *conn = calloc(1, sizeof *conn);
    if (!conn) {
        error_set(err, ERR_NO_MEMORY, 0, "no memory for a guest's connection");
        return NULL;
    }
    conn->fd = TAKE_FD(owned);
    conn->cancel = -1;
    conn->next_id = 1;
    return conn;
}

void vsock_conn_free(struct vsock_conn *conn)
{
    if (!conn)
        return;
    int saved = errno;
    queue_release(&conn->in);
    queue_release(&conn->out);
    if (conn->fd >= 0)
        close(conn->fd);
    free(conn);
    errno = saved;
}

int vsock_conn_fd(const struct vsock_conn *conn)
{
    return conn->fd;
}

void vsock_conn_trim(struct vsock_conn *conn)
{
    vsock_queue_drop(&conn->in, conn->taken);
    conn->taken = 0;
    if (conn->in.at == conn->in.end && conn->in.cap > VSOCK_QUEUE_MIN)
        queue_release(&conn->in);
}

bool vsock_conn_sending(const struct vsock_conn *conn)
{
    return conn->out.at < conn->out.end;
}

int vsock_poll(struct pollfd *fds, nfds_t count, int64_t deadline_ms, struct error *err)
{
    for (;;) {
        int ready = poll(fds, count, clock_left_ms(deadline_ms));
        if (ready > 0)
            return 0;
        if (ready == 0)
            return error_set(err, ERR_GUEST_TIMEOUT, 0, "the guest did not answer in time");
        if (errno != EINTR)
            return error_set(err, ERR_SYSTEM, errno, "cannot wait for the guest");
    }
}

static int closed(struct vsock_conn *conn, int sys, struct error *err)
{
    conn->ended = true;
    return error_set(err, ERR_GUEST_CLOSED, sys, "the guest closed the connection");
}

int vsock_conn_fill(struct vsock_conn *conn, size_t max, struct error *err)
{
    size_t used = conn->in.end - conn->in.at;
    if (used >= max)
        return 0;
    size_t want = max - used < VSOCK_QUEUE_MIN ? max - used : VSOCK_QUEUE_MIN;
    if (queue_reserve(&conn->in, want, max))
        return error_set(err, ERR_NO_MEMORY, 0, "no memory to read from the guest");
    size_t room = conn->in.cap - conn->in.end;
    room = room < max - used ? room : max - used;
    ssize_t got = recv(conn->fd, conn->in.data + conn->in.end, room, 0);
    if (got > 0) {
        conn->in.end += (size_t)got;
        return 1;
    }
    if (got == 0)
        return closed(conn, 0, err);
    if (errno == EAGAIN || errno == EINTR)
        return 0;
    return closed(conn, errno, err);
}

int vsock_conn_flush(struct vsock_conn *conn, struct error *err)
{
    while (vsock_conn_sending(conn)) {
        ssize_t put = send(conn->fd, conn->out.data + conn->out.at, conn->out.end - conn->out.at,
                           MSG_NOSIGNAL);
        if (put >= 0)
            vsock_queue_drop(&conn->out, (size_t)put);
        else if (errno == EAGAIN)
            return 0;
        else if (errno != EINTR)
            return error_set(err, ERR_GUEST_CLOSED, errno, "the guest closed the connection");
    }
    if (conn->out.cap > VSOCK_QUEUE_MIN)
        queue_release(&conn->out);
    return 0;
}

/* ---- frames ---- */

static bool kind_known(uint8_t kind)
{
    return kind == WIRE_CONTROL || kind == WIRE_STDIN || kind == WIRE_STDOUT || kind == WIRE_STDERR;
}

static int broken(struct vsock_conn *conn, const char *why, struct error *err)
{
    conn->over = true;
    return error_set(err, ERR_GUEST_PROTOCOL, 0, "the guest broke the protocol: %s", why);
}

int vsock_conn_next(struct vsock_conn *conn, struct vsock_frame *ret, struct error *err)
{
    if (conn->over)
        return error_set(err, ERR_GUEST_CLOSED, 0, "this connection to the guest is over");
    vsock_queue_drop(&conn->in, conn->taken);
    conn->taken = 0;
    size_t have = conn->in.end - conn->in.at;
    if (have < WIRE_HEADER_SIZE)
        return 0;
    const uint8_t *bytes = conn->in.data + conn->in.at;
    size_t len =
        (size_t)bytes[0] << 24 | (size_t)bytes[1] << 16 | (size_t)bytes[2] << 8 | (size_t)bytes[3];
    if (len < 1)
        return broken(conn, "a frame without a kind", err);
    if (len > WIRE_FRAME_MAX)
        return broken(conn, "a frame longer than 65,536 bytes", err);
    if (have > WIRE_HEADER_SIZE && !kind_known(bytes[WIRE_HEADER_SIZE]))
        return broken(conn, "a frame of an unknown kind", err);
    if (have < WIRE_HEADER_SIZE + len)
        return 0;
    conn->taken = WIRE_HEADER_SIZE + len;
    *ret = (struct vsock_frame){.kind = (enum wire_kind)bytes[WIRE_HEADER_SIZE],
                                .data = bytes + WIRE_HEADER_SIZE + 1,
                                .len = len - 1};
    return 1;
}

int vsock_conn_queue(struct vsock_conn *conn, enum wire_kind kind, const void *data, size_t len,
                     struct error *err)
{
    if (len > WIRE_FRAME_MAX - 1)
        return error_set(err, ERR_BODY_TOO_LARGE, 0,
                         "a message to the guest may have %d bytes; this one has %zu",
                         WIRE_FRAME_MAX - 1, len);
    size_t payload = len + 1;
    /* Twice: a frame whose rest is left over from a write that ran out of time goes first. */
    if (queue_reserve(&conn->out, WIRE_HEADER_SIZE + payload, (size_t)2 * VSOCK_FRAME_SIZE))
        return error_set(err, ERR_BUSY, 0, "the guest does not read what it is sent");
    const uint8_t head[] = {(uint8_t)(payload >> 24), (uint8_t)(payload >> 16),
                            (uint8_t)(payload >> 8), (uint8_t)payload, (uint8_t)kind};
    queue_put(&conn->out, head, sizeof head);
    queue_put(&conn->out, data, len);
    return 0;
}

int vsock_read(struct vsock_conn *conn, int64_t deadline_ms, struct vsock_frame *ret,
               struct error *err)
{
    for (;;) {
        int got = vsock_conn_next(conn, ret, err);
        if (got != 0)
            return got < 0 ? -1 : 0;
        if (conn->ended)
            return closed(conn, 0, err);
        int filled = vsock_conn_fill(conn, VSOCK_FRAME_SIZE, err);
        if (filled < 0)
            return -1;
        struct pollfd fds[] = {{.fd = conn->fd, .events = POLLIN},
                               {.fd = conn->cancel, .events = POLLIN}};
        if (filled == 0 && vsock_poll(fds, COUNT_OF(fds), deadline_ms, err))
            return -1;
        if (fds[1].revents && !fds[0].revents)
            return error_set(err, ERR_CANCELLED, 0, "the VM ended before its guest answered");
    }
}

int vsock_write(struct vsock_conn *conn, enum wire_kind kind, const void *data, size_t len,
                int64_t deadline_ms, struct error *err)
{
    if (vsock_conn_queue(conn, kind, data, len, err))
        return -1;
    for (;;) {
        if (vsock_conn_flush(conn, err))
            return -1;
        if (!vsock_conn_sending(conn))
            return 0;
        bool room = conn->in.end - conn->in.at < VSOCK_READ_AHEAD;
        struct pollfd fds = {.fd = conn->fd, .events = (short)(room ? POLLIN | POLLOUT : POLLOUT)};
        if (vsock_poll(&fds, 1, deadline_ms, err))
            return -1;
        if ((fds.revents & POLLIN) && vsock_conn_fill(conn, VSOCK_READ_AHEAD, err) < 0)
            return -1;
    }
}
