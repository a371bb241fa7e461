/*
 * Answers that come as they arise. The library asks for more whenever the client can take it; while
 * the source has nothing the connection is suspended, and the source's waker resumes it. One thread
 * for all of them notices clients that leave meanwhile, which the library does not, and has a comment
 * sent where an event stream was silent for long.
 *
 * Locks: the source's, then ours, then the library's own.
 */
#include "server/internal.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

enum { BLOCK = 32 * 1024, TICKS = 8 /* how often a silence is looked at until it is long */ };

struct server_stream {
    struct server_stream *next, *previous;
    struct server_streams *streams;
    uint64_t serial; /* never used again */
    uint64_t owner;  /* whose share it is of */
    struct waker waker;
    struct api_stream source; /* owned */
    struct caller caller;
    struct MHD_Connection *connection;
    struct server_watch *watch; /* the connection's; NULL: it has none */
    int fd;                     /* borrowed from the library */
    /* Guarded by the streams' lock. */
    bool suspended;
    bool woken; /* since the source was last asked */
    bool gone;  /* the client is */
    bool over;  /* the service stops, or its caller's token is revoked */
    int64_t sent_ms;
};

struct server_streams {
    struct server *server; /* borrowed */
    pthread_mutex_t lock;  /* guards all below */
    pthread_cond_t fewer;
    struct server_stream *first;
    unsigned count;
    uint64_t last_serial;
    bool quiet;    /* no new ones, */
    bool finished; /* and none is suspended any more */
    int events, wake;
    pthread_t thread;
};

/* ---- waking, with the lock held ---- */

static void resume(struct server_stream *stream)
{
    stream->woken = true;
    if (!stream->suspended)
        return;
    stream->suspended = false;
    MHD_resume_connection(stream->connection);
}

static void end_all(struct server_streams *streams, bool events_alone)
{
    for (struct server_stream *stream = streams->first; stream != NULL; stream = stream->next) {
        if (!stream->source.events && events_alone)
            continue;
        stream->over = true;
        resume(stream);
    }
}

static void wake(struct waker *waker)
{
    struct server_stream *stream =
        (struct server_stream *)(void *)((char *)waker - offsetof(struct server_stream, waker));
    pthread_mutex_lock(&stream->streams->lock);
    resume(stream);
    pthread_mutex_unlock(&stream->streams->lock);
}

/* ---- on the connection's thread ---- */

static void arm(struct server_stream *stream, int ms)
{
    server_deadlines_arm(stream->streams->server->deadlines, stream->watch, ms, false);
}

/* 0, or what ends the stream. */
static ssize_t begin_read(struct server_stream *stream)
{
    pthread_mutex_lock(&stream->streams->lock);
    stream->woken = false;
    ssize_t result = stream->gone ? MHD_CONTENT_READER_END_WITH_ERROR : 0;
    if (stream->over) /* of a file the client must see that it is not whole */
        result = stream->source.events ? MHD_CONTENT_READER_END_OF_STREAM
                                       : MHD_CONTENT_READER_END_WITH_ERROR;
    pthread_mutex_unlock(&stream->streams->lock);
    return result;
}

static ssize_t sent(struct server_stream *stream, ssize_t len)
{
    pthread_mutex_lock(&stream->streams->lock);
    stream->sent_ms = clock_mono_ms();
    pthread_mutex_unlock(&stream->streams->lock);
    arm(stream, stream->streams->server->options.send_ms);
    return len;
}

/* False when there may be news already. */
static bool suspend(struct server_stream *stream)
{
    struct server_streams *streams = stream->streams;
    pthread_mutex_lock(&streams->lock);
    bool sleeps = !stream->woken && !stream->over && !stream->gone;
    if (sleeps) {
        arm(stream, 0);
        stream->suspended = true;
        MHD_suspend_connection(stream->connection);
    }
    pthread_mutex_unlock(&streams->lock);
    return sleeps;
}

static bool is_silent(struct server_stream *stream)
{
    pthread_mutex_lock(&stream->streams->lock);
    bool silent = stream->source.events && clock_mono_ms() - stream->sent_ms >=
                                               stream->streams->server->options.keepalive_ms;
    pthread_mutex_unlock(&stream->streams->lock);
    return silent;
}

static ssize_t pull(void *cls, uint64_t at, char *out, size_t size)
{
    static const char comment[] = ":\n\n";
    struct server_stream *stream = cls;
    (void)at;
    for (;;) {
        ssize_t ended = begin_read(stream);
        if (ended != 0)
            return ended;
        ssize_t got = stream->source.read(stream->source.context, out, size, &stream->waker);
        if (got > 0)
            return sent(stream, got);
        if (got != API_STREAM_WAIT)
            return got == API_STREAM_END ? MHD_CONTENT_READER_END_OF_STREAM
                                         : MHD_CONTENT_READER_END_WITH_ERROR;
        if (is_silent(stream)) {
            memcpy(out, comment, sizeof(comment) - 1);
            return sent(stream, sizeof(comment) - 1);
        }
        if (suspend(stream))
            return 0;
    }
}

static void close_stream(void *cls)
{
    struct server_stream *stream = cls;
    struct server_streams *streams = stream->streams;
    stream->source.close(stream->source.context, &stream->waker); /* nobody wakes it any more */
    pthread_mutex_lock(&streams->lock);
    epoll_ctl(streams->events, EPOLL_CTL_DEL, stream->fd, NULL);
    if (stream->previous != NULL)
        stream->previous->next = stream->next;
    else
        streams->first = stream->next;
    if (stream->next != NULL)
        stream->next->previous = stream->previous;
    streams->count--;
    server_metrics_streams(streams->server->options.metrics, -1);
    pthread_cond_signal(&streams->fewer);
    pthread_mutex_unlock(&streams->lock);
    free(stream);
}

/* ---- begin ---- */

/* With the lock held. */
static bool has_room(const struct server_streams *streams, uint64_t owner)
{
    unsigned own = 0;
    for (const struct server_stream *stream = streams->first; stream != NULL; stream = stream->next)
        own += stream->owner == owner;
    return share_admits(own, streams->count, streams->server->options.streams);
}

/* Likewise. */
static int admit(struct server_streams *streams, struct server_stream *stream, struct error *err)
{
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLONESHOT,
                                .data.u64 = streams->last_serial + 1};
    if (streams->quiet)
        return error_set(err, ERR_SHUTTING_DOWN, 0, "the service is stopping");
    if (!server_tokens_stand(streams->server->options.tokens, &stream->caller))
        return error_set(err, ERR_UNAUTHORIZED, 0, "this token is not known any more");
    if (!has_room(streams, stream->owner))
        return error_set(err, ERR_BUSY, 0,
                         "as many streams are open as there may be (%u), or as many of yours",
                         streams->server->options.streams);
    if (epoll_ctl(streams->events, EPOLL_CTL_ADD, stream->fd, &event) < 0)
        return error_set(err, ERR_SYSTEM, errno, "cannot watch the connection of a stream");
    stream->serial = ++streams->last_serial;
    stream->next = streams->first;
    if (stream->next != NULL)
        stream->next->previous = stream;
    streams->first = stream;
    if (streams->count++ == 0)
        eventfd_write(streams->wake, 1);
    server_metrics_streams(streams->server->options.metrics, 1);
    return 0;
}

int server_stream_begin(struct server_request *request, struct server_stream **ret,
                        struct error *err)
{
    struct server_streams *streams = request->listening->server->streams;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct server_stream *stream = info != NULL ? calloc(1, sizeof(*stream)) : NULL;
    if (stream == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a stream");
    *stream = (struct server_stream){.streams = streams,
                                     .waker = {.wake = wake},
                                     .owner = server_owner(&request->caller),
                                     .source = request->response.stream,
                                     .caller = request->caller,
                                     .connection = request->connection,
                                     .watch = server_watch_of(request->connection),
                                     .fd = info->connect_fd,
                                     .sent_ms = clock_mono_ms()};
    pthread_mutex_lock(&streams->lock);
    int result = admit(streams, stream, err);
    pthread_mutex_unlock(&streams->lock);
    if (result < 0) {
        free(stream);
        return -1;
    }
    request->response.stream = (struct api_stream){0};
    *ret = stream;
    return 0;
}

struct MHD_Response *server_stream_answer(struct server_stream *stream)
{
    uint64_t size = stream->source.sized ? stream->source.size : MHD_SIZE_UNKNOWN;
    struct MHD_Response *answer =
        MHD_create_response_from_callback(size, BLOCK, pull, stream, close_stream);
    if (answer == NULL)
        close_stream(stream);
    return answer;
}

/* ---- the thread ---- */

/* With the lock held. How long until a silence is to be looked at again; -1: there is no stream. */
static int look(struct server_streams *streams)
{
    int keepalive_ms = streams->server->options.keepalive_ms;
    int64_t now = clock_mono_ms();
    for (struct server_stream *stream = streams->first; stream != NULL; stream = stream->next)
        if (stream->suspended && stream->source.events && now - stream->sent_ms >= keepalive_ms)
            resume(stream);
    return streams->first != NULL ? keepalive_ms / TICKS + 1 : -1;
}

static void leave(struct server_streams *streams, uint64_t serial)
{
    struct server_stream *stream = streams->first;
    while (stream != NULL && stream->serial != serial)
        stream = stream->next;
    if (stream == NULL)
        return;
    stream->gone = true;
    resume(stream);
}

static void *watch(void *context)
{
    enum { EVENTS = 64 };
    struct server_streams *streams = context;
    struct epoll_event events[EVENTS];
    pthread_mutex_lock(&streams->lock);
    while (!streams->finished) {
        int wait_ms = look(streams);
        pthread_mutex_unlock(&streams->lock);
        int count = epoll_wait(streams->events, events, EVENTS, wait_ms);
        pthread_mutex_lock(&streams->lock);
        for (int i = 0; i < count; i++) {
            eventfd_t ignored;
            if (events[i].data.u64 == 0)
                eventfd_read(streams->wake, &ignored);
            else
                leave(streams, events[i].data.u64);
        }
    }
    pthread_mutex_unlock(&streams->lock);
    return NULL;
}

static int open_events(struct server_streams *streams, struct error *err)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0};
    streams->events = epoll_create1(EPOLL_CLOEXEC);
    streams->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (streams->events < 0 || streams->wake < 0 ||
        epoll_ctl(streams->events, EPOLL_CTL_ADD, streams->wake, &event) < 0)
        return error_set(err, ERR_SYSTEM, errno, "cannot make the streams' events");
    int result = pthread_create(&streams->thread, NULL, watch, streams);
    if (result != 0)
        return error_set(err, ERR_SYSTEM, result, "cannot start the streams' thread");
    return 0;
}

int server_streams_start(struct server *server, struct server_streams **ret, struct error *err)
{
    struct server_streams *streams = calloc(1, sizeof(*streams));
    if (streams == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for streams");
    *streams = (struct server_streams){.server = server, .events = -1, .wake = -1};
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&streams->lock, NULL);
    pthread_cond_init(&streams->fewer, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (open_events(streams, err) < 0) {
        server_streams_free(streams);
        return -1;
    }
    *ret = streams;
    return 0;
}

/* ---- stop ---- */

void server_streams_quiesce(struct server_streams *streams)
{
    if (streams == NULL)
        return;
    pthread_mutex_lock(&streams->lock);
    streams->quiet = true;
    end_all(streams, true);
    pthread_mutex_unlock(&streams->lock);
}

void server_streams_revoke(struct server_streams *streams)
{
    pthread_mutex_lock(&streams->lock);
    for (struct server_stream *stream = streams->first; stream != NULL; stream = stream->next) {
        if (server_tokens_stand(streams->server->options.tokens, &stream->caller))
            continue;
        stream->over = true;
        resume(stream);
    }
    pthread_mutex_unlock(&streams->lock);
}

/* One that is not ending already. With the lock held. */
static bool is_sending(const struct server_streams *streams)
{
    const struct server_stream *stream = streams->first;
    while (stream != NULL && stream->over)
        stream = stream->next;
    return stream != NULL;
}

void server_streams_finish(struct server_streams *streams, int64_t deadline_ms)
{
    if (streams == NULL)
        return;
    const struct timespec until = {.tv_sec = deadline_ms / 1000,
                                   .tv_nsec = deadline_ms % 1000 * 1000000};
    pthread_mutex_lock(&streams->lock);
    while (is_sending(streams) &&
           pthread_cond_timedwait(&streams->fewer, &streams->lock, &until) == 0)
        continue;
    streams->finished = true;
    end_all(streams, false);
    pthread_mutex_unlock(&streams->lock);
    eventfd_write(streams->wake, 1);
    pthread_join(streams->thread, NULL);
}

void server_streams_free(struct server_streams *streams)
{
    if (streams == NULL)
        return;
    if (streams->events >= 0)
        close(streams->events);
    if (streams->wake >= 0)
        close(streams->wake);
    pthread_cond_destroy(&streams->fewer);
    pthread_mutex_destroy(&streams->lock);
    free(streams);
}
