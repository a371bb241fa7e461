/*
 * The audit of calls on its way into the inventory. Who answers a request puts an entry into a bounded
 * queue and goes on; one thread writes what has gathered, at the latest when the oldest has waited for
 * LINGER_MS: some commits a second, however many requests there are.
 */
#include "api/internal.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

enum { QUEUE = 1024, BATCH = 128, LINGER_MS = 100 };

struct api_calls {
    struct store *store;  /* borrowed */
    pthread_mutex_t lock; /* guards all below but `batch` */
    pthread_cond_t work, written;
    struct store_call queue[QUEUE];
    size_t at, count;
    uint64_t put, done; /* ever */
    uint64_t lost;
    int64_t since_ms; /* when the oldest came; CLOCK_MONOTONIC */
    bool hurry, over;
    struct store_call batch[BATCH]; /* the thread's alone */
    pthread_t thread;
};

/* With the lock held. While there is plenty, anybody; then by share, so that who floods cannot have a
 * call of somebody else's, or of his own under another name, go unrecorded. */
static bool has_room(const struct api_calls *calls, const char *caller)
{
    unsigned own = 0;
    if (calls->count < QUEUE / 2)
        return true;
    for (size_t i = 0; i < calls->count; i++)
        own += strcmp(calls->queue[(calls->at + i) % QUEUE].caller, caller) == 0;
    return share_admits(own, (unsigned)calls->count, QUEUE);
}

void api_calls_put(struct api_calls *calls, const struct store_call *call)
{
    if (calls == NULL)
        return;
    pthread_mutex_lock(&calls->lock);
    if (!has_room(calls, call->caller)) {
        calls->lost++;
    } else {
        if (calls->count == 0)
            calls->since_ms = clock_mono_ms();
        calls->queue[(calls->at + calls->count++) % QUEUE] = *call;
        calls->put++;
        if (calls->count == 1 || calls->count == BATCH)
            pthread_cond_signal(&calls->work);
    }
    pthread_mutex_unlock(&calls->lock);
}

/* With the lock held: until there is something to write now. */
static void await_work(struct api_calls *calls)
{
    while (calls->count == 0 && !calls->over)
        pthread_cond_wait(&calls->work, &calls->lock);
    int64_t until_ms = calls->since_ms + LINGER_MS;
    const struct timespec until = {.tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000};
    int waited = 0;
    while (calls->count < BATCH && !calls->hurry && !calls->over && waited != ETIMEDOUT)
        waited = pthread_cond_timedwait(&calls->work, &calls->lock, &until);
}

/* With the lock held, which is given up meanwhile. */
static void write_batch(struct api_calls *calls)
{
    size_t count = calls->count < BATCH ? calls->count : BATCH;
    struct error err = {0};
    for (size_t i = 0; i < count; i++)
        calls->batch[i] = calls->queue[(calls->at + i) % QUEUE];
    calls->at = (calls->at + count) % QUEUE;
    calls->count -= count;
    calls->since_ms = clock_mono_ms();
    pthread_mutex_unlock(&calls->lock);
    int result = store_calls_add(calls->store, calls->batch, count, &err);
    pthread_mutex_lock(&calls->lock);
    calls->lost += result < 0 ? count : 0;
    calls->done += count;
    calls->hurry = calls->hurry && calls->count > 0;
    pthread_cond_broadcast(&calls->written);
}

static void *run(void *context)
{
    struct api_calls *calls = context;
    pthread_mutex_lock(&calls->lock);
    while (!calls->over || calls->count > 0) {
        await_work(calls);
        if (calls->count > 0)
            write_batch(calls);
    }
    pthread_mutex_unlock(&calls->lock);
    return NULL;
}

void api_calls_flush(struct api_calls *calls)
{
    if (calls == NULL)
        return;
    pthread_mutex_lock(&calls->lock);
    uint64_t put = calls->put;
    if (calls->done < put) {
        calls->hurry = true;
        pthread_cond_signal(&calls->work);
    }
    while (calls->done < put)
        pthread_cond_wait(&calls->written, &calls->lock);
    pthread_mutex_unlock(&calls->lock);
}

uint64_t api_calls_lost(struct api_calls *calls)
{
    pthread_mutex_lock(&calls->lock);
    uint64_t lost = calls->lost;
    pthread_mutex_unlock(&calls->lock);
    return lost;
}

static void release(struct api_calls *calls)
{
    pthread_cond_destroy(&calls->written);
    pthread_cond_destroy(&calls->work);
    pthread_mutex_destroy(&calls->lock);
    free(calls);
}

int api_calls_start(struct store *store, struct api_calls **ret, struct error *err)
{
    struct api_calls *calls = calloc(1, sizeof(*calls));
    if (calls == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for the audit of calls");
    calls->store = store;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&calls->lock, NULL);
    pthread_cond_init(&calls->work, &monotonic);
    pthread_cond_init(&calls->written, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int result = pthread_create(&calls->thread, NULL, run, calls);
    if (result != 0) {
        release(calls);
        return error_set(err, ERR_SYSTEM, result, "cannot start the thread for the audit of calls");
    }
    *ret = calls;
    return 0;
}

void api_calls_stop(struct api_calls *calls)
{
    if (calls == NULL)
        return;
    pthread_mutex_lock(&calls->lock);
    calls->over = true;
    pthread_cond_signal(&calls->work);
    pthread_mutex_unlock(&calls->lock);
    pthread_join(calls->thread, NULL);
    release(calls);
}
