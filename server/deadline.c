/* One thread that shuts down connections whose time is up. */
#include "server/internal.h"

#include <sys/socket.h>
#include <time.h>

enum { TICK_MS = 200 };

struct server_deadlines {
    pthread_mutex_t lock; /* guards all below but `thread` */
    pthread_cond_t changed;
    struct server_watch *watches;
    bool stopping;
    bool resting; /* nothing is armed: the thread waits without an end, until it is told */
    pthread_t thread;
};

/* Shutting down, not closing: the descriptor is libmicrohttpd's, which then sees the end. */
static void cut(struct server_watch *watch)
{
    shutdown(watch->fd, SHUT_RDWR);
    watch->deadline_ms = 0;
}

/* Returns whether any connection is armed. */
static bool expire(struct server_deadlines *deadlines)
{
    bool armed = false;
    int64_t now = clock_mono_ms();
    for (struct server_watch *watch = deadlines->watches; watch != NULL; watch = watch->next) {
        if (watch->deadline_ms == 0)
            continue;
        if (watch->deadline_ms <= now) {
            cut(watch);
        } else {
            armed = true;
        }
    }
    return armed;
}

static void *watch_all(void *context)
{
    struct server_deadlines *deadlines = context;
    pthread_mutex_lock(&deadlines->lock);
    while (!deadlines->stopping) {
        if (expire(deadlines)) {
            int64_t next = clock_mono_ms() + TICK_MS;
            const struct timespec until = {.tv_sec = next / 1000, .tv_nsec = next % 1000 * 1000000};
            pthread_cond_timedwait(&deadlines->changed, &deadlines->lock, &until);
        } else {
            deadlines->resting = true;
            pthread_cond_wait(&deadlines->changed, &deadlines->lock);
            deadlines->resting = false;
        }
    }
    pthread_mutex_unlock(&deadlines->lock);
    return NULL;
}

int server_deadlines_start(struct server_deadlines **ret, struct error *err)
{
    struct server_deadlines *deadlines = calloc(1, sizeof(*deadlines));
    if (deadlines == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for the connections' deadlines");
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&deadlines->lock, NULL);
    pthread_cond_init(&deadlines->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int result = pthread_create(&deadlines->thread, NULL, watch_all, deadlines);
    if (result != 0) {
        free(deadlines);
        return error_set(err, ERR_SYSTEM, result, "cannot start the deadlines' thread");
    }
    *ret = deadlines;
    return 0;
}

void server_deadlines_stop(struct server_deadlines *deadlines)
{
    if (deadlines == NULL)
        return;
    pthread_mutex_lock(&deadlines->lock);
    deadlines->stopping = true;
    pthread_cond_signal(&deadlines->changed);
    pthread_mutex_unlock(&deadlines->lock);
    pthread_join(deadlines->thread, NULL);
    pthread_cond_destroy(&deadlines->changed);
    pthread_mutex_destroy(&deadlines->lock);
    free(deadlines);
}

struct server_watch *server_deadlines_add(struct server_deadlines *deadlines, const void *group,
                                          int fd)
{
    struct server_watch *watch = calloc(1, sizeof(*watch));
    if (watch == NULL)
        return NULL;
    watch->group = group;
    watch->fd = fd;
    pthread_mutex_lock(&deadlines->lock);
    watch->next = deadlines->watches;
    if (watch->next != NULL)
        watch->next->previous = watch;
    deadlines->watches = watch;
    pthread_mutex_unlock(&deadlines->lock);
    return watch;
}

void server_deadlines_remove(struct server_deadlines *deadlines, struct server_watch *watch)
{
    if (watch == NULL)
        return;
    pthread_mutex_lock(&deadlines->lock);
    if (watch->previous != NULL)
        watch->previous->next = watch->next;
    else
        deadlines->watches = watch->next;
    if (watch->next != NULL)
        watch->next->previous = watch->previous;
    pthread_mutex_unlock(&deadlines->lock);
    free(watch);
}

void server_deadlines_arm(struct server_deadlines *deadlines, struct server_watch *watch, int ms,
                          bool reading)
{
    if (watch == NULL)
        return;
    int64_t now = clock_mono_ms();
    pthread_mutex_lock(&deadlines->lock);
    watch->since_ms = now;
    watch->reading = reading;
    watch->deadline_ms = ms > 0 ? now + ms : 0;
    if (ms > 0 && deadlines->resting) { /* else it looks soon by itself; a request arms thrice */
        deadlines->resting = false;
        pthread_cond_signal(&deadlines->changed);
    }
    pthread_mutex_unlock(&deadlines->lock);
}

void server_deadlines_limit(struct server_deadlines *deadlines, struct server_watch *watch, int ms)
{
    if (watch == NULL)
        return;
    int64_t latest = clock_mono_ms() + ms;
    pthread_mutex_lock(&deadlines->lock);
    if (watch->deadline_ms > latest)
        watch->deadline_ms = latest;
    pthread_mutex_unlock(&deadlines->lock);
}

bool server_deadlines_evict(struct server_deadlines *deadlines, const void *group)
{
    struct server_watch *oldest = NULL;
    pthread_mutex_lock(&deadlines->lock);
    for (struct server_watch *watch = deadlines->watches; watch != NULL; watch = watch->next)
        if (watch->deadline_ms != 0 && watch->reading && (group == NULL || watch->group == group) &&
            (oldest == NULL || watch->since_ms <= oldest->since_ms))
            oldest = watch;
    if (oldest != NULL)
        cut(oldest);
    pthread_mutex_unlock(&deadlines->lock);
    return oldest != NULL;
}
