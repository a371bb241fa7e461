#include "vsock/internal.h"
#include <pthread.h>
#include <sys/socket.h>

enum {
    CALLS_MAX = 64,
    FORGOTTEN_MAX = 256, /* timed-out calls whose late reply is still known */
    FILLS_PER_WAKE = 16, /* a flooding guest must not hold the thread that serves all guests */
};

struct call {
    uint64_t id;
    cJSON *reply; /* owned */
    pthread_cond_t done;
};

/* One mutex guards all but the two halves of `conn`: the reading half belongs to the one thread in
 * vsock_channel_readable(), the writing half to the caller that holds `writing`. */
struct vsock_channel {
    struct vsock_conn *conn; /* owned */
    vsock_notify *notify;
    void *context;
    pthread_mutex_t lock;
    pthread_cond_t turn; /* `writing` fell, or the channel is over */
    pthread_cond_t left; /* a caller went */
    bool writing;
    unsigned callers;
    struct call *calls[CALLS_MAX]; /* borrowed from the callers' stacks */
    uint64_t forgotten[FORGOTTEN_MAX];
    unsigned forgotten_next;
    struct error over; /* set: every call fails with it */
};

static void cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

/* false at the deadline. */
static bool cond_wait(struct vsock_channel *channel, pthread_cond_t *cond, int64_t deadline_ms)
{
    const struct timespec until = {.tv_sec = deadline_ms / 1000,
                                   .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
    return pthread_cond_timedwait(cond, &channel->lock, &until) == 0;
}

struct vsock_channel *vsock_channel_new(struct vsock_conn *conn, vsock_notify *notify,
                                        void *context, struct error *err)
{
    struct vsock_channel *channel = calloc(1, sizeof *channel);
    if (!channel) {
        vsock_conn_free(conn);
        error_set(err, ERR_NO_MEMORY, 0, "no memory for a channel to the guest");
        return NULL;
    }
    channel->conn = conn;
    channel->notify = notify;
    channel->context = context;
    pthread_mutex_init(&channel->lock, NULL);
    cond_init(&channel->turn);
    cond_init(&channel->left);
    return channel;
}

/* Ends the channel for everybody; the first reason stays. Lock held. */
static void end_locked(struct vsock_channel *channel, const struct error *why)
{
    if (channel->over.code)
        return;
    channel->over = *why;
    for (size_t i = 0; i < CALLS_MAX; i++)
        if (channel->calls[i])
            pthread_cond_signal(&channel->calls[i]->done);
    pthread_cond_broadcast(&channel->turn);
    shutdown(channel->conn->fd, SHUT_RDWR); /* wakes a writer that waits in poll() */
}

void vsock_channel_free(struct vsock_channel *channel)
{
    if (!channel)
        return;
    struct error why = {0};
    error_set(&why, ERR_GUEST_CLOSED, 0, "the channel to the guest was closed");
    pthread_mutex_lock(&channel->lock);
    end_locked(channel, &why);
    while (channel->callers > 0)
        pthread_cond_wait(&channel->left, &channel->lock);
    pthread_mutex_unlock(&channel->lock);
    pthread_cond_destroy(&channel->turn);
    pthread_cond_destroy(&channel->left);
    pthread_mutex_destroy(&channel->lock);
    vsock_conn_free(channel->conn);
    free(channel);
}

int vsock_channel_fd(const struct vsock_channel *channel)
{
    return channel->conn->fd;
}

/* ---- reading ---- */

static bool take_forgotten(struct vsock_channel *channel, uint64_t id)
{
    for (size_t i = 0; i < FORGOTTEN_MAX; i++)
        if (channel->forgotten[i] == id) {
            channel->forgotten[i] = 0;
            return true;
        }
    return false;
}

/* Hands the reply (taken on success) to its caller. */
static int deliver(struct vsock_channel *channel, cJSON **reply, struct error *err)
{
    uint64_t id = vsock_message_id(*reply);
    int result = -1;
    pthread_mutex_lock(&channel->lock);
    for (size_t i = 0; i < CALLS_MAX && id; i++) {
        struct call *call = channel->calls[i];
        if (call && call->id == id && !call->reply) {
            call->reply = TAKE_PTR(*reply);
            pthread_cond_signal(&call->done);
            result = 0;
            break;
        }
    }
    if (result && id && take_forgotten(channel, id))
        result = 0;
    pthread_mutex_unlock(&channel->lock);
    return result == 0
               ? 0
               : error_set(err, ERR_GUEST_PROTOCOL, 0,
                           "the guest broke the protocol: an answer to a request never made");
}

static int take_frames(struct vsock_channel *channel, struct error *err)
{
    struct vsock_frame frame;
    int got;
    while ((got = vsock_conn_next(channel->conn, &frame, err)) > 0) {
        cleanup_json cJSON *message = NULL;
        if (vsock_message_parse(&frame, &message, err))
            return -1;
        if (!cJSON_GetObjectItemCaseSensitive(message, "op")) {
            if (deliver(channel, &message, err))
                return -1;
        } else if (channel->notify) {
            channel->notify(channel->context, message);
        }
    }
    return got;
}

static int read_some(struct vsock_channel *channel, struct error *err)
{
    for (int i = 0; i < FILLS_PER_WAKE; i++) {
        struct error gone = {0};
        int filled = vsock_conn_fill(channel->conn, VSOCK_FRAME_SIZE, &gone);
        if (take_frames(channel, err))
            return -1;
        if (filled < 0) {
            *err = gone;
            return -1;
        }
        if (filled == 0)
            break;
    }
    vsock_conn_trim(channel->conn);
    return 0;
}

int vsock_channel_readable(struct vsock_channel *channel, struct error *err)
{
    pthread_mutex_lock(&channel->lock);
    struct error over = channel->over;
    pthread_mutex_unlock(&channel->lock);
    if (!over.code && read_some(channel, &over)) {
        pthread_mutex_lock(&channel->lock);
        end_locked(channel, &over);
        pthread_mutex_unlock(&channel->lock);
    }
    if (!over.code)
        return 0;
    *err = over;
    return -1;
}

/* ---- calling ---- */

/* Waits for the turn to write. Lock held. */
static int turn_take(struct vsock_channel *channel, int64_t deadline_ms, struct error *err)
{
    while (channel->writing && !channel->over.code)
        if (!cond_wait(channel, &channel->turn, deadline_ms) && channel->writing)
            return error_set(err, ERR_GUEST_TIMEOUT, 0, "the guest does not read its requests");
    if (channel->over.code) {
        *err = channel->over;
        return -1;
    }
    channel->writing = true;
    return 0;
}

static void turn_give(struct vsock_channel *channel)
{
    channel->writing = false;
    pthread_cond_signal(&channel->turn);
}

/* Reading is somebody else's: a guest that does not read cannot stop that. */
static int flush_all(struct vsock_conn *conn, int64_t deadline_ms, struct error *err)
{
    for (;;) {
        if (vsock_conn_flush(conn, err))
            return -1;
        if (!vsock_conn_sending(conn))
            return 0;
        struct pollfd fds = {.fd = conn->fd, .events = POLLOUT};
        if (vsock_poll(&fds, 1, deadline_ms, err))
            return -1;
    }
}

/* Numbers the request and sends it. The id is given under the turn, so ids grow on the wire; the
 * call is entered before the first byte goes, so its reply cannot come too early. Lock held, but
 * not while sending. */
static int send_call(struct vsock_channel *channel, struct call *call, cJSON *request,
                     int64_t deadline_ms, struct error *err)
{
    if (turn_take(channel, deadline_ms, err))
        return -1;
    call->id = channel->conn->next_id++;
    pthread_mutex_unlock(&channel->lock);
    int result = -1;
    cJSON_DeleteItemFromObjectCaseSensitive(request, "id");
    if (json_add_number(request, "id", (double)call->id))
        error_set(err, ERR_NO_MEMORY, 0, "no memory for a request to the guest");
    else if (vsock_message_queue(channel->conn, request, err) == 0)
        result = flush_all(channel->conn, deadline_ms, err);
    pthread_mutex_lock(&channel->lock);
    turn_give(channel);
    return result;
}

/* Lock held. */
static int await_reply(struct vsock_channel *channel, struct call *call, int64_t deadline_ms,
                       struct error *err)
{
    while (!call->reply && !channel->over.code)
        if (!cond_wait(channel, &call->done, deadline_ms) && !call->reply && !channel->over.code)
            return error_set(err, ERR_GUEST_TIMEOUT, 0, "the guest did not answer in time");
    if (call->reply)
        return 0;
    *err = channel->over;
    return -1;
}

/* Lock held. -1: 64 calls wait already. */
static int slot_find(const struct vsock_channel *channel)
{
    for (int i = 0; i < CALLS_MAX; i++)
        if (!channel->calls[i])
            return i;
    return -1;
}

static int call_locked(struct vsock_channel *channel, struct call *call, cJSON *request,
                       int64_t deadline_ms, struct error *err)
{
    int slot = slot_find(channel);
    if (channel->over.code) {
        *err = channel->over;
        return -1;
    }
    if (slot < 0)
        return error_set(err, ERR_BUSY, 0, "%d requests to this guest wait already", CALLS_MAX);
    channel->calls[slot] = call;
    int result = send_call(channel, call, request, deadline_ms, err);
    if (result == 0)
        result = await_reply(channel, call, deadline_ms, err);
    channel->calls[slot] = NULL;
    if (result && call->id && !call->reply) {
        channel->forgotten[channel->forgotten_next] = call->id;
        channel->forgotten_next = (channel->forgotten_next + 1) % FORGOTTEN_MAX;
    }
    return result;
}

int vsock_channel_call(struct vsock_channel *channel, cJSON *request, int64_t deadline_ms,
                       cJSON **ret_reply, struct error *err)
{
    struct call call = {0};
    cond_init(&call.done);
    pthread_mutex_lock(&channel->lock);
    channel->callers++;
    int result = call_locked(channel, &call, request, deadline_ms, err);
    if (--channel->callers == 0)
        pthread_cond_broadcast(&channel->left);
    pthread_mutex_unlock(&channel->lock);
    pthread_cond_destroy(&call.done);
    cleanup_json cJSON *reply = call.reply;
    if (result || vsock_reply_check(reply, err))
        return -1;
    *ret_reply = TAKE_PTR(reply);
    return 0;
}
