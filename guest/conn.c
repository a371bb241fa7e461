#include "guest/internal.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { ABSENT_RECHECK_MS = 1000 };

/* ---- input ---- */

enum { HISTORY = GUEST_MARK_SIZE - 1 }; /* kept before in_at: a mark may have been taken for data */

static bool has_room(const struct guest_conn *conn)
{
    return conn->in_end - conn->in_at < sizeof conn->in - HISTORY;
}

static void host_absent(struct guest_conn *conn)
{
    if (conn->absent_since == 0)
        conn->absent_since = guest_mono_ms();
}

int64_t guest_conn_absent_ms(const struct guest_conn *conn)
{
    return conn->absent_since ? guest_mono_ms() - conn->absent_since : 0;
}

/* The news that a host left or came takes another way than the bytes, and may be older than they
 * are: only a mark says that a new session begins. The last of several counts. `fresh` bytes at the
 * end have not been looked at; a mark may have begun before them. */
static void look_for_mark(struct guest_conn *conn, size_t fresh)
{
    size_t old = conn->in_end - fresh;
    uint8_t *at = conn->in + (old < HISTORY ? 0 : old - HISTORY);
    const uint8_t *end = conn->in + conn->in_end;
    while ((at = memmem(at, (size_t)(end - at), conn->token, WIRE_TOKEN_SIZE))) {
        if (end - at < GUEST_MARK_SIZE)
            return;
        conn->in_at = (size_t)(at - conn->in);
        conn->taken = 0;
        conn->marked = conn->ended = true;
        at += GUEST_MARK_SIZE;
    }
}

static void fill(struct guest_conn *conn)
{
    if (conn->in_end == sizeof conn->in) {
        size_t from = conn->in_at < HISTORY ? 0 : conn->in_at - HISTORY;
        memmove(conn->in, conn->in + from, conn->in_end - from);
        conn->in_end -= from;
        conn->in_at -= from;
    }
    ssize_t got = read(conn->fd, conn->in + conn->in_end, sizeof conn->in - conn->in_end);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        conn->absent_since = 0;
        return;
    }
    if (got == 0 && conn->token) {
        host_absent(conn);
        return;
    }
    if (got <= 0) {
        conn->ended = true;
        return;
    }
    conn->absent_since = 0;
    conn->in_end += (size_t)got;
    if (conn->token)
        look_for_mark(conn, (size_t)got);
}

static bool kind_known(uint8_t kind)
{
    return kind == WIRE_CONTROL || kind == WIRE_STDIN || kind == WIRE_STDOUT || kind == WIRE_STDERR;
}

int guest_conn_next(struct guest_conn *conn, struct guest_frame *ret)
{
    if (conn->marked)
        return -1;
    conn->in_at += conn->taken;
    conn->taken = 0;
    size_t have = conn->in_end - conn->in_at;
    const uint8_t *bytes = conn->in + conn->in_at;
    if (have < WIRE_HEADER_SIZE)
        return conn->ended ? -1 : 0;
    size_t len =
        (size_t)bytes[0] << 24 | (size_t)bytes[1] << 16 | (size_t)bytes[2] << 8 | (size_t)bytes[3];
    bool bad = len < 1 || len > WIRE_FRAME_MAX ||
               (have > WIRE_HEADER_SIZE && !kind_known(bytes[WIRE_HEADER_SIZE]));
    if (bad) {
        conn->ended = true;
        return -1;
    }
    if (have < WIRE_HEADER_SIZE + len)
        return conn->ended ? -1 : 0;
    conn->taken = WIRE_HEADER_SIZE + len;
    *ret = (struct guest_frame){.kind = (enum wire_kind)bytes[WIRE_HEADER_SIZE],
                                .data = bytes + WIRE_HEADER_SIZE + 1,
                                .len = len - 1};
    return 1;
}

/* ---- output ---- */

bool guest_conn_sending(const struct guest_conn *conn)
{
    return conn->out_at < conn->out_end;
}

static void flush(struct guest_conn *conn)
{
    while (guest_conn_sending(conn) && !conn->ended) {
        ssize_t put = write(conn->fd, conn->out + conn->out_at, conn->out_end - conn->out_at);
        if (put >= 0)
            conn->out_at += (size_t)put;
        else if (errno == EAGAIN)
            return;
        else if (errno != EINTR)
            conn->ended = true;
    }
    if (!guest_conn_sending(conn))
        conn->out_at = conn->out_end = 0;
}

int guest_conn_queue(struct guest_conn *conn, enum wire_kind kind, const void *data, size_t len)
{
    size_t payload = len + 1;
    if (conn->ended || len >= WIRE_FRAME_MAX ||
        sizeof conn->out - conn->out_end < WIRE_HEADER_SIZE + payload)
        return -1;
    uint8_t *to = conn->out + conn->out_end;
    const uint8_t head[] = {(uint8_t)(payload >> 24), (uint8_t)(payload >> 16),
                            (uint8_t)(payload >> 8), (uint8_t)payload, (uint8_t)kind};
    memcpy(to, head, sizeof head);
    if (len > 0)
        memcpy(to + sizeof head, data, len);
    conn->out_end += sizeof head + len;
    return 0;
}

int guest_conn_send_all(struct guest_conn *conn)
{
    flush(conn);
    while (guest_conn_sending(conn) && !conn->ended) {
        struct pollfd fds[1];
        guest_conn_poll(conn, fds, 1, -1);
    }
    return conn->ended ? -1 : 0;
}

int guest_conn_send_json(struct guest_conn *conn, json_t *json)
{
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_ENSURE_ASCII) : NULL;
    json_decref(json);
    int result = -1;
    if (text && guest_conn_send_all(conn) == 0 &&
        guest_conn_queue(conn, WIRE_CONTROL, text, strlen(text)) == 0)
        result = guest_conn_send_all(conn);
    free(text);
    return result;
}

/* ---- waiting ---- */

/* Something happened to a port without host: look again, whatever it was. */
static void look_again(struct guest_conn *conn)
{
    struct signalfd_siginfo info;
    while (read(conn->sigio, &info, sizeof info) > 0)
        continue;
    if (has_room(conn)) {
        fill(conn);
        return;
    }
    struct pollfd port = {.fd = conn->fd};
    if (poll(&port, 1, 0) >= 0 && !(port.revents & POLLHUP))
        conn->absent_since = 0;
}

static void take_events(struct guest_conn *conn, short revents)
{
    const short gone = POLLHUP | POLLRDHUP | POLLERR;
    if (has_room(conn) && (revents & (POLLIN | gone)))
        fill(conn);
    else if (conn->token && (revents & POLLHUP))
        host_absent(conn);
    else if (!conn->token && (revents & gone))
        conn->ended = true; /* nobody is left to take the output */
}

/* While no host is there the port polls as readable all the time: wait for news of one instead. */
static struct pollfd what_to_poll(const struct guest_conn *conn)
{
    if (conn->absent_since)
        return (struct pollfd){.fd = conn->sigio, .events = POLLIN};
    struct pollfd fds = {.fd = conn->fd, .events = POLLRDHUP};
    if (has_room(conn))
        fds.events |= POLLIN;
    if (guest_conn_sending(conn))
        fds.events |= POLLOUT;
    return fds;
}

void guest_conn_poll(struct guest_conn *conn, struct pollfd *fds, nfds_t count, int timeout_ms)
{
    bool absent = conn->absent_since != 0;
    fds[0] = what_to_poll(conn);
    if (absent && (timeout_ms < 0 || timeout_ms > ABSENT_RECHECK_MS))
        timeout_ms = ABSENT_RECHECK_MS;
    int ready = poll(fds, count, timeout_ms);
    for (nfds_t i = 0; ready < 0 && i < count; i++)
        fds[i].revents = 0;
    if (absent && (ready == 0 || fds[0].revents))
        look_again(conn);
    else if (!absent && fds[0].revents)
        take_events(conn, fds[0].revents);
    if (conn->absent_since == 0)
        flush(conn);
}

int guest_conn_read(struct guest_conn *conn, struct guest_frame *ret)
{
    for (;;) {
        int got = guest_conn_next(conn, ret);
        if (got != 0)
            return got < 0 ? -1 : 0;
        struct pollfd fds[1];
        guest_conn_poll(conn, fds, 1, -1);
    }
}

/* ---- sessions on a serial port ---- */

int guest_conn_next_session(struct guest_conn *conn)
{
    while (!conn->marked) {
        conn->in_at = conn->in_end; /* what no session will read */
        struct pollfd fds[1];
        conn->taken = 0;
        conn->ended = false;
        guest_conn_poll(conn, fds, 1, -1);
        if (conn->ended && !conn->marked)
            return -1;
    }
    conn->marked = conn->ended = false;
    conn->out_at = 0;
    memcpy(conn->out, conn->in + conn->in_at, GUEST_MARK_SIZE);
    conn->out_end = GUEST_MARK_SIZE;
    conn->in_at += GUEST_MARK_SIZE;
    return guest_conn_send_all(conn);
}
